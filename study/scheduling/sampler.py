"""The sampler of one arm: an in-memory Optuna study that can be rebuilt exactly from records.

The sampler is seeded again for every suggestion, from the study's seed, the arm, and the index of the trial in its arm. A
suggestion therefore depends only on the seed and on the earlier reports of the arm. A sampler of one's own
(`study.scheduling.own_sampler`) is made once per arm instead, and asked again for the recorded trials. The first suggestions are
the configurations that the search is to start with; a prior then takes the place of the sampler for its parameters, at first
always and later rarely.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType

import optuna
from optuna.trial import FrozenTrial, create_trial

from search_spaces.arms import Arm
from search_spaces.config import Value
from search_spaces.distributions import suggest_hyperparameters, to_distribution
from search_spaces.errors import UserInputError, nearest_name
from search_spaces.extensions import locating
from study.scheduling.own_sampler import expect_experimental, make_own_sampler
from study.scheduling.prior import draw_from_prior
from study.scheduling.warm_start import EarlierTrial
from study.spec.sections import SAMPLERS, PriorSpec
from study.spec.starts import list_starts
from study.spec.study_spec import StudySpec
from trainables.records.record import TrialState
from trainables.seeds import derive_seed, numpy_generator

# A trial that diverged is reported to the sampler as pruned at the first epoch with the lowest macro-F1, whenever it diverged:
# Optuna ignores failed trials, and ranks pruned trials by their last epoch before their values.
DIVERGED_MACRO_F1 = 0.0
DIVERGED_EPOCH = 1

# Random trials at the start of an arm. Optuna's default of 10 would be every trial of an arm in a small study.
NUM_STARTUP_TRIALS = 5

# Trials that a sampler of one's own suggests before a launch.
NUM_TRIED = 3

# The time of a suggestion grows with the number of trials in the Optuna study: 0.1 s for TPE at 5,000. Beyond MAX_SEEN finished
# trials the study keeps the best NUM_BEST_KEPT and the latest others, MAX_SEEN / 2 in total. TPE models at most 25 trials as
# good, so only trials that it models as bad are removed.
MAX_SEEN = 600
NUM_BEST_KEPT = 50


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return Optuna's sampler `name`, one of `SAMPLERS`, with a seed; raise UserInputError for an unknown name."""
    short_seed = seed % 2**32
    if name == "random":
        return optuna.samplers.RandomSampler(seed=short_seed)
    if name == "tpe_univariate":
        return optuna.samplers.TPESampler(seed=short_seed, n_startup_trials=NUM_STARTUP_TRIALS, multivariate=False)
    if name == "tpe_multivariate":
        with expect_experimental():
            # Without `group`, conditional parameters are drawn at random; with it, TPE models them jointly with the others.
            return optuna.samplers.TPESampler(
                seed=short_seed, n_startup_trials=NUM_STARTUP_TRIALS, multivariate=True, group=True
            )
    if name == "gp":
        with expect_experimental():
            return optuna.samplers.GPSampler(seed=short_seed, n_startup_trials=NUM_STARTUP_TRIALS)
    raise UserInputError(f"there is no sampler {name!r}{nearest_name(name, SAMPLERS)}")


@dataclass(slots=True)
class _RunningTrial:
    """A trial that has not ended, and its macro-F1 by epoch, which Optuna receives at the end."""

    handle: optuna.Trial
    scores: dict[int, float] = field(default_factory=dict)


class ArmSampler:
    """Suggests hyperparameters for one arm, and receives the results of its trials."""

    def __init__(
        self,
        arm: Arm,
        *,
        sampler: str,
        seed: int,
        earlier: Sequence[EarlierTrial] = (),
        start: Sequence[Mapping[str, Value]] = (),
        prior: Mapping[str, PriorSpec] = MappingProxyType({}),
        reports_divergence_first: bool = True,
        tells_gp_all_trials: bool = True,
    ) -> None:
        """Create the sampler.

        Args:
            arm: the arm, with its search space.
            sampler: one of `SAMPLERS`, or a name of one's own.
            seed: the study's seed.
            earlier: finished trials of another study of the same space, in the order in which they ended; those of other arms
                are not used.
            start: configurations of the arm that are suggested first.
            prior: where numbers of the space are expected.
            reports_divergence_first: whether a trial that diverged is reported as pruned at the first epoch; otherwise at its
                last epoch, as in studies launched under defaults_version 1.
            tells_gp_all_trials: whether "gp", which ignores pruned trials, is told of trials that diverged or were stopped as
                complete ones with their last score; in studies launched under defaults_version 1 to 7 it is not.

        Raises:
            UserInputError: for a sampler of one's own that cannot be made.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # a study's user cannot act on its warnings
        self._arm = arm
        self._sampler_name = sampler
        self._seed = seed
        self._num_suggested = 0
        self._start, self._prior = tuple(start), dict(prior)
        # Made once, unlike the others.
        is_own = sampler not in SAMPLERS
        self._own = make_own_sampler(sampler, derive_seed(seed, "sampler", arm.name)) if is_own else None
        self._study = _new_study()
        self._reports_divergence_first = reports_divergence_first
        self._completes_pruned = sampler == "gp" and tells_gp_all_trials
        self._running: dict[str, _RunningTrial] = {}
        for trial in [trial for trial in earlier if trial.arm == arm.name]:
            self._running[trial.trial_id] = _RunningTrial(self._adopt(self._freeze_running(trial.hyperparameters)))
            for epoch, macro_f1 in trial.scores:
                self.report(trial.trial_id, epoch, macro_f1)
            last = trial.scores[-1][1] if trial.scores else None
            self.finish(trial.trial_id, trial.state, last, trial.num_epochs, diverged=trial.diverged)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials that the sampler takes into account."""
        return self._study.get_trials(deepcopy=False)

    def suggest(self, trial_id: str) -> dict[str, Value]:
        """Return the hyperparameters of the arm's next trial, searched and fixed."""
        trial, suggested = self._ask()
        self._running[trial_id] = _RunningTrial(trial)
        self._num_suggested += 1
        return suggested

    def _ask(self) -> tuple[optuna.Trial, dict[str, Value]]:
        known = self._know(self._num_suggested)
        if known:
            self._study.enqueue_trial(known)
        if self._own is not None:
            self._study.sampler = self._own
            with self._locating():
                trial = self._study.ask()
                return trial, suggest_hyperparameters(self._arm.space, trial)
        seed = derive_seed(self._seed, "sampler", self._arm.name, self._num_suggested)
        self._study.sampler = make_sampler(self._sampler_name, seed)
        trial = self._study.ask()
        return trial, suggest_hyperparameters(self._arm.space, trial)

    def _know(self, number: int) -> dict[str, Value]:
        """Return the values of the arm's suggestion `number` that do not come from the sampler: a start's, a prior's, or none."""
        if number < len(self._start):
            return {name: value for name, value in self._start[number].items() if name in self._arm.space.names}
        generator = numpy_generator(self._seed, "prior", self._arm.name, number)
        return draw_from_prior(self._prior, self._arm.space, number - len(self._start), generator)

    def restore(self, trial_id: str, hyperparameters: Mapping[str, Value]) -> None:
        """Restore a recorded suggestion, in place of `suggest`."""
        if self._own is not None:
            # The sampler's state depends on what it was asked before.
            trial, suggested = self._ask()
            if suggested == dict(hyperparameters):
                self._running[trial_id] = _RunningTrial(trial)
                self._num_suggested += 1
                return
            warnings.warn(
                f"the sampler {self._sampler_name!r} no longer suggests what trial {trial_id} was started with; "
                "the study goes on from the record",
                stacklevel=2,
            )
            self._tell(trial, state=optuna.trial.TrialState.FAIL)
        self._running[trial_id] = _RunningTrial(self._adopt(self._freeze_running(hyperparameters)))
        self._num_suggested += 1

    def report(self, trial_id: str, epoch: int, macro_f1: float) -> None:
        """Report the macro-F1 of an epoch; it must be finite."""
        self._running[trial_id].scores.setdefault(epoch, macro_f1)

    def finish(self, trial_id: str, state: TrialState, macro_f1: float | None, epoch: int, *, diverged: bool) -> None:
        """Report the end of a trial.

        A complete trial is reported with its last macro-F1, a pruned trial with its intermediate values, a diverged trial as
        pruned with the lowest value alone, and a trial that failed for another reason as failed. Optuna's GP sampler ignores
        pruned trials, so for it they are complete with their last value.
        """
        trial = self._running.pop(trial_id)
        scores = self._intermediate_values(trial, epoch, diverged=diverged)
        for step, score in scores.items():
            trial.handle.report(score, step)
        if state is TrialState.COMPLETE:
            self._tell(trial.handle, macro_f1)
        elif self._completes_pruned and scores and (state is TrialState.PRUNED or diverged):
            self._tell(trial.handle, scores[max(scores)])
        elif state is TrialState.PRUNED or diverged:
            self._tell(trial.handle, state=optuna.trial.TrialState.PRUNED)
        else:
            self._tell(trial.handle, state=optuna.trial.TrialState.FAIL)
        if self._own is None and len(self.trials) - len(self._running) > MAX_SEEN:
            self._forget_some()

    def _tell(
        self, trial: optuna.Trial, macro_f1: float | None = None, state: optuna.trial.TrialState | None = None
    ) -> None:
        if self._own is None:
            self._study.tell(trial, macro_f1, state=state)
            return
        self._study.sampler = self._own
        with self._locating():
            self._study.tell(trial, macro_f1, state=state)

    def _locating(self) -> AbstractContextManager[None]:
        """Return a context that names a sampler of one's own in its errors."""
        return locating(f"the sampler {self._sampler_name!r}")

    def _intermediate_values(self, trial: _RunningTrial, last: int, *, diverged: bool) -> dict[int, float]:
        if not diverged:
            return trial.scores
        if self._reports_divergence_first:
            return {DIVERGED_EPOCH: DIVERGED_MACRO_F1}
        return {max(last, 1): DIVERGED_MACRO_F1} | trial.scores

    def _freeze_running(self, hyperparameters: Mapping[str, Value]) -> FrozenTrial:
        parameters = {p.name: p for p in self._arm.space.parameters if p.name in hyperparameters}
        return create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params={name: hyperparameters[name] for name in parameters},
            distributions={name: to_distribution(parameter) for name, parameter in parameters.items()},
        )

    def _adopt(self, running: FrozenTrial) -> optuna.Trial:
        """Add a running trial to the Optuna study and return its handle."""
        # Creating a handle asks the sampler for joint suggestions, which are not used here; a random sampler is fast.
        self._study.sampler = optuna.samplers.RandomSampler(seed=0)
        self._study.add_trial(running)
        return optuna.Trial(self._study, len(self.trials) - 1)

    def _forget_some(self) -> None:
        """Replace the Optuna study by one with the running trials, the best finished ones and the latest others."""
        seen, running = self.trials, {trial.handle.number: trial_id for trial_id, trial in self._running.items()}
        finished = [t for t in seen if t.number not in running]
        best = {t.number for t in sorted(finished, key=_rank, reverse=True)[:NUM_BEST_KEPT]}
        others = [t.number for t in finished if t.number not in best]
        kept = {*running, *best, *others[len(others) - (MAX_SEEN // 2 - NUM_BEST_KEPT) :]}
        self._study = _new_study()
        for trial in seen:
            if trial.number in running:
                self._running[running[trial.number]].handle = self._adopt(trial)
            elif trial.number in kept:
                self._study.add_trial(trial)


def _new_study() -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))


def _rank(trial: FrozenTrial) -> tuple[bool, int, float]:
    """Return the sort key by which TPE ranks trials: complete ones by value, then pruned ones by last epoch and its value."""
    if trial.state is optuna.trial.TrialState.COMPLETE:
        return True, 0, trial.value or 0.0
    last = trial.last_step
    return False, -1 if last is None else last, 0.0 if last is None else trial.intermediate_values[last]


def check_own_sampler(spec: StudySpec) -> None:
    """Try a sampler of one's own on every arm of a spec; for one of `SAMPLERS` there is nothing to check.

    Raises:
        UserInputError: If it cannot be made, fails, suggests what the space does not have, or does not suggest the same again
            from the same seed.
    """
    if spec.search.sampler in SAMPLERS:
        return
    for arm in spec.arms():
        first, again = (_try_sampler(arm, spec) for _ in range(2))
        if first != again:
            raise UserInputError(
                f"the sampler {spec.search.sampler!r} suggests {first} and then {again} from the same seed, so the study "
                "could not be resumed; its random numbers must come from the seed alone"
            )


def make_arm_sampler(arm: Arm, spec: StudySpec, earlier: Sequence[EarlierTrial] = ()) -> ArmSampler:
    """Return the sampler of an arm as the spec describes it; `earlier` as of `ArmSampler`."""
    return ArmSampler(
        arm,
        sampler=spec.search.sampler,
        seed=spec.seed,
        earlier=earlier,
        start=[start.hyperparameters for start in list_starts(spec, arm)],
        prior={name: prior for name, prior in spec.search.prior.items() if name in arm.space.names},
        reports_divergence_first=spec.reports_divergence_first,
        tells_gp_all_trials=spec.tells_gp_all_trials,
    )


def _try_sampler(arm: Arm, spec: StudySpec) -> list[dict[str, Value]]:
    sampler, suggested = make_arm_sampler(arm, spec), []
    for number in range(NUM_TRIED):
        suggested.append(sampler.suggest(str(number)))
        sampler.finish(str(number), TrialState.COMPLETE, 0.5 + 0.1 * number, 1, diverged=False)
    return suggested
