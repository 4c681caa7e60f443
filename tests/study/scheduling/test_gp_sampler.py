"""Optuna's GP sampler ignores pruned trials, so that it must hear of those that diverged or were stopped as complete ones."""

from collections import Counter

import pytest
from optuna.trial import TrialState as OptunaState

from study.scheduling.sampler import ArmSampler, make_arm_sampler
from tests.study.simulated import make_spec
from trainables.records.record import TrialState


def search(version: int) -> ArmSampler:
    """Return a sampler that has heard of six complete trials, one that was stopped and one that diverged."""
    spec = make_spec(sampler="gp", start=[]).model_copy(update={"defaults_version": version})
    sampler = make_arm_sampler(spec.arms()[0], spec)
    for number in range(6):
        sampler.suggest(str(number))
        sampler.report(str(number), 1, 0.5)
        sampler.finish(str(number), TrialState.COMPLETE, 0.5 + 0.05 * number, 1, diverged=False)
    for name, diverged in (("stopped", False), ("diverged", True)):
        sampler.suggest(name)
        sampler.report(name, 1, 0.3)
        sampler.report(name, 2, 0.4)
        state = TrialState.FAILED if diverged else TrialState.PRUNED
        sampler.finish(name, state, None, 3, diverged=diverged)
    return sampler


@pytest.mark.parametrize(("version", "num_complete"), [(7, 6), (8, 8)])
def test_the_gp_knows_stopped_and_diverged_trials(version: int, num_complete: int) -> None:
    trials = search(version).trials
    assert Counter(trial.state for trial in trials)[OptunaState.COMPLETE] == num_complete
    if num_complete == 8:
        assert [trial.value for trial in trials[-2:]] == [0.4, 0.0]
