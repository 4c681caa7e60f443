"""The sampler of one arm: an in-memory Optuna study that can be rebuilt, decision for decision, from records.

Every suggestion draws from a sampler that is seeded anew from (study seed, arm, index of the trial in its arm), so
that a suggestion depends on nothing but the seed and on what the arm has reported before it.
"""

import warnings
from collections.abc import Mapping

import optuna

from search_spaces.arms import Arm
from search_spaces.config import Value
from search_spaces.distributions import suggest_hyperparameters
from search_spaces.errors import UserInputError, nearest_name
from trainables.record import TrialState
from trainables.seeds import derive_seed

# Macro-F1 told to the sampler for a trial that diverged: the worst there is, so that the region is avoided.
# Optuna itself ignores failed trials.
DIVERGED_MACRO_F1 = 0.0

SAMPLERS = ("tpe", "random")

# Trials of an arm that are drawn at random first. Optuna's default is 10, which is all that an arm of a small study gets.
NUM_STARTUP_TRIALS = 5


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return Optuna's sampler `name` seeded with `seed`; raise UserInputError for an unknown one."""
    short_seed = seed % 2**32
    if name == "random":
        return optuna.samplers.RandomSampler(seed=short_seed)
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=short_seed, n_startup_trials=NUM_STARTUP_TRIALS)
    raise UserInputError(f"there is no sampler {name!r}{nearest_name(name, SAMPLERS)}")


class ArmSampler:
    """Suggests hyperparameters for one arm and hears what became of them."""

    def __init__(self, arm: Arm, *, sampler: str, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._arm = arm
        self._sampler_name = sampler
        self._seed = seed
        self._study = optuna.create_study(direction="maximize", sampler=make_sampler(sampler, seed))
        self._running: dict[str, optuna.Trial] = {}
        self._num_suggested = 0

    def suggest(self, trial_id: str) -> dict[str, Value]:
        """Return hyperparameters (searched and fixed) for the arm's next trial."""
        seed = derive_seed(self._seed, "sampler", self._arm.name, self._num_suggested)
        self._study.sampler = make_sampler(self._sampler_name, seed)
        return self._ask(trial_id)

    def restore(self, trial_id: str, hyperparameters: Mapping[str, Value]) -> None:
        """Take up a suggestion made earlier, from its record, in the place of `suggest`."""
        searched = {n: v for n, v in hyperparameters.items() if n in self._arm.space.names}
        self._study.enqueue_trial(dict(searched))
        self._ask(trial_id)

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

    def _ask(self, trial_id: str) -> dict[str, Value]:
        trial = self._study.ask()
        self._running[trial_id] = trial
        self._num_suggested += 1
        return suggest_hyperparameters(self._arm.space, trial)
