"""The director of confirmation trials: chosen configurations with new seeds, on all epochs, without pruning."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from search_spaces.config import TrialConfig
from study.scheduling.director import Director
from study.state.record_book import RecordBook
from trainables.records.record import TrialRecord, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTrial:
    """A configuration to train with one seed, and the search trial that it comes from."""

    config: TrialConfig
    source_trial_id: str


def want(source: TrialRecord, seeds: Sequence[int], folds: Sequence[str] = ("",)) -> list[WantedTrial]:
    """Return the configuration of a search trial once per seed and fold."""
    configs = [source.config.with_seed(seed).with_fold(fold) for seed in seeds for fold in folds]
    return [WantedTrial(config=config, source_trial_id=source.trial_id) for config in configs]


class ConfirmationDirector(Director):
    """Director that trains a list of configurations to their last epoch, except those that the records hold already."""

    def __init__(
        self,
        book: RecordBook,
        wanted: Sequence[WantedTrial],
        *,
        again: Collection[str] = (),
        max_failed_fraction: float = 1.0,
    ) -> None:
        """Find the wanted trials that have no record, or one that has not ended.

        Args:
            book: the study's records.
            wanted: trials, in the order in which they start.
            again: fingerprints of trials that failed with an error and are started once more.
            max_failed_fraction: of the trials that end, above which no further one starts.
        """
        super().__init__(book, "confirmation", max_failed_fraction)
        self._wanted = {trial.config.fingerprint for trial in wanted}
        recorded = {r.fingerprint: r for r in book.of_stage("confirmation")}
        self._waiting: list[WantedTrial | TrialRecord] = []
        for trial in wanted:
            record = recorded.get(trial.config.fingerprint)
            if record is None:
                self._waiting.append(trial)
            elif not record.state.is_finished or (record.state is TrialState.FAILED and record.fingerprint in again):
                self._waiting.append(record)

    @property
    def is_exhausted(self) -> bool:
        """Whether every wanted trial has been started, or no more will be."""
        return bool(self.problem) or not (self._interrupted or self._waiting)

    def unfinished(self) -> tuple[TrialRecord, ...]:
        """Return the records of wanted trials that have not ended; a driver that died may have left others."""
        return tuple(record for record in super().unfinished() if record.fingerprint in self._wanted)

    def next_trial(self) -> TrialRecord | None:
        """Return the record of the next wanted trial, or None if all have been started."""
        if self.is_exhausted:
            return None
        if self._interrupted:
            return self.restart(self.book.get("confirmation", self._interrupted.pop(0)))
        trial = self._waiting.pop(0)
        if isinstance(trial, TrialRecord):
            return self.restart(trial)
        # Not their number: a user who gave up a damaged record moved its folder away.
        last = max((int(record.trial_id) for record in self.book.of_stage("confirmation")), default=-1)
        return self.start_trial(f"{last + 1:05d}", trial.config, trial.source_trial_id)
