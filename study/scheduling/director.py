"""Directors decide which trial comes next and which goes on. They know records, not Ray: Ray only calls them."""

from dataclasses import dataclass
from typing import Any, Protocol

from study.state.paths import Stage
from study.state.record_book import MemoryBook, now_utc
from trainables.records.record import EpochRecord, TrialRecord, TrialState
from trainables.records.store import StorageError
from trainables.training.epoch_metrics import EpochMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One epoch of one trial, as its actor reports it.

    Attributes:
        metrics: The epoch's measurements.
        device_seconds: Device-seconds that this attempt spent since its last report, set-up and checkpoint included.
        details: Record fields that the actor knows (device, num_parameters, num_threads, confirm_macro_f1, ...).
    """

    metrics: EpochMetrics
    device_seconds: float
    details: dict[str, Any]


class Director(Protocol):
    """What `study.cluster.connection.tune_run` needs from a director."""

    @property
    def is_exhausted(self) -> bool:
        """Whether no further trial will be started."""

    @property
    def problem(self) -> str:
        """Why no further trial is started although some are left; "" if there is no reason."""

    def unfinished(self) -> tuple[TrialRecord, ...]:
        """Return the records of its own trials that have not ended."""

    def next_trial(self) -> TrialRecord | None:
        """Return the record of the trial to start now, or None if none is to be started now."""

    def on_report(self, trial_id: str, report: Report) -> bool:
        """Take one epoch; return whether the trial goes on."""

    def on_error(self, trial_id: str, cause: str) -> None:
        """Take the cause of an attempt that broke off."""

    def on_retries_exhausted(self, trial_id: str) -> None:
        """Take that a trial broke off and will not be tried again."""

    def requeue(self, trial_id: str) -> None:
        """Take that a trial was dropped before it was started again: it waits, and is started by `next_trial`."""


class RecordKeeper:
    """The part that all directors share: turning reports into records.

    A trial that breaks off because the storage failed is not to blame: no further trial is started, and it stays RUNNING,
    for `study resume`.
    """

    def __init__(self, book: MemoryBook, stage: Stage) -> None:
        self.book = book
        self.stage = stage
        orders = [r.suggested_order for r in book]
        orders += [e.order for r in book for e in r.epochs]
        self._order = max(orders, default=-1) + 1
        self._storage_problem = ""

    @property
    def problem(self) -> str:
        """Why no further trial is started although some are left; "" if there is no reason."""
        return self._storage_problem

    def unfinished(self) -> tuple[TrialRecord, ...]:
        """Return the stage's records that have not ended."""
        return tuple(record for record in self.book.of_stage(self.stage) if not record.state.is_finished)

    def take_order(self) -> int:
        """Return the next number of the study's event counter."""
        order = self._order
        self._order += 1
        return order

    def add_epoch(self, record: TrialRecord, report: Report, *, stop: bool) -> TrialRecord:
        """Return the record with one more epoch (not saved yet)."""
        device_seconds = record.device_seconds + report.device_seconds
        own = {
            "device_seconds": device_seconds,
            "order": self.take_order(),
            "decision": "stop" if stop else "continue",
        }
        epoch = EpochRecord.model_validate({**dict(report.metrics), **own})
        details = dict(report.details)
        details["digests"] = {**record.digests, **dict(details.get("digests", ()))}
        details["notes"] = (*record.notes, *(n for n in details.get("notes", ()) if n not in record.notes))
        return record.updated(epochs=(*record.epochs, epoch), device_seconds=device_seconds, **details)

    def finish(self, record: TrialRecord, state: TrialState, reason: str, *, diverged: bool = False) -> TrialRecord:
        """Return the record in its final state (not saved yet)."""
        return record.updated(
            state=state, reason=reason, diverged=diverged, ended=now_utc(), ended_order=self.take_order()
        )

    def on_error(self, trial_id: str, cause: str) -> None:
        """Record the cause of a start that broke off; Tune starts the trial again, or calls `on_gave_up` next."""
        record = self.book.get(self.stage, trial_id)
        if not record.state.is_finished:
            causes = (*record.retry_causes, cause)
            self.book.save(record.updated(retry_causes=causes, attempts=record.attempts + 1))
        self._storage_problem = self._storage_problem or _storage_problem(cause)

    def on_retries_exhausted(self, trial_id: str) -> None:
        """Record that a trial broke off and was not started again."""
        record = self.book.get(self.stage, trial_id)
        if not record.state.is_finished and not self._storage_problem:
            cause = record.retry_causes[-1] if record.retry_causes else "the trial's process ended"
            failed = self.finish(record, TrialState.FAILED, cause)
            # The start that `on_error` expected did not follow.
            self.book.save(failed.updated(attempts=max(1, failed.attempts - 1)))

    def restart(self, record: TrialRecord) -> TrialRecord:
        """Save and return the record of a trial that is started once more, after its driver stopped."""
        return self.book.save(record.updated(attempts=record.attempts + 1))


def is_known(record: TrialRecord, report: Report) -> bool:
    """Whether the record already holds this epoch (a restarted trial reports the epochs of its checkpoint again)."""
    return bool(record.epochs) and report.metrics.epoch <= record.epochs[-1].epoch


def non_finite_reason(report: Report) -> str:
    """Return why this report ends its trial, or "" if its macro-F1 and training loss are finite numbers."""
    for name in ("macro_f1", "train_loss"):
        if getattr(report.metrics, name) is None:
            return f"{name} was not a finite number at epoch {report.metrics.epoch}"
    return ""


def _storage_problem(cause: str) -> str:
    """Return what a trial's process said of its storage, or "" if that did not break it."""
    lines = [line for line in cause.splitlines() if f"{StorageError.__name__}: " in line]
    return lines[-1].partition(f"{StorageError.__name__}: ")[2] if lines else ""
