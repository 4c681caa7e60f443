"""Optuna's GP sampler ignores pruned trials, so that it must hear of those that diverged or were stopped as complete ones."""

from collections import Counter

from optuna.trial import TrialState as OptunaState

from study.scheduling.sampler import ArmSampler, make_arm_sampler
from tests.study.simulated import make_spec
from trainables.records.record import TrialState


def search() -> ArmSampler:
    """Return a sampler that has heard of six complete trials, one that was stopped and one that diverged."""
    spec = make_spec(sampler="gp", start=[])
    sampler = make_arm_sampler(spec.arms()[0], spec)
    for number in range(6):
        sampler.suggest(str(number))
        sampler.report(str(number), 1, 0.5)
        sampler.finish(str(number), TrialState.COMPLETE, 0.5 + 0.05 * number, diverged=False)
    for name, diverged in (("stopped", False), ("diverged", True)):
        sampler.suggest(name)
        sampler.report(name, 1, 0.3)
        sampler.report(name, 2, 0.4)
        state = TrialState.FAILED if diverged else TrialState.PRUNED
        sampler.finish(name, state, None, diverged=diverged)
    return sampler


def test_the_gp_knows_stopped_and_diverged_trials() -> None:
    trials = search().trials
    assert Counter(trial.state for trial in trials)[OptunaState.COMPLETE] == 8
    assert [trial.value for trial in trials[-2:]] == [0.4, 0.0]
