"""The trials of one arm as its sampler knows them, and draws from the priors of its parameters.

Suggestions are a mixture of the prior and the sampler, as in PriorBand (Mallik et al. 2023, NeurIPS). The prior's share falls
with the square of the number of trials, so that a prior which is wrong costs at most twice as many trials as certainly come
from it, whatever the length of the search. The others of the first ones are random, so that a sampler which models what it has
seen knows more than the surroundings of the prior.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, create_trial
from scipy.stats import norm, rankdata, truncnorm

from search_spaces.config import Value
from search_spaces.designs import Arm
from search_spaces.distributions import to_distribution
from search_spaces.space import CategoricalParameter, FloatParameter, IntParameter, SearchSpace
from study.spec.sections import PriorSpec
from trainables.records.record import TrialState

# Suggestions at the start of an arm that certainly come from its priors.
NUM_CERTAIN = 3


def prior_share(number: int) -> float:
    """Return the probability that the suggestion `number` of an arm, from 0, is drawn from the prior."""
    return min(1.0, (NUM_CERTAIN / (number + 1)) ** 2)


def draw_from_prior(
    prior: Mapping[str, PriorSpec], space: SearchSpace, number: int, generator: np.random.Generator
) -> dict[str, Value]:
    """Return a value of every parameter that has a prior, or {} where the sampler suggests all.

    Args:
        prior: by the name of a number of the space.
        space: of the arm.
        number: of the suggestion in its arm, from 0; those that the search starts with do not count.
        generator: of this suggestion.
    """
    if not prior or generator.random() >= prior_share(number):
        return {}
    return {name: _draw(space, name, found, generator) for name, found in prior.items()}


def _draw(space: SearchSpace, name: str, prior: PriorSpec, generator: np.random.Generator) -> Value:
    parameter = space[name]
    assert not isinstance(parameter, CategoricalParameter)
    low, high, center, width = float(parameter.low), float(parameter.high), prior.center, prior.width
    is_log = isinstance(parameter, FloatParameter) and parameter.log
    if is_log:
        low, high, center, width = (math.log(value) for value in (low, high, center, width))
    if low == high:
        return parameter.low
    bounds = (low - center) / width, (high - center) / width
    drawn = float(truncnorm.rvs(*bounds, loc=center, scale=width, random_state=generator))
    value = math.exp(drawn) if is_log else drawn
    inside = min(max(value, parameter.low), parameter.high)
    return round(inside) if isinstance(parameter, IntParameter) else float(inside)


# A trial that diverged is reported to the sampler as pruned at the first epoch with the lowest macro-F1, whenever it diverged:
# Optuna ignores failed trials, and ranks pruned trials by their last epoch before their values.
DIVERGED_MACRO_F1 = 0.0
DIVERGED_EPOCH = 1

# The time of a suggestion grows with the number of trials in the Optuna study: 0.1 s for TPE at 5,000. Beyond MAX_SEEN finished
# trials the study keeps the best NUM_BEST_KEPT and the latest others, MAX_SEEN / 2 in total. TPE models at most 25 trials as
# good, so only trials that it models as bad are removed.
MAX_SEEN = 600
NUM_BEST_KEPT = 50

# States of trials that tell something of their configuration.
TELLING = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


@dataclass(slots=True)
class _RunningTrial:
    """A trial that has not ended, and its macro-F1 by epoch, which Optuna receives at the end."""

    handle: optuna.Trial
    scores: dict[int, float] = field(default_factory=dict)


class SamplerHistory:
    """An Optuna study and its running trials.

    Attributes:
        study: the Optuna study; rebuilding replaces it.
    """

    def __init__(self, arm: Arm) -> None:
        """Begin with no trials."""
        self.study = _new_study()
        self._arm = arm
        self._running: dict[str, _RunningTrial] = {}

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, in the order in which they started."""
        return self.study.get_trials(deepcopy=False)

    @property
    def num_scores(self) -> int:
        """The different ranks of the trials that ended: where most trials fail, fewer than the trials."""
        return len({rank_as_tpe(trial) for trial in self.trials if trial.state in TELLING})

    def rank(self) -> optuna.Study:
        """Return a study of these trials for a Gaussian process, in which those that ended have normal scores of their ranks.

        The order is that in which TPE ranks them. A Gaussian process ignores pruned trials, so that all are complete. Ranks make
        it independent of the scale of the scores: many equal lowest ones, as of trials that fail, and heavy tails do not flatten
        the differences between good ones.
        """
        ended = [trial for trial in self.trials if trial.state in TELLING]
        order = {key: place for place, key in enumerate(sorted({rank_as_tpe(trial) for trial in ended}))}
        ranks = rankdata([order[rank_as_tpe(trial)] for trial in ended])
        scores = dict(zip((trial.number for trial in ended), norm.ppf((ranks - 0.5) / max(1, len(ended))), strict=True))
        study = _new_study()
        for trial in self.trials:
            told: dict[str, Any]
            if trial.number in scores:
                told = {"value": float(scores[trial.number])}
            elif trial.state is optuna.trial.TrialState.RUNNING:
                told = {"state": trial.state}
            else:
                continue
            study.add_trial(create_trial(**told, params=trial.params, distributions=trial.distributions))
        return study

    def start(self, trial_id: str, handle: optuna.Trial, *, keeps_attributes: bool) -> None:
        """Take a trial that the study suggested, with all hyperparameters suggested.

        Optuna's samplers write into its system attributes what they drew for parameters that do not apply, and read it while the
        trial is running. Without `keeps_attributes` it is deleted, so that the trial equals one that `adopt` takes.
        """
        if not keeps_attributes:
            self.trials[handle.number].system_attrs.clear()
        self._running[trial_id] = _RunningTrial(handle)

    def adopt(self, trial_id: str, hyperparameters: Mapping[str, Value]) -> None:
        """Take a trial that the study did not suggest."""
        running = create_trial(state=optuna.trial.TrialState.RUNNING, **self._describe(hyperparameters))
        self._running[trial_id] = _RunningTrial(self._add_running(running))

    def replace(self, trial_id: str, hyperparameters: Mapping[str, Value]) -> None:
        """Give a running trial these hyperparameters in place of those that were suggested."""
        trial = self.trials[self._running[trial_id].handle.number]
        for name, value in self._describe(hyperparameters).items():
            setattr(trial, name, value)

    def _describe(self, hyperparameters: Mapping[str, Value]) -> dict[str, Any]:
        """Return what an Optuna trial holds of these hyperparameters: those that are searched."""
        searched = [parameter for parameter in self._arm.space.parameters if parameter.name in hyperparameters]
        return {
            "params": {parameter.name: hyperparameters[parameter.name] for parameter in searched},
            "distributions": {parameter.name: to_distribution(parameter) for parameter in searched},
        }

    def report(self, trial_id: str, epoch: int, macro_f1: float) -> None:
        """Keep the macro-F1 of an epoch, which is reported to Optuna when the trial ends."""
        self._running[trial_id].scores.setdefault(epoch, macro_f1)

    def finish(self, trial_id: str, state: TrialState, macro_f1: float | None, *, diverged: bool) -> None:
        """Tell the study of the end of a trial; `ArmSampler.finish` says how."""
        trial = self._running.pop(trial_id)
        scores = {DIVERGED_EPOCH: DIVERGED_MACRO_F1} if diverged else trial.scores
        for step, score in scores.items():
            trial.handle.report(score, step)
        if state is TrialState.COMPLETE:
            self.study.tell(trial.handle, macro_f1)
        elif state is TrialState.PRUNED or diverged:
            self.study.tell(trial.handle, state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(trial.handle, state=optuna.trial.TrialState.FAIL)

    def forget_some(self) -> None:
        """Beyond `MAX_SEEN` finished trials, keep the best, the latest others, and those that are running."""
        seen, running = self.trials, {trial.handle.number for trial in self._running.values()}
        if len(seen) - len(running) <= MAX_SEEN:
            return
        finished = [t for t in seen if t.number not in running]
        best = {t.number for t in sorted(finished, key=rank_as_tpe, reverse=True)[:NUM_BEST_KEPT]}
        others = [t.number for t in finished if t.number not in best]
        kept = {*running, *best, *others[len(others) - (MAX_SEEN // 2 - NUM_BEST_KEPT) :]}
        self._rebuild([trial for trial in seen if trial.number in kept])

    def _rebuild(self, trials: Sequence[FrozenTrial]) -> None:
        """Replace the study by one with these of its trials, all that are running among them."""
        running = {trial.handle.number: trial_id for trial_id, trial in self._running.items()}
        self.study = _new_study()
        for trial in trials:
            if trial.number in running:
                self._running[running[trial.number]].handle = self._add_running(trial)
            else:
                self.study.add_trial(trial)

    def _add_running(self, running: FrozenTrial) -> optuna.Trial:
        """Add a running trial to the study and return its handle."""
        # Creating a handle asks the sampler for joint suggestions, which are not used here; a random sampler is fast.
        self.study.sampler = optuna.samplers.RandomSampler(seed=0)
        self.study.add_trial(running)
        return optuna.Trial(self.study, len(self.trials) - 1)


def rank_as_tpe(trial: FrozenTrial) -> tuple[bool, int, float]:
    """Return the sort key by which TPE ranks trials: complete ones by value, then pruned ones by last epoch and its value."""
    if trial.state is optuna.trial.TrialState.COMPLETE:
        return True, 0, trial.value or 0.0
    last = trial.last_step
    return False, -1 if last is None else last, 0.0 if last is None else trial.intermediate_values[last]


def _new_study() -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
