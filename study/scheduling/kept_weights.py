"""Which search trials keep their weights: the best of each arm, which may still be chosen."""

from statistics import fmean

from trainables.records.ranking import ran_every_epoch, ran_its_schedule, score_repeat
from trainables.records.record import TrialRecord


class KeptWeights:
    """The trials of one arm whose weights are kept; they rank as in `trainables.records.ranking.best_trials`."""

    def __init__(self, number: int | None, *, has_repeats: bool = False) -> None:
        """Keep none yet.

        Args:
            number: of trials that keep their weights; None for all.
            has_repeats: whether leaders run several times. Their means may then fall, so that any trial may still be chosen until
                the search ends; `end` names those that are not.
        """
        self._number = number
        self._has_repeats = has_repeats
        self._scores: dict[str, list[float]] = {}

    def add(self, record: TrialRecord) -> str:
        """Take a trial that ended into account; return the id of the trial whose weights are no longer needed, "" for none."""
        if self._number is None:
            return ""
        if record.is_rung:
            # A rung is never chosen itself.
            return record.trial_id if ran_its_schedule(record) else ""
        if record.repeats_trial_id:
            return self._add_repeat(record)
        if not ran_every_epoch(record):
            return ""
        self._scores[record.trial_id] = [record.last_macro_f1 or 0.0]
        if self._has_repeats or len(self._scores) <= self._number:
            return ""
        worst = self._rank()[-1]
        del self._scores[worst]
        return worst

    def end(self) -> list[str]:
        """Return the ids of the trials whose weights are not needed any more when the search ends."""
        needless = [] if self._number is None else self._rank()[self._number :]
        for trial_id in needless:
            del self._scores[trial_id]
        return needless

    def _rank(self) -> list[str]:
        return sorted(self._scores, key=lambda trial_id: (-fmean(self._scores[trial_id]), trial_id))

    def _add_repeat(self, record: TrialRecord) -> str:
        """Count a repeated run for its configuration, for which the first trial stands: the repeated run's weights go."""
        score = score_repeat(record)
        if score is not None and record.repeats_trial_id in self._scores:
            self._scores[record.repeats_trial_id].append(score)
        return record.trial_id if ran_every_epoch(record) else ""
