"""The sampler of one arm: an in-memory Optuna study that can be rebuilt exactly from records.

The sampler is seeded again for every suggestion, from the study's seed, the arm, and the index of the trial in its arm. A
suggestion therefore depends only on the seed and on the earlier reports of the arm. The first suggestions are the
configurations that the search is to start with; a prior then takes the place of the sampler for its parameters, at first always
and later rarely.

A custom sampler is a function of an installed package or of the working folder, which takes a seed and returns an
`optuna.samplers.BaseSampler`; ``search.sampler = "mylab.search:make_sampler"`` names it::

    def make_sampler(seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.QMCSampler(seed=seed, scramble=True)

It is called once per arm, with a seed derived from the study's seed and the arm, and the sampler then suggests all trials of the
arm. It may keep state, in itself or in Optuna's attributes. A resumed study asks it again for every recorded trial, in the order
of the records, which restores the state; so its suggestions must depend on the seed and on the trials alone.
"""

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MappingProxyType

import optuna
from optuna.trial import FrozenTrial

from search_spaces.config import Value
from search_spaces.designs import Arm
from search_spaces.distributions import suggest_hyperparameters
from search_spaces.errors import UserInputError, nearest_name
from search_spaces.extensions import load_function, locating
from study.scheduling.sampler_history import SamplerHistory, draw_from_prior
from study.scheduling.warm_start import EarlierTrial
from study.spec.sections import SAMPLER_ENTRY_POINTS, SAMPLERS, PriorSpec
from study.spec.starts import list_starts
from study.spec.study_spec import StudySpec
from trainables.records.record import TrialState
from trainables.seeds import derive_seed, numpy_generator

# Random trials at the start of an arm. Optuna's default of 10 would be every trial of an arm in a small study.
NUM_STARTUP_TRIALS = 5

# Trials that a custom sampler suggests before a launch.
NUM_TRIED = 3

# "auto" is TPE with one suggestion in so many at random: where most trainings fail, TPE alone stays near the first that does not.
# benchmarks/SEARCH.md has the figures by which it was chosen.
RANDOM_EVERY = 4


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return Optuna's sampler `name`, one of `SAMPLERS` but "auto", with a seed; raise UserInputError for an unknown name."""
    short_seed = seed % 2**32
    if name == "random":
        return optuna.samplers.RandomSampler(seed=short_seed)
    with expect_experimental():
        if name in {"tpe_univariate", "tpe_multivariate"}:
            # Without `group`, conditional parameters are drawn at random; with it, TPE models them jointly with the others.
            joint, start = name == "tpe_multivariate", NUM_STARTUP_TRIALS
            return optuna.samplers.TPESampler(seed=short_seed, n_startup_trials=start, multivariate=joint, group=joint)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=short_seed, n_startup_trials=0)
    raise UserInputError(f"there is no sampler {name!r}{nearest_name(name, SAMPLERS)}")


def make_custom_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of a custom function.

    Args:
        name: Name of an entry point of the group `abstudy.samplers`, or "package.module:function".
        seed: Of the arm; the function gets it as a whole number in [0, 2**32).

    Raises:
        UserInputError: If the function cannot be imported, takes no seed, fails, or returns something else.
    """
    make = load_function(name, SAMPLER_ENTRY_POINTS, "the sampler")
    try:
        inspect.signature(make).bind(seed=seed)
    except TypeError as error:
        raise UserInputError(
            f"the sampler {name!r} must be a function of the argument seed alone, but: {error}"
        ) from None
    with locating(f"the sampler {name!r}"), expect_experimental():
        sampler = make(seed=seed % 2**32)
    if not isinstance(sampler, optuna.samplers.BaseSampler):
        raise UserInputError(
            f"the sampler {name!r} must return an optuna.samplers.BaseSampler, but returned {type(sampler).__name__}"
        )
    return sampler


@contextmanager
def expect_experimental() -> Iterator[None]:
    """Suppress Optuna's warnings that a sampler or an option is experimental; which are depends on its version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


class ArmSampler:
    """Suggests hyperparameters for one arm, and receives the results of its trials.

    Attributes:
        was_fitted: whether the latest suggestion is of a fitted Gaussian process, so that another processor may suggest others.
    """

    def __init__(
        self,
        arm: Arm,
        *,
        sampler: str,
        seed: int,
        earlier: Sequence[EarlierTrial] = (),
        start: Sequence[Mapping[str, Value]] = (),
        prior: Mapping[str, PriorSpec] = MappingProxyType({}),
    ) -> None:
        """Create the sampler.

        Args:
            arm: the arm, with its search space.
            sampler: one of `SAMPLERS`, or the name of a custom one.
            seed: the study's seed.
            earlier: finished trials of another study of the same space, in the order in which they ended; those of other arms
                are not used.
            start: configurations of the arm that are suggested first.
            prior: where numbers of the space are expected.

        Raises:
            UserInputError: for a custom sampler that cannot be made.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # a study's user cannot act on its warnings
        self._arm = arm
        self._sampler_name = sampler
        self._seed = seed
        self._num_suggested = 0
        self.was_fitted = False
        self._start, self._prior = tuple(start), dict(prior)
        # Made once, unlike the others.
        is_custom = sampler not in SAMPLERS
        self._custom = make_custom_sampler(sampler, derive_seed(seed, "sampler", arm.name)) if is_custom else None
        self._history = SamplerHistory(arm)
        for trial in [trial for trial in earlier if trial.arm == arm.name]:
            self._history.adopt(trial.trial_id, trial.hyperparameters)
            for epoch, macro_f1 in trial.scores:
                self.report(trial.trial_id, epoch, macro_f1)
            last = trial.scores[-1][1] if trial.scores else None
            self.finish(trial.trial_id, trial.state, last, diverged=trial.diverged)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials that the sampler takes into account."""
        return self._history.trials

    def suggest(self, trial_id: str) -> dict[str, Value]:
        """Return the hyperparameters of the arm's next trial, searched and fixed."""
        name = self._choose_sampler()
        self.was_fitted = name == "gp" and self._num_suggested >= len(self._start)
        trial, suggested = self._ask(name)
        if name == "gp":
            self._history.adopt(trial_id, suggested)
        else:
            self._history.start(trial_id, trial, keeps_attributes=self._custom is not None)
        self._num_suggested += 1
        return suggested

    def _choose_sampler(self) -> str:
        """Return the sampler of the next suggestion; a Gaussian process needs trials with different scores."""
        if self._sampler_name == "auto":
            return "tpe_multivariate" if (self._num_suggested + 1) % RANDOM_EVERY else "random"
        is_early = self._sampler_name == "gp" and self._history.num_scores < NUM_STARTUP_TRIALS
        return "random" if is_early else self._sampler_name

    def _ask(self, name: str) -> tuple[optuna.Trial, dict[str, Value]]:
        """Return a trial of the sampler `name` and its hyperparameters; that of a Gaussian process is not of the history."""
        study = self._history.rank() if name == "gp" else self._history.study
        known = self._know(self._num_suggested)
        if known:
            study.enqueue_trial(known)
        seed = derive_seed(self._seed, "sampler", self._arm.name, self._num_suggested)
        study.sampler = self._custom or make_sampler(name, seed)
        with self._locating():
            trial = study.ask()
            return trial, suggest_hyperparameters(self._arm.space, trial)

    def _know(self, number: int) -> dict[str, Value]:
        """Return the values of the arm's suggestion `number` that do not come from the sampler: a start's, a prior's, or none."""
        if number < len(self._start):
            return {name: value for name, value in self._start[number].items() if name in self._arm.space.names}
        generator = numpy_generator(self._seed, "prior", self._arm.name, number)
        number_after = number - len(self._start)
        return draw_from_prior(self._prior, self._arm.space, number_after, generator)

    def restore(self, trial_id: str, hyperparameters: Mapping[str, Value]) -> None:
        """Restore a recorded suggestion, in place of `suggest`."""
        if self._custom is not None:
            # The sampler's state depends on what it was asked before.
            trial, suggested = self._ask(self._sampler_name)
            if suggested == dict(hyperparameters):
                self._history.start(trial_id, trial, keeps_attributes=True)
                self._num_suggested += 1
                return
            warnings.warn(
                f"the sampler {self._sampler_name!r} no longer suggests what trial {trial_id} was started with; "
                "the study goes on from the record",
                stacklevel=2,
            )
            with self._locating():
                self._history.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._history.adopt(trial_id, hyperparameters)
        self._num_suggested += 1

    def go_on_from(self, trial_id: str, hyperparameters: Mapping[str, Value]) -> None:
        """Take a trial as one with these hyperparameters in place of those that were suggested for it."""
        self._history.replace(trial_id, hyperparameters)

    def report(self, trial_id: str, epoch: int, macro_f1: float) -> None:
        """Report the macro-F1 of an epoch; it must be finite."""
        self._history.report(trial_id, epoch, macro_f1)

    def finish(self, trial_id: str, state: TrialState, macro_f1: float | None, *, diverged: bool) -> None:
        """Report the end of a trial.

        A complete trial is reported with its last macro-F1, a pruned trial with its intermediate values, a diverged trial as
        pruned with the lowest value alone, and a trial that failed for another reason as failed. A Gaussian process gets the
        ranks of all but the failed ones (`SamplerHistory.rank`).
        """
        if self._custom is not None:
            self._history.study.sampler = self._custom
        with self._locating():
            self._history.finish(trial_id, state, macro_f1, diverged=diverged)
        if self._custom is None:
            self._history.forget_some()

    def _locating(self) -> AbstractContextManager[None]:
        """Return a context that names a custom sampler in its errors."""
        return nullcontext() if self._custom is None else locating(f"the sampler {self._sampler_name!r}")


def check_custom_sampler(spec: StudySpec) -> None:
    """Try a custom sampler on every arm of a spec; for one of `SAMPLERS` there is nothing to check.

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
    """Return the sampler of an arm as the spec describes it; `earlier` as in `ArmSampler`."""
    return ArmSampler(
        arm,
        sampler=spec.search.sampler,
        seed=spec.seed,
        earlier=earlier,
        start=[start.hyperparameters for start in list_starts(spec, arm)],
        prior={name: prior for name, prior in spec.search.prior.items() if name in arm.space.names},
    )


def _try_sampler(arm: Arm, spec: StudySpec) -> list[dict[str, Value]]:
    sampler, suggested = make_arm_sampler(arm, spec), []
    for number in range(NUM_TRIED):
        suggested.append(sampler.suggest(str(number)))
        sampler.finish(str(number), TrialState.COMPLETE, 0.5 + 0.1 * number, diverged=False)
    return suggested
