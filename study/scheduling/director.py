"""Directors decide which trial starts next and which trials continue. Ray calls them; they do not use Ray.

The one of the confirmation trains chosen configurations with new seeds, on all epochs, without pruning; that of the search is
`study.scheduling.search_director.SearchDirector`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from search_spaces.config import TrialConfig
from study.state.paths import Stage
from study.state.record_book import MemoryBook, RecordBook, now_utc
from trainables.records.record import EpochRecord, EpochReport, TrialRecord, TrialState
from trainables.storage.store import StorageError, StorageRefusedError

# Failures end a stage only from this number on: a single one is no evidence about the other trials.
MIN_CRASHED = 3


class Director(ABC):
    """The interface that `study.cluster.tune_run` calls, and the common part of both directors: it turns reports into records.

    If an attempt fails because of the storage, its trial stays RUNNING for `study resume`, and no more trials are started.
    """

    def __init__(self, book: MemoryBook, stage: Stage, max_failed_fraction: float = 1.0) -> None:
        """Continue the study's event counter; above `max_failed_fraction` of the trials that end, no further one starts."""
        self.book = book
        self.stage = stage
        self._max_failed_fraction = max_failed_fraction
        self._num_ended = self._num_crashed = 0
        orders = [r.suggested_order for r in book]
        orders += [e.order for r in book for e in r.epochs]
        orders += [r.ended_order for r in book if r.ended_order is not None]
        self._order = max(orders, default=-1) + 1
        self._storage_problem = ""
        self._interrupted: list[str] = []
        self._carried: dict[str, float] = {}

    @property
    @abstractmethod
    def is_exhausted(self) -> bool:
        """Whether no more trials will be started."""

    @abstractmethod
    def next_trial(self) -> TrialRecord | None:
        """Return the record of the trial to start now, or None if there is none."""

    @property
    def problem(self) -> str:
        """Why no more trials are started although some are left; "" if there is no problem."""
        if self._num_crashed < MIN_CRASHED or self._num_crashed <= self._max_failed_fraction * self._num_ended:
            return self._storage_problem
        limit = f"resources.max_failed_fraction = {self._max_failed_fraction:g}"
        crashed = f"{self._num_crashed} of {self._num_ended} trials failed with an error, more than {limit} allows"
        return self._storage_problem or crashed

    def unfinished(self) -> tuple[TrialRecord, ...]:
        """Return the stage's records that have not ended."""
        return tuple(record for record in self.book.of_stage(self.stage) if not record.state.is_finished)

    def take_order(self) -> int:
        """Return the next position on the study's event counter."""
        order = self._order
        self._order += 1
        return order

    def start_trial(self, trial_id: str, config: TrialConfig, source_trial_id: str = "") -> TrialRecord:
        """Save and return the record of a new trial."""
        record = TrialRecord(
            trial_id=trial_id,
            stage=self.stage,
            config=config,
            fingerprint=config.fingerprint,
            state=TrialState.RUNNING,
            suggested_order=self.take_order(),
            source_trial_id=source_trial_id,
            started=now_utc(),
        )
        return self.book.save(record)

    def on_report(self, trial_id: str, report: EpochReport) -> bool:
        """Record one epoch and decide whether the trial continues; a metric that is not finite ends it as failed."""
        record = self.book.get(self.stage, trial_id)
        if record.state.is_finished:
            return False
        if record.epochs and report.metrics.epoch <= record.epochs[-1].epoch:
            # A restarted trial reports the epochs of its checkpoint again; what this cost belongs to its next epoch.
            self._carried[trial_id] = self._carried.get(trial_id, 0.0) + report.device_seconds
            return True
        epoch, macro_f1 = report.metrics.epoch, report.metrics.macro_f1
        state, reason = TrialState.FAILED, report.metrics.divergence
        if macro_f1 is not None and not reason:
            state, reason = self.decide(record, epoch, macro_f1)
        record = self.add_epoch(record, report, stop=state.is_finished)
        if state.is_finished:
            record = self.finish(record, state, reason, diverged=state is TrialState.FAILED)
        record = self.book.save(record, waits=state.is_finished)
        if state.is_finished:
            self.on_end(record)
        return not state.is_finished

    def decide(self, record: TrialRecord, epoch: int, macro_f1: float) -> tuple[TrialState, str]:  # noqa: ARG002
        """Return the state of a trial after an epoch with a finite score, and the reason for a state other than COMPLETE."""
        return TrialState.COMPLETE if epoch >= record.config.whole("max_epochs") else TrialState.RUNNING, ""

    def on_end(self, record: TrialRecord) -> None:
        """Count a trial that its last report ended, and delete its checkpoints."""
        self._num_ended += 1
        self.book.drop_checkpoint(record)

    def add_epoch(self, record: TrialRecord, report: EpochReport, *, stop: bool) -> TrialRecord:
        """Return the record with one more epoch (not saved yet)."""
        device_seconds = record.device_seconds + report.device_seconds + self._carried.pop(record.trial_id, 0.0)
        own = {"device_seconds": device_seconds, "order": self.take_order(), "decision": "stop" if stop else "continue"}
        epoch = EpochRecord(**{**dict(report.metrics), **own})
        # Every report rewrites the record: with the classes of all epochs, the bytes would grow with their number squared.
        earlier = [one.model_copy(update={"per_class_f1": ()}) for one in record.epochs]
        notes = (*record.notes, *(note for note in report.notes if note not in record.notes))
        changes = {**report.list_changes(), "notes": notes, "device_seconds": device_seconds}
        return record.updated(epochs=(*earlier, epoch), **changes)

    def finish(self, record: TrialRecord, state: TrialState, reason: str, *, diverged: bool = False) -> TrialRecord:
        """Return the record in its final state (not saved yet)."""
        return record.updated(
            state=state, reason=reason, diverged=diverged, ended=now_utc(), ended_order=self.take_order()
        )

    def on_error(self, trial_id: str, cause: str) -> None:
        """Record the error of a failed attempt, after which Tune starts the next or calls `on_retries_exhausted`."""
        record = self.book.get(self.stage, trial_id)
        if not record.state.is_finished:
            causes = (*record.retry_causes, cause)
            self.book.save(record.updated(retry_causes=causes, attempts=record.attempts + 1))
        self._storage_problem = self._storage_problem or _storage_problem(cause)

    def on_retries_exhausted(self, trial_id: str) -> TrialRecord | None:
        """Record that a trial failed and has no retries left; return its record, None if it had ended or waits for a resume."""
        record = self.book.get(self.stage, trial_id)
        if record.state.is_finished or self._storage_problem:
            return None
        cause = record.retry_causes[-1] if record.retry_causes else "the trial's process ended"
        failed = self.finish(record, TrialState.FAILED, cause)
        self._num_ended += 1
        self._num_crashed += 1
        # The next attempt, which `on_error` counted, was not started.
        return self.book.save(failed.updated(attempts=max(1, failed.attempts - 1)))

    def requeue(self, trial_id: str) -> None:
        """Put a trial that Tune dropped before restarting it back at the head of the queue of `next_trial`."""
        if not self.book.get(self.stage, trial_id).state.is_finished:
            self._interrupted.insert(0, trial_id)

    def restart(self, record: TrialRecord) -> TrialRecord:
        """Save and return the record of a trial whose next attempt starts after its driver stopped, or after it failed."""
        running = {"state": TrialState.RUNNING, "reason": "", "ended": "", "ended_order": None}
        return self.book.save(record.updated(**running, attempts=record.attempts + 1))


def _storage_problem(cause: str) -> str:
    """Return the storage's error in the text of an attempt's error; "" if there is none."""
    found = re.findall(rf"(?:{StorageError.__name__}|{StorageRefusedError.__name__}): (.*)", cause)
    return str(found[-1]) if found else ""


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
        then: Callable[[], Sequence[WantedTrial]] | None = None,
        again: Collection[str] = (),
        max_failed_fraction: float = 1.0,
    ) -> None:
        """Find the wanted trials that have no record, or one that has not ended.

        Args:
            book: the study's records.
            wanted: trials, in the order in which they start.
            then: called once when all of them have ended; what it returns is wanted too, and the same processes train it.
            again: fingerprints of trials that failed with an error and are started once more.
            max_failed_fraction: of the trials that end, above which no further one starts.
        """
        super().__init__(book, "confirmation", max_failed_fraction)
        self._again, self._then = again, then
        self._wanted: set[str] = set()
        self._waiting: list[WantedTrial | TrialRecord] = []
        self._want(wanted)

    def _want(self, wanted: Sequence[WantedTrial]) -> None:
        """Let the trials wait that have no record, or one that has not ended; if nothing is to be done, ask for more."""
        self._wanted |= {trial.config.fingerprint for trial in wanted}
        recorded = {r.fingerprint: r for r in self.book.of_stage("confirmation")}
        for trial in wanted:
            record = recorded.get(trial.config.fingerprint)
            if record is None:
                self._waiting.append(trial)
            elif not record.state.is_finished or (
                record.state is TrialState.FAILED and record.fingerprint in self._again
            ):
                self._waiting.append(record)
        self._ask_for_more()

    def _ask_for_more(self) -> None:
        if self._then is not None and not (self.problem or self._waiting or self.unfinished()):
            then, self._then = self._then, None
            self._want(then())

    @property
    def is_exhausted(self) -> bool:
        """Whether every wanted trial has been started, or no more will be."""
        return bool(self.problem) or not (self._interrupted or self._waiting or self._then)

    def unfinished(self) -> tuple[TrialRecord, ...]:
        """Return the records of wanted trials that have not ended; a driver that died may have left others."""
        return tuple(record for record in super().unfinished() if record.fingerprint in self._wanted)

    def _waits(self, config: TrialConfig) -> bool:
        """Whether another wanted trial is just training the network that this one needs."""
        network = self.book.find_network(config, (TrialState.RUNNING,))
        return network is not None and network.fingerprint in self._wanted

    def next_trial(self) -> TrialRecord | None:
        """Return the record of the next wanted trial; None if all have been started, or the others wait for one that runs."""
        self._ask_for_more()
        if self.is_exhausted or not (self._interrupted or self._waiting):
            return None
        if self._interrupted:
            return self.restart(self.book.get("confirmation", self._interrupted.pop(0)))
        ready = (place for place, trial in enumerate(self._waiting) if not self._waits(trial.config))
        place = next(ready, None)
        if place is None:
            return None
        trial = self._waiting.pop(place)
        if isinstance(trial, TrialRecord):
            return self.restart(trial)
        # Not their number: a user who gave up a damaged record moved its folder away.
        last = max((int(record.trial_id) for record in self.book.of_stage("confirmation")), default=-1)
        return self.start_trial(f"{last + 1:05d}", trial.config, trial.source_trial_id)
