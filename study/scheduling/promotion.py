"""Which configurations of an arm are trained in full, from the scores of their rungs.

A rung is a trial of its own, a complete schedule of few epochs. Whenever `reduction_factor` more rungs have ended, the best one
left is promoted: its full trial starts from the pretrained weights under another seed. Asynchronous successive halving (Li et al.
2020, A System for Massively Parallel Hyperparameter Tuning, MLSys) promotes whatever is among the best 1 / `reduction_factor`
of the rungs so far. With a sampler that improves, that would be every other new configuration, and not one in six.
"""

from dataclasses import dataclass, field, replace

from search_spaces.config import TrialConfig
from trainables.records.record import TrialRecord


@dataclass(slots=True)
class ArmPromotions:
    """The rungs and full trials of one arm.

    Attributes:
        reduction_factor: one of so many rungs is promoted.
        num_reserved: full trials that the arm gets in any case, if it has so many configurations.
        running: ids of the rungs that have not ended.
        scores: macro-F1 of the rungs that ended, by id; of one that diverged 0, and of one that crashed none.
        full: ids of the full trials that are running or ran every epoch, by the id of their rung.
    """

    reduction_factor: float
    num_reserved: int
    running: set[str] = field(default_factory=set)
    scores: dict[str, float] = field(default_factory=dict)
    full: dict[str, str] = field(default_factory=dict)
    _promoted: set[str] = field(default_factory=set)

    @property
    def num_missing(self) -> int:
        """The reserved full trials that are neither running nor finished."""
        return max(0, self.num_reserved - len(self.full))

    def start_rung(self, trial_id: str) -> None:
        """Record that a rung starts."""
        self.running.add(trial_id)

    def finish_rung(self, trial_id: str, macro_f1: float | None) -> None:
        """Record that a rung ended, with its score or, if its trial crashed, without one."""
        self.running.discard(trial_id)
        if macro_f1 is not None:
            self.scores[trial_id] = macro_f1

    def start_full(self, trial_id: str, rung_id: str) -> None:
        """Record that the full trial of a rung starts."""
        self._promoted.add(rung_id)
        self.full[rung_id] = trial_id

    def finish_full(self, rung_id: str, *, ran_every_epoch: bool) -> None:
        """Record that a full trial ended; one that did not run every epoch leaves its place to another."""
        if not ran_every_epoch:
            del self.full[rung_id]

    def find_promotable(self) -> str | None:
        """Return the best rung that has not been promoted; None if 1 / `reduction_factor` of the rungs have been."""
        if len(self._promoted) >= int(len(self.scores) / self.reduction_factor):
            return None
        return self.find_best_left()

    def find_best_left(self) -> str | None:
        """Return the best rung that has not been promoted and did not diverge; None if there is none."""
        return next((t for t in self._rank() if t not in self._promoted and self.scores[t] > 0), None)

    def _rank(self) -> list[str]:
        """Return the ids of the rungs with a score, the best first; ties go to the smallest id."""
        return sorted(self.scores, key=lambda trial_id: (-self.scores[trial_id], trial_id))


def with_max_epochs(config: TrialConfig, max_epochs: int) -> TrialConfig:
    """Return the same configuration with a schedule of `max_epochs`."""
    if "max_epochs" in config.hyperparameters:
        return replace(config, hyperparameters={**config.hyperparameters, "max_epochs": max_epochs})
    return replace(config, fixed={**config.fixed, "max_epochs": max_epochs})


def read_full_config(record: TrialRecord) -> TrialConfig:
    """Return the configuration that a trial was suggested with; that of a rung has the epochs of its full trial."""
    return record.config if record.full_epochs is None else with_max_epochs(record.config, record.full_epochs)
