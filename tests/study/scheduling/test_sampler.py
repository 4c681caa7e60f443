"""What the Gaussian process hears: ranks, in the order in which TPE ranks trials, of all that ended but did not crash."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from optuna.trial import TrialState as OptunaState
from scipy.stats import norm

from search_spaces.config import Value
from study.scheduling.sampler import NUM_STARTUP_TRIALS, ArmSampler, make_arm_sampler
from tests.study.simulated import make_spec
from trainables.records.record import TrialState


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
