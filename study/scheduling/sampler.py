"""The sampler of one arm: an in-memory Optuna study that can be rebuilt, decision for decision, from records.

Every suggestion draws from a sampler that is seeded anew from (study seed, arm, index of the trial in its arm), so
that a suggestion depends on nothing but the seed and on what the arm has reported before it.
"""

import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.trial import FrozenTrial, create_trial

from search_spaces.arms import Arm
from search_spaces.config import Value
from search_spaces.distributions import suggest_hyperparameters, to_distribution
from search_spaces.errors import UserInputError, nearest_name
from study.scheduling.warm_start import EarlierTrial
from trainables.records.record import TrialState
from trainables.seeds import derive_seed

# Macro-F1 told to the sampler for a trial that diverged: the worst there is, so that the region is avoided.
# Optuna itself ignores failed trials.
DIVERGED_MACRO_F1 = 0.0

SAMPLERS = ("random", "tpe_univariate", "tpe_multivariate", "gp")

# Trials of an arm that are drawn at random first. Optuna's default is 10, which is all that an arm of a small study gets.
NUM_STARTUP_TRIALS = 5

# A suggestion's cost grows with the trials that the sampler sees: 0.1 s for TPE at 5,000. Past MAX_SEEN finished trials it
# sees the best NUM_BEST_KEPT and the latest others, MAX_SEEN / 2 together. TPE's good set never holds more than 25 trials,
# so the bound thins out only the trials that it counts as bad.
MAX_SEEN = 600
NUM_BEST_KEPT = 50


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return Optuna's sampler `name` seeded with `seed`; raise UserInputError for an unknown one."""
    short_seed = seed % 2**32
    if name == "random":
        return optuna.samplers.RandomSampler(seed=short_seed)
    if name == "tpe_univariate":
        return optuna.samplers.TPESampler(seed=short_seed, n_startup_trials=NUM_STARTUP_TRIALS, multivariate=False)
    if name == "tpe_multivariate":
        with warnings.catch_warnings():
            # `group` models a conditional parameter jointly with the trials that have it, where it would be drawn at random.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=short_seed, n_startup_trials=NUM_STARTUP_TRIALS, multivariate=True, group=True
            )
    if name == "gp":
        return optuna.samplers.GPSampler(seed=short_seed, n_startup_trials=NUM_STARTUP_TRIALS)
    raise UserInputError(f"there is no sampler {name!r}{nearest_name(name, SAMPLERS)}")


class ArmSampler:
    """Suggests hyperparameters for one arm and hears what became of them."""

    def __init__(self, arm: Arm, *, sampler: str, seed: int, earlier: Sequence[EarlierTrial] = ()) -> None:
        """Start from `earlier`, the finished trials of another study of the same space."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # Optuna's advice on samplers is not the reader's to take
        self._arm = arm
        self._sampler_name = sampler
        self._seed = seed
        self._num_suggested = 0
        self._study = _new_study()
        self._running: dict[str, optuna.Trial] = {}
        for trial in earlier:
            self._running[trial.trial_id] = self._adopt(self._freeze_running(trial.hyperparameters))
            for epoch, macro_f1 in trial.scores:
                self.report(trial.trial_id, epoch, macro_f1)
            last = trial.scores[-1][1] if trial.scores else None
            self.finish(trial.trial_id, trial.state, last, trial.num_epochs, diverged=trial.diverged)

    @property
    def trials(self) -> list[FrozenTrial]:
        """What the sampler sees."""
        return self._study.get_trials(deepcopy=False)

    def suggest(self, trial_id: str) -> dict[str, Value]:
        """Return hyperparameters (searched and fixed) for the arm's next trial."""
        seed = derive_seed(self._seed, "sampler", self._arm.name, self._num_suggested)
        self._study.sampler = make_sampler(self._sampler_name, seed)
        trial = self._study.ask()
        self._running[trial_id] = trial
        self._num_suggested += 1
        return suggest_hyperparameters(self._arm.space, trial)

    def restore(self, trial_id: str, hyperparameters: Mapping[str, Value]) -> None:
        """Take up a suggestion made earlier, from its record, in the place of `suggest`."""
        self._running[trial_id] = self._adopt(self._freeze_running(hyperparameters))
        self._num_suggested += 1

    def report(self, trial_id: str, epoch: int, macro_f1: float) -> None:
        """Tell an intermediate macro-F1; `macro_f1` is finite."""
        self._running[trial_id].report(macro_f1, epoch)

    def finish(self, trial_id: str, state: TrialState, macro_f1: float | None, epoch: int, *, diverged: bool) -> None:
        """Tell the end of a trial, so that none is left running.

        A complete trial is told with its last macro-F1; a pruned one with all its intermediate values; one that
        diverged as pruned with the worst value; one that failed for another reason as failed.
        """
        trial = self._running.pop(trial_id)
        if state is TrialState.COMPLETE:
            self._study.tell(trial, macro_f1)
        elif state is TrialState.PRUNED:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif diverged:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a step that was reported before is kept
                trial.report(DIVERGED_MACRO_F1, max(epoch, 1))
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        if len(self.trials) - len(self._running) > MAX_SEEN:
            self._forget_some()

    def _freeze_running(self, hyperparameters: Mapping[str, Value]) -> FrozenTrial:
        parameters = {p.name: p for p in self._arm.space.parameters if p.name in hyperparameters}
        return create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params={name: hyperparameters[name] for name in parameters},
            distributions={name: to_distribution(parameter) for name, parameter in parameters.items()},
        )

    def _adopt(self, running: FrozenTrial) -> optuna.Trial:
        """Add a running trial to the study and return the handle through which it is reported and told."""
        # A handle asks the sampler for joint suggestions, which are not used here; a random one answers at once.
        self._study.sampler = optuna.samplers.RandomSampler(seed=0)
        self._study.add_trial(running)
        return optuna.Trial(self._study, len(self.trials) - 1)

    def _forget_some(self) -> None:
        """Go on with a new study that holds the running trials, the best finished ones and the latest others."""
        seen, running = self.trials, {trial.number: trial_id for trial_id, trial in self._running.items()}
        finished = [t for t in seen if t.number not in running]
        best = {t.number for t in sorted(finished, key=_rank, reverse=True)[:NUM_BEST_KEPT]}
        others = [t.number for t in finished if t.number not in best]
        kept = {*running, *best, *others[len(others) - (MAX_SEEN // 2 - NUM_BEST_KEPT) :]}
        self._study = _new_study()
        for trial in seen:
            if trial.number in running:
                self._running[running[trial.number]] = self._adopt(trial)
            elif trial.number in kept:
                self._study.add_trial(trial)


def _new_study() -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))


def _rank(trial: FrozenTrial) -> tuple[bool, int, float]:
    """Order trials as TPE does: complete ones by value, then pruned ones by their last epoch and its value."""
    if trial.state is optuna.trial.TrialState.COMPLETE:
        return True, 0, trial.value or 0.0
    last = trial.last_step
    return False, -1 if last is None else last, 0.0 if last is None else trial.intermediate_values[last]
