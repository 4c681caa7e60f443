"""Which search trials keep their weights: the best of each arm, which may still be chosen."""

from trainables.records.ranking import ran_every_epoch, ran_its_schedule
from trainables.records.record import TrialRecord


class KeptWeights:
    """The trials of one arm whose weights are kept; they rank as in `trainables.records.ranking.best_trials`."""

    def __init__(self, number: int | None) -> None:
        """Keep none yet.

        Args:
            number: of trials that keep their weights; None for all.
        """
        self._number = number
        self._best: list[tuple[float, str]] = []

    def add(self, record: TrialRecord) -> str:
        """Take a trial that ended into account; return the id of the trial whose weights are no longer needed, "" for none."""
        if self._number is None:
            return ""
        if record.is_rung:
            # A rung is never chosen itself.
            return record.trial_id if ran_its_schedule(record) else ""
        if not ran_every_epoch(record):
            return ""
        self._best = sorted([*self._best, (-(record.last_macro_f1 or 0.0), record.trial_id)])
        if len(self._best) <= self._number:
            return ""
        return self._best.pop()[1]
