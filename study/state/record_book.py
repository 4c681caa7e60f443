"""`RecordBook`: all trial records of a study, in memory and on disk, written by the process that drives the study.

If that process stops before the end, the study can be resumed from them: `StudyInterrupted`.
"""

import os
import platform
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

from search_spaces.config import TrialConfig, Value
from search_spaces.settings import DEFAULTS
from study.state.paths import BASELINE_FOLDER, STAGE_FOLDERS, TEST_READS, Stage, TrialPaths
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord, TrialState
from trainables.storage.store import NUM_REQUESTS, Store

if TYPE_CHECKING:
    from trainables.records.trial_files import TrialFiles


def now_utc() -> str:
    """Return the time in ISO 8601, UTC, to the second."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


class StudyInterrupted(Exception):
    """The study stopped before its end. The message names the command that continues it; the exit status is 3."""


def storage_interruption(error: Exception) -> StudyInterrupted:
    """Return the interruption of a study whose records could not be written."""
    return StudyInterrupted(
        f"the study stopped: {error}; fix the storage, then continue with `study resume`; no finished epoch is lost"
    )


class MemoryBook:
    """All trial records of a study, in memory only."""

    def __init__(self) -> None:
        self._records: dict[Stage, dict[str, TrialRecord]] = {stage: {} for stage in STAGE_FOLDERS}
        self._configurations: dict[tuple[Stage, str], str] = {}

    def __iter__(self) -> Iterator[TrialRecord]:
        return iter([record for stage in sorted(self._records) for record in self.of_stage(stage)])

    def of_stage(self, stage: Stage) -> tuple[TrialRecord, ...]:
        """Return a stage's records in the order of their ids."""
        return tuple(record for _, record in sorted(self._records[stage].items()))

    def get(self, stage: Stage, trial_id: str) -> TrialRecord:
        """Return one record; raise KeyError if there is none."""
        return self._records[stage][trial_id]

    def save(self, record: TrialRecord, *, waits: bool = True) -> TrialRecord:  # noqa: ARG002
        """Replace the record; return it. In memory there is nothing to wait for."""
        self._records[record.stage][record.trial_id] = record
        self._configurations.pop((record.stage, record.trial_id), None)
        return record

    def with_configuration_of(self, source: TrialRecord, stage: Stage) -> list[TrialRecord]:
        """Return a stage's records that have the configuration of `source`, with any seed, in the order of their ids."""
        configuration = source.config.configuration_fingerprint
        return [record for record in self.of_stage(stage) if self._fingerprint(record) == configuration]

    def find_network(
        self,
        config: TrialConfig,
        states: Collection[TrialState] = (TrialState.COMPLETE,),
        seeds: Iterable[int] | None = None,
    ) -> TrialRecord | None:
        """Return a trial that trains the very network whose head `config` fits anew: it differs in `head_refit` alone, if at all.

        Args:
            config: of a trial.
            states: of the trial that is returned.
            seeds: one of which the trial has that is returned; None for the seed of `config`.

        Returns:
            None where there is none with weights, and for a configuration that fits no head anew.
        """
        if not _has_refit(config):
            return None
        allowed = {config.seed} if seeds is None else {*seeds}
        wanted = (config.fold, _describe_network(config))
        for record in self:
            own, is_usable = record.config, record.state in states and not record.weights_dropped
            if not is_usable or own.seed not in allowed or _has_refit(own):
                continue
            if (own.fold, _describe_network(own)) == wanted:
                return record
        return None

    def _fingerprint(self, record: TrialRecord) -> str:
        """Return the fingerprint of a saved record's configuration without its seed, computed once."""
        key = (record.stage, record.trial_id)
        if key not in self._configurations:
            self._configurations[key] = record.config.configuration_fingerprint
        return self._configurations[key]

    def wait(self) -> None:
        """Wait for what is still written; in memory there is nothing."""

    def drop_checkpoint(self, record: TrialRecord) -> None:
        """Delete the checkpoints of a trial that has ended; in memory there are none."""

    def drop_weights(self, record: TrialRecord) -> None:
        """Delete the weights of a trial that has ended, and say so in its record; in memory there are none."""


class RecordBook(MemoryBook):
    """All trial records of a study, in memory and on disk.

    An object store answers after tens of milliseconds, but many requests at once. Records that nobody waits for are written there
    in groups, one group after the other, each with what was saved while the last one was written. A record that is waited for
    comes after all of them, so that a driver that stops in the middle of a group leaves at most epochs of running trials without
    epochs before them; see `sign_with`.
    """

    def __init__(self, store: Store) -> None:
        """Read every record of the study below `store`.

        A damaged or missing record is read from its copy, and named in `recovered`. Raises DamagedFileError naming a record that
        is damaged as well as its copy.
        """
        super().__init__()
        self.store = store
        self.recovered: tuple[str, ...] = ()
        self._recovered_records: list[TrialRecord] = []
        self._writer = f"{platform.node()}:{os.getpid()}"
        self._requests = ThreadPoolExecutor(NUM_REQUESTS, thread_name_prefix="records")
        self._groups = ThreadPoolExecutor(1, thread_name_prefix="groups of records")
        self._last_group: Future[None] | None = None
        self._deletions: list[Future[None]] = []
        self._unwritten: dict[tuple[Stage, str], TrialRecord] = {}
        names = [
            TrialPaths(stage=stage, trial_id=trial_id)
            for stage, folder in STAGE_FOLDERS.items()
            for trial_id in store.list_folder(folder)
            if "." not in trial_id  # a file beside the trials, such as the plan
        ]
        # A disk is faster without threads.
        for record, problem in (map if store.is_local else self._requests.map)(self._read, names):
            if record is not None:
                super().save(record)
            if record is not None and problem:
                self.recovered = (*self.recovered, f"{problem}; it was recovered from its copy")
                self._recovered_records.append(record)

    def sign_with(self, token: int) -> None:
        """Sign every record written from now on with a lease's fencing token; repair records.

        Records that were recovered from copies are written again. Running trials of the search lose the epochs that were decided
        after an epoch which was not written: without that one, `study replay` could not make the decisions again. These
        epochs are reported again.
        """
        self._writer = f"{platform.node()}:{os.getpid()}#{token}"
        # What was read is the past of every decision from now on: it must not be undone.
        for name in ("", *STAGE_FOLDERS.values(), BASELINE_FOLDER, TEST_READS):
            self.store.flush_folder(name)
        for record in self:
            self.store.flush_folder(TrialPaths(stage=record.stage, trial_id=record.trial_id).folder)
        for record in (*self._recovered_records, *self._cut_after_gap()):
            self.save(record)

    def _cut_after_gap(self) -> list[TrialRecord]:
        """Return the search's running trials that have epochs after the first missing event, without these epochs.

        No event is missing before the start or the end of a trial, for which a driver waits.
        """
        running = [record for record in self.of_stage("search") if not record.state.is_finished]
        known = {epoch.order for record in running for epoch in record.epochs}
        waited = (max(record.suggested_order, record.ended_order or 0) for record in self)
        gap = next(order for order in count(max(waited, default=0) + 1) if order not in known)
        return [_cut(record, gap) for record in running if record.epochs and record.epochs[-1].order > gap]

    def save(self, record: TrialRecord, *, waits: bool = True) -> TrialRecord:
        """Replace the record on disk and in memory; return it with its writer.

        Args:
            record: of any trial.
            waits: until it is on disk. Otherwise it may be written later to an object store, and a driver that stops before has
                not saved it; what goes wrong is raised by a later call.
        """
        signed = record.updated(writer=self._writer)
        if self.store.is_local:
            for name, text in _list_files(signed):
                self.store.write_text(name, text)
        elif waits:
            if self._last_group is not None:
                self._last_group.result()
            self._write([signed])
        else:
            if self._last_group is not None and self._last_group.done():
                self._last_group.result()
            self._unwritten[signed.stage, signed.trial_id] = signed
            self._last_group = self._groups.submit(self._write_group, self._last_group)
        return super().save(signed)

    def wait(self) -> None:
        """Wait for what is still written or deleted; raise what went wrong."""
        for running in (*filter(None, [self._last_group]), *self._deletions):
            running.result()
        self._deletions.clear()

    def _write_group(self, last: "Future[None] | None") -> None:
        """Write what has not been written yet; raise what went wrong with the group before."""
        if last is not None:
            last.result()
        self._write([self._unwritten.pop(key) for key in list(self._unwritten)])

    def _write(self, records: Collection[TrialRecord]) -> None:
        """Write records and copies at once. None is left to itself if another one fails."""
        files = [file for record in records for file in _list_files(record)]
        written = [self._requests.submit(self.store.write_text, *file) for file in files]
        for error in [future.exception() for future in written]:
            if error is not None:
                raise error

    def _read(self, paths: TrialPaths) -> tuple[TrialRecord | None, str]:
        """Return the record, and what is wrong with it if it is that of its copy; None for a folder without a record."""
        try:
            return self._parse(paths.record), ""
        except DamagedFileError as damage:
            problem = str(damage)
        except FileNotFoundError:
            if not self.store.exists(paths.record_copy):
                return None, ""
            problem = f"{self.store.locate(paths.record)} is missing"
        try:
            return self._parse(paths.record_copy), problem
        except (DamagedFileError, FileNotFoundError):
            raise DamagedFileError(
                f"{problem}, and so is its copy; move the trial's folder away to continue without it"
            ) from None

    def _parse(self, name: str) -> TrialRecord:
        return TrialRecord.from_json(self.store.read_bytes(name), where=self.store.locate(name))

    def drop_checkpoint(self, record: TrialRecord) -> None:
        """Delete the checkpoints of a trial that has ended, and what attempts stored that did not end it.

        On an object store this goes on after the return, until `wait`.
        """
        files = open_trial_files(self.store, record)

        def delete() -> None:
            files.delete_checkpoint()
            if record.attempts > 1:
                files.delete_lost_results(record.digests)

        if self.store.is_local:
            delete()
        else:
            self._deletions.append(self._requests.submit(delete))

    def drop_weights(self, record: TrialRecord) -> None:
        """Delete the weights of a trial that has ended, and say so in its record.

        The record comes first: a file that is left over disturbs nobody, but one that is missing would be damage.
        """
        files = open_trial_files(self.store, record)
        self.save(record.updated(digests=files.without_weights(record.digests), weights_dropped=True))
        files.delete_weights(record.digests)


def _cut(record: TrialRecord, order: int) -> TrialRecord:
    """Return a record without the epochs from an event on."""
    epochs = tuple(epoch for epoch in record.epochs if epoch.order < order)
    return record.updated(epochs=epochs, device_seconds=epochs[-1].device_seconds if epochs else 0.0)


def _list_files(record: TrialRecord) -> list[tuple[str, str]]:
    """Return the names of the files of a record, each with its text."""
    paths, text = TrialPaths(stage=record.stage, trial_id=record.trial_id), record.to_json()
    return [(paths.record, text), (paths.record_copy, text)]


def _describe_network(config: TrialConfig) -> dict[str, Value]:
    """Return the settings that determine the network of a trial, but for its seed and fold."""
    return {**DEFAULTS, **config.fixed, **config.hyperparameters, "head_refit": ""}


def _has_refit(config: TrialConfig) -> bool:
    return config["head_refit"] != DEFAULTS["head_refit"]


def open_trial_files(store: Store, record: TrialRecord) -> "TrialFiles":
    """Return the files of one trial of the study at `store`."""
    # Imported here, because it needs torch.
    from trainables.records.trial_files import TrialFiles

    return TrialFiles(store.child(TrialPaths(stage=record.stage, trial_id=record.trial_id).folder))
