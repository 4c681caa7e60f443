"""Which search trials keep their weights: the best of each arm, which may still be chosen."""

from trainables.records.ranking import ran_every_epoch
from trainables.records.record import TrialRecord


class WeightRetention:
    """The trials of one arm whose weights are kept; they rank as in `trainables.records.ranking.best_trials`."""

    def __init__(self, number: int | None) -> None:
        """Keep the weights of so many trials, of all if `number` is None; there are none yet."""
        self._number = number
        self._scores: dict[str, float] = {}

    def add(self, record: TrialRecord) -> str:
        """Take a trial that ended into account; return the id of the trial whose weights are no longer needed, "" for none."""
        if self._number is None or not ran_every_epoch(record):
            return ""
        self._scores[record.trial_id] = record.last_macro_f1 or 0.0
        if len(self._scores) <= self._number:
            return ""
        worst = max(self._scores, key=lambda trial_id: (-self._scores[trial_id], trial_id))
        del self._scores[worst]
        return worst
