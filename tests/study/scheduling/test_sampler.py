"""What the Gaussian process hears: ranks, in the order in which TPE ranks trials, of all that ended but did not crash."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from optuna.trial import TrialState as OptunaState
from scipy.stats import norm

from search_spaces.config import Value
from study.scheduling.sampler import NUM_STARTUP_TRIALS, RANDOM_EVERY, ArmSampler, make_arm_sampler
from study.scheduling.search_director import SearchDirector
from study.spec.reading import validate_spec
from study.state.record_book import MemoryBook
from tests.study.replaying import replay_search
from tests.study.simulated import FIXED, drive, learning_curve, make_spec
from tests.study.test_replaying import kill_often
from trainables.records.record import TrialRecord, TrialState


def search(change: Callable[[float], float] = lambda score: score) -> ArmSampler:
    """Return a sampler that has heard of six complete trials, and of one each that was stopped, diverged, crashed and runs."""
    spec = make_spec(sampler="gp", start=[])
    sampler = make_arm_sampler(spec.arms()[0], spec)
    for number in range(6):
        sampler.suggest(str(number))
        sampler.report(str(number), 1, change(0.3))
        sampler.finish(str(number), TrialState.COMPLETE, change(0.3 + 0.05 * number), diverged=False)
    for name, diverged in (("stopped", False), ("diverged", True), ("crashed", False)):
        sampler.suggest(name)
        if name != "crashed":
            sampler.report(name, 1, change(0.3))
            sampler.report(name, 2, change(0.9))
        state = TrialState.PRUNED if name == "stopped" else TrialState.FAILED
        sampler.finish(name, state, None, diverged=diverged)
    sampler.suggest("running")
    return sampler


def test_the_gp_hears_the_ranks_of_all_trials_that_tell_something() -> None:
    sampler = search()
    states = Counter(trial.state for trial in sampler.trials)
    assert states == {OptunaState.COMPLETE: 6, OptunaState.PRUNED: 2, OptunaState.FAIL: 1, OptunaState.RUNNING: 1}
    ranked = sampler._history.rank().get_trials(deepcopy=False)
    assert Counter(trial.state for trial in ranked) == {OptunaState.COMPLETE: 8, OptunaState.RUNNING: 1}
    values = [trial.value for trial in ranked[:-1]]
    # The one that was stopped is below all that were not, and the one that diverged is last.
    expected = norm.ppf((np.array([3, 4, 5, 6, 7, 8, 2, 1]) - 0.5) / 8)
    assert values == pytest.approx(expected)
    assert [trial.params for trial in ranked[:-1]] == [trial.params for trial in sampler.trials[:8]]


def test_trials_that_fail_share_the_lowest_rank_and_the_scale_of_scores_does_nothing() -> None:
    sampler = search()
    sampler.finish("running", TrialState.FAILED, None, diverged=True)
    values = [trial.value for trial in sampler._history.rank().get_trials(deepcopy=False)]
    assert values[-1] == values[-2] == pytest.approx(norm.ppf(1 / 9))

    def suggest(sampler: ArmSampler) -> dict[str, Value]:
        return sampler.suggest("next")

    assert suggest(search()) == suggest(search(lambda score: score**4))


def test_the_gp_begins_after_trials_with_different_scores() -> None:
    """Where most trials fail, five of them say nothing of where the others are."""
    spec = make_spec(sampler="gp", start=[])
    sampler = make_arm_sampler(spec.arms()[0], spec)
    was_fitted = []
    for number in range(NUM_STARTUP_TRIALS + 4):
        sampler.suggest(str(number))
        was_fitted.append(sampler.was_fitted)
        has_failed = number < 4
        score = None if has_failed else 0.1 * number
        state = TrialState.FAILED if has_failed else TrialState.COMPLETE
        sampler.finish(str(number), state, score, diverged=has_failed)
    assert was_fitted == [False] * (NUM_STARTUP_TRIALS + 3) + [True]


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
