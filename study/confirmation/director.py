"""The director of confirmation trials: given configurations with fresh seeds, on all epochs, without pruning."""

from collections.abc import Sequence
from dataclasses import dataclass

from search_spaces.config import TrialConfig
from study.scheduling.director import RecordKeeper, Report, is_known, non_finite_reason
from study.state.record_book import RecordBook, now_utc
from trainables.records.record import TrialRecord, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTrial:
    """A configuration to be run with one seed."""

    config: TrialConfig
    source_trial_id: str


def want(source: TrialRecord, seeds: Sequence[int]) -> list[WantedTrial]:
    """Return the source's configuration once per seed."""
    return [WantedTrial(config=source.config.with_seed(s), source_trial_id=source.trial_id) for s in seeds]


class ConfirmationDirector(RecordKeeper):
    """Director that runs a list of configurations to the end; those already recorded are not run again."""

    def __init__(self, book: RecordBook, wanted: Sequence[WantedTrial], max_epochs: int) -> None:
        super().__init__(book, "confirmation")
        self._max_epochs = max_epochs
        self._wanted = {trial.config.fingerprint for trial in wanted}
        recorded = {r.fingerprint: r for r in book.of_stage("confirmation")}
        self._waiting: list[WantedTrial | TrialRecord] = []
        for trial in wanted:
            record = recorded.get(trial.config.fingerprint)
            if record is None:
                self._waiting.append(trial)
            elif not record.state.is_finished:
                self._waiting.append(record)

    @property
    def is_exhausted(self) -> bool:
        """Whether every wanted trial has been started, or none is to be started any more."""
        return bool(self.problem) or not self._waiting

    def unfinished(self) -> tuple[TrialRecord, ...]:
        """Return the wanted trials' records that have not ended; others may be left from a driver that died later on."""
        return tuple(record for record in super().unfinished() if record.fingerprint in self._wanted)

    def next_trial(self) -> TrialRecord | None:
        """Return the next wanted trial's record, or None when all are started."""
        if self.problem or not self._waiting:
            return None
        trial = self._waiting.pop(0)
        if isinstance(trial, TrialRecord):
            return self.restart(trial)
        return self.book.save(
            TrialRecord(
                trial_id=f"{len(self.book.of_stage('confirmation')):05d}",
                stage="confirmation",
                config=trial.config,
                fingerprint=trial.config.fingerprint,
                state=TrialState.RUNNING,
                suggested_order=self.take_order(),
                source_trial_id=trial.source_trial_id,
                started=now_utc(),
            )
        )

    def on_report(self, trial_id: str, report: Report) -> bool:
        """Record one epoch; the trial goes on until its last epoch or a number that is not finite."""
        record = self.book.get("confirmation", trial_id)
        if record.state.is_finished:
            return False
        if is_known(record, report):
            return True
        reason = non_finite_reason(report)
        is_last = report.metrics.epoch >= self._max_epochs
        record = self.add_epoch(record, report, stop=bool(reason) or is_last)
        if reason:
            record = self.finish(record, TrialState.FAILED, reason, diverged=True)
        elif is_last:
            record = self.finish(record, TrialState.COMPLETE, "")
        record = self.book.save(record)
        if record.state.is_finished:
            self.book.drop_checkpoint(record)
        return not record.state.is_finished

    def requeue(self, trial_id: str) -> None:
        """Let a trial wait that was dropped before it was started again."""
        record = self.book.get("confirmation", trial_id)
        if not record.state.is_finished:
            self._waiting.insert(0, record)
