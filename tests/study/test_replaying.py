"""Replay: the records of a search lead to the same decisions, and a changed record is detected."""

import dataclasses
import random
from collections import Counter

import pytest

from study.scheduling.budget import is_search_finished
from study.scheduling.search_director import SearchDirector
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook
from tests.study.replaying import Replay, replay_search
from tests.study.simulated import FIXED, drive, learning_curve, make_spec
from trainables.records.record import TrialRecord, TrialState


def run_search(spec: StudySpec, **options: int) -> tuple[TrialRecord, ...]:
    book = MemoryBook()
    drive(SearchDirector(book, spec, FIXED), noisy_curve, **options)
    return book.of_stage("search")


def noisy_curve(record: TrialRecord, epoch: int) -> float | None:
    """Return a curve with noise, which diverges for one trial in eight."""
    noise = random.Random(f"{record.trial_id} {epoch}").uniform(-0.1, 0.1)
    if int(record.trial_id) % 8 == 5 and epoch == 2:
        return None
    return learning_curve(record, epoch) + noise


@pytest.mark.parametrize("sampler", ["random", "tpe_univariate", "tpe_multivariate", "gp"])
def test_new_sampler_and_scheduler_make_the_same_decisions_in_order(sampler: str) -> None:
    spec = make_spec(num_trials=20, sampler=sampler)
    records = run_search(spec, num_workers=3)
    states = [r.state for r in records]
    assert TrialState.FAILED in states
    assert states.count(TrialState.PRUNED) >= 3
    replay = replay_search(records, {0: spec})
    assert replay == Replay(
        num_suggestions=20, num_reports=sum(len(r.epochs) for r in records), num_stops=20, difference=""
    )


def test_pooled_search_and_budget_of_device_seconds_replay() -> None:
    for search in ({"allocation": "pooled", "num_trials": 16}, {"device_seconds": 150.0, "num_trials": None}):
        spec = make_spec(**search)
        records = run_search(spec)
        replay = replay_search(records, {0: spec})
        assert (replay.num_suggestions, replay.difference) == (len(records), "")


def test_no_arm_has_more_trials_than_allowed_and_the_search_ends_and_replays() -> None:
    spec = make_spec(device_seconds=10_000.0, num_trials=None, max_trials_per_arm=4)
    records = run_search(spec)
    assert Counter(r.config.arm for r in records) == {"resnet18": 4, "resnet50": 4}
    assert is_search_finished(records, spec, None)
    assert not is_search_finished(records[:-1], spec, None)
    assert replay_search(records, {0: spec}).difference == ""
    fewer = run_search(make_spec(num_trials=6, max_trials_per_arm=5))
    assert Counter(r.config.arm for r in fewer) == {"resnet18": 4, "resnet50": 2}, "equal device time below the limit"


def test_extended_search_replays_with_the_budget_of_each_extension() -> None:
    small, large = (make_spec(device_seconds=s, num_trials=None) for s in (70.0, 150.0))
    book = MemoryBook()
    drive(SearchDirector(book, small, FIXED), noisy_curve)
    num_before = len(book.of_stage("search"))
    drive(SearchDirector(book, large, FIXED), noisy_curve)
    records = book.of_stage("search")
    assert len(records) > num_before
    assert replay_search(records, {0: small, num_before: large}).difference == ""


def test_interrupted_search_replays() -> None:
    spec, book = make_spec(num_trials=16), MemoryBook()
    drive(SearchDirector(book, spec, FIXED), noisy_curve, max_events=21)
    drive(SearchDirector(book, spec, FIXED), noisy_curve)
    assert replay_search(book.of_stage("search"), {0: spec}).difference == ""


@pytest.mark.parametrize("seed", [9, 13, 36])
def test_search_of_parallel_trials_that_is_killed_again_and_again_replays(seed: int) -> None:
    """Optuna's TPE also reads, of running trials, what it drew for parameters that do not apply, which no record holds."""
    spec = make_spec(num_trials=14, pruning="none" if seed % 2 else "asha")
    book = kill_often(spec, seed)
    orders = [o for r in book for o in (r.suggested_order, *(e.order for e in r.epochs), r.ended_order)]
    assert len(set(orders)) == len(orders)
    assert replay_search(book.of_stage("search"), {0: spec}).difference == ""


def kill_often(spec: StudySpec, seed: int) -> MemoryBook:
    """Run a search whose driver is killed after every 1 to 12 reports, and return its records."""
    book, generator = MemoryBook(), random.Random(seed)
    director = SearchDirector(book, spec, FIXED)
    while not director.is_exhausted or director.unfinished():
        drive(director, num_workers=4, max_events=generator.randint(1, 12))
        director = SearchDirector(book, spec, FIXED)
    return book


@pytest.mark.parametrize("sampler", ["random", "tpe_univariate", "tpe_multivariate", "gp"])
def test_rebuilt_samplers_hold_the_trials_of_the_live_ones(sampler: str) -> None:
    spec, book = make_spec(num_trials=40, sampler=sampler), MemoryBook()
    live = SearchDirector(book, spec, FIXED)
    drive(live, noisy_curve, num_workers=6, max_events=70)
    rebuilt = SearchDirector(book, spec, FIXED)
    described = describe_trials(live)
    assert described == describe_trials(rebuilt)
    assert sum("TrialState.RUNNING" in trial for trial in described) > 2


def describe_trials(director: SearchDirector) -> list[str]:
    """Return everything that the trials of all samplers hold, in its order, but times."""
    trials = [trial for sampler in director._samplers.values() for trial in sampler.trials]
    return [str({name: value for name, value in vars(trial).items() if "datetime" not in name}) for trial in trials]


def test_crashed_trials_that_ended_the_search_replay() -> None:
    spec, book = make_spec(num_trials=12), MemoryBook()
    director = SearchDirector(book, spec, FIXED)
    while not director.problem:
        record = director.next_trial()
        assert record is not None
        director.on_error(record.trial_id, "ValueError: no")
        director.on_retries_exhausted(record.trial_id)
    drive(SearchDirector(book, spec, FIXED), noisy_curve)
    assert len(book.of_stage("search")) == 12
    assert replay_search(book.of_stage("search"), {0: spec}).difference == ""


def test_changed_score_changes_a_later_decision_and_is_named() -> None:
    spec = make_spec(num_trials=20)
    records = list(run_search(spec))
    first = records[0]
    worse = [e.model_copy(update={"macro_f1": 0.01}) for e in first.epochs]
    records[0] = first.updated(epochs=tuple(worse))
    replay = replay_search(records, {0: spec})
    assert replay.difference
    assert replay.num_suggestions < 20


def test_another_sampler_makes_other_suggestions() -> None:
    records = run_search(make_spec(num_trials=20, sampler="random"))
    replay = replay_search(records, {0: make_spec(num_trials=20, sampler="tpe_univariate")})
    assert "recorded suggestion resnet" in replay.difference
    assert dataclasses.asdict(replay)["num_suggestions"] >= 5
