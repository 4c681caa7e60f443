"""The default sampler, TPE with random suggestions, and a Gaussian process: such searches are resumed and replayed."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from search_spaces.config import Value
from study.scheduling.sampler import RANDOM_EVERY, ArmSampler, make_arm_sampler
from study.scheduling.search_director import SearchDirector
from study.spec.reading import validate_spec
from study.state.record_book import MemoryBook
from study.views.replaying import replay_search
from tests.study.simulated import FIXED, drive, learning_curve, make_spec
from tests.study.views.test_replaying import kill_often
from trainables.records.record import TrialRecord, TrialState

NUM_TRIALS = 20


def noisy_curve(record: TrialRecord, epoch: int) -> float | None:
    """Return a curve with noise, which diverges for one trial in eight."""
    noise = random.Random(f"{record.trial_id} {epoch}").uniform(-0.1, 0.1)
    return None if int(record.trial_id) % 8 == 5 and epoch == 2 else learning_curve(record, epoch) + noise


def make_sampler(name: str, num_told: int) -> ArmSampler:
    """Return a sampler that has heard of so many trials, the odd ones of them stopped."""
    spec = make_spec(sampler=name, start=[])
    sampler = make_arm_sampler(spec.arms()[0], spec)
    for number in range(num_told):
        tell(sampler, str(number), sampler.suggest(str(number)), is_stopped=number % 2 == 1)
    return sampler


def tell(sampler: ArmSampler, trial_id: str, values: Mapping[str, Value], *, is_stopped: bool) -> None:
    score = 0.8 - abs(float(values["max_lr"]) - 0.05)
    sampler.report(trial_id, 4, score - 0.1)
    if is_stopped:
        sampler.finish(trial_id, TrialState.PRUNED, None, diverged=False)
    else:
        sampler.report(trial_id, 6, score)
        sampler.finish(trial_id, TrialState.COMPLETE, score, diverged=False)


def test_it_is_the_default() -> None:
    assert validate_spec({"name": "small", "data": {"source": "planted"}}, where="test").search.sampler == "auto"


@pytest.mark.parametrize(
    ("num_told", "name"), [(2 * RANDOM_EVERY - 2, "tpe_multivariate"), (2 * RANDOM_EVERY - 1, "random")]
)
def test_it_suggests_by_tpe_and_at_times_at_random(num_told: int, name: str) -> None:
    auto = make_sampler("auto", num_told)
    spec = make_spec(sampler=name, start=[])
    other = make_arm_sampler(spec.arms()[0], spec)
    for number, trial in enumerate(auto.trials):
        values = {**dict(spec.arms()[0].space.fixed), **trial.params}
        other.restore(str(number), values)
        tell(other, str(number), values, is_stopped=number % 2 == 1)
    assert auto.suggest("next") == other.suggest("next")


@pytest.mark.parametrize("max_events", [31, 75])
def test_a_search_that_is_killed_goes_on_as_one_that_was_not(max_events: int) -> None:
    spec, whole, killed = make_spec(num_trials=28, sampler="auto"), MemoryBook(), MemoryBook()
    drive(SearchDirector(whole, spec, FIXED), noisy_curve, num_workers=1)
    drive(SearchDirector(killed, spec, FIXED), noisy_curve, num_workers=1, max_events=max_events)
    assert 0 < len(killed.of_stage("search")) < 28
    drive(SearchDirector(killed, spec, FIXED), noisy_curve, num_workers=1)
    suggested = [[r.config.hyperparameters for r in book.of_stage("search")] for book in (whole, killed)]
    assert suggested[0] == suggested[1]
    replay = replay_search(killed.of_stage("search"), {0: spec})
    assert (replay.num_suggestions, replay.num_other_values, replay.difference) == (28, 0, "")


def test_a_default_search_of_parallel_trials_that_is_killed_again_and_again_replays() -> None:
    spec = make_spec(num_trials=28, sampler="auto")
    replay = replay_search(kill_often(spec, 8).of_stage("search"), {0: spec})
    assert (replay.num_suggestions, replay.num_other_values, replay.difference) == (28, 0, "")


def find_suggested(records: Sequence[TrialRecord], arm: str, number: int) -> int:
    """Return the place of the arm's trial with this number in its arm."""
    return [place for place, record in enumerate(records) if record.config.arm == arm][number]


def change_max_lr(record: TrialRecord) -> TrialRecord:
    """Return the record with a max_lr that is another in its last digits."""
    values = dict(record.config.hyperparameters)
    config = replace(record.config, hyperparameters={**values, "max_lr": float(values["max_lr"]) * (1 + 1e-12)})
    return record.updated(config=config, fingerprint=config.fingerprint)


def test_other_values_of_a_gaussian_process_are_counted_and_the_rest_is_replayed() -> None:
    spec, book = make_spec(num_trials=NUM_TRIALS, sampler="gp"), MemoryBook()
    drive(SearchDirector(book, spec, FIXED), learning_curve, num_workers=1)
    # As on another processor, where the last suggestion of the Gaussian process differs.
    records = list(book.of_stage("search"))
    place = find_suggested(records, "resnet18", -1)
    records[place] = change_max_lr(records[place])
    replay = replay_search(records, {0: spec})
    assert f"trial {records[place].trial_id}: recorded" in replay.first_other_values
    assert (replay.num_other_values, replay.num_suggestions, replay.difference) == (1, NUM_TRIALS - 1, "")
    # A suggestion that comes from the seed alone is the same everywhere.
    records = list(book.of_stage("search"))
    place = find_suggested(records, "resnet18", 2)
    records[place] = change_max_lr(records[place])
    replay = replay_search(records, {0: spec})
    assert f"trial {records[place].trial_id}: recorded suggestion" in replay.difference
    assert (replay.num_suggestions, replay.num_other_values) == (place, 0)
