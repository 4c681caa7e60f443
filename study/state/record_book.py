"""`RecordBook`: all trial records of a study, in memory and on disk, written by the process that drives the study.

If that process stops before the end, the study can be resumed from them: `StudyInterrupted`.
"""

import os
import platform
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from search_spaces.config import TrialConfig, Value
from search_spaces.settings import DEFAULTS
from study.state.paths import STAGE_FOLDERS, Stage, TrialPaths
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord, TrialState
from trainables.storage.store import Store

if TYPE_CHECKING:
    from trainables.records.trial_files import TrialFiles


# Records that are read from an object store at the same time.
NUM_REQUESTS = 32


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

    def save(self, record: TrialRecord) -> TrialRecord:
        """Replace the record; return it."""
        self._records[record.stage][record.trial_id] = record
        self._configurations.pop((record.stage, record.trial_id), None)
        return record

    def with_configuration_of(self, source: TrialRecord, stage: Stage) -> list[TrialRecord]:
        """Return a stage's records that have the configuration of `source`, with any seed, in the order of their ids."""
        configuration = source.config.configuration_fingerprint
        return [record for record in self.of_stage(stage) if self._fingerprint(record) == configuration]

    def find_network(
        self, config: TrialConfig, states: Collection[TrialState] = (TrialState.COMPLETE,)
    ) -> TrialRecord | None:
        """Return a trial that trains the very network whose head `config` fits anew: it differs in `head_refit` alone, if at all.

        Args:
            config: of a trial.
            states: of the trial that is returned.

        Returns:
            None where there is none with weights, and for a configuration that fits no head anew.
        """
        if not _has_refit(config):
            return None
        wanted = (config.seed, config.fold, _describe_network(config))
        for record in self:
            own, is_usable = record.config, record.state in states and not record.weights_dropped
            if is_usable and not _has_refit(own) and (own.seed, own.fold, _describe_network(own)) == wanted:
                return record
        return None

    def _fingerprint(self, record: TrialRecord) -> str:
        """Return the fingerprint of a saved record's configuration without its seed, computed once."""
        key = (record.stage, record.trial_id)
        if key not in self._configurations:
            self._configurations[key] = record.config.configuration_fingerprint
        return self._configurations[key]

    def drop_checkpoint(self, record: TrialRecord) -> None:
        """Delete the checkpoints of a trial that has ended; in memory there are none."""

    def drop_weights(self, record: TrialRecord) -> None:
        """Delete the weights of a trial that has ended, and say so in its record; in memory there are none."""


class RecordBook(MemoryBook):
    """All trial records of a study, in memory and on disk."""

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
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="records")
        names = [
            TrialPaths(stage=stage, trial_id=trial_id)
            for stage, folder in STAGE_FOLDERS.items()
            for trial_id in store.list_folder(folder)
            if "." not in trial_id  # a file beside the trials, such as the plan
        ]
        # An object store answers after tens of milliseconds, but many requests at once; a disk is faster without threads.
        with ThreadPoolExecutor(1 if store.is_local else NUM_REQUESTS) as pool:
            for record, problem in pool.map(self._read, names):
                if record is not None:
                    super().save(record)
                if record is not None and problem:
                    self.recovered = (*self.recovered, f"{problem}; it was recovered from its copy")
                    self._recovered_records.append(record)

    def sign_with(self, token: int) -> None:
        """Sign every record written from now on with a lease's fencing token; rewrite the records recovered from copies."""
        self._writer = f"{platform.node()}:{os.getpid()}#{token}"
        for record in self._recovered_records:
            self.save(record)

    def save(self, record: TrialRecord) -> TrialRecord:
        """Replace the record on disk, then in memory; return it with its writer."""
        signed = record.updated(writer=self._writer)
        paths = TrialPaths(stage=signed.stage, trial_id=signed.trial_id)
        write = partial(self.store.write_text, text=signed.to_json())
        if self.store.is_local:
            write(paths.record)
            write(paths.record_copy)
        else:
            # At once: an object store answers after tens of milliseconds. Neither is left to itself if the other one fails.
            written = [self._threads.submit(write, name) for name in (paths.record, paths.record_copy)]
            for error in [future.exception() for future in written]:
                if error is not None:
                    raise error
        return super().save(signed)

    def _read(self, paths: TrialPaths) -> tuple[TrialRecord | None, str]:
        """Return the record, and what is wrong with it if it is that of its copy; None for a folder without a record."""
        problem = ""
        try:
            return self._parse(paths.record), problem
        except DamagedFileError as damage:
            problem = str(damage)
        except FileNotFoundError:
            if not self.store.exists(paths.record_copy):
                return None, problem
        problem = problem or f"{self.store.locate(paths.record)} is missing"
        try:
            return self._parse(paths.record_copy), problem
        except (DamagedFileError, FileNotFoundError):
            raise DamagedFileError(
                f"{problem}, and so is its copy; move the trial's folder away to continue without it"
            ) from None

    def _parse(self, name: str) -> TrialRecord:
        return TrialRecord.from_json(self.store.read_bytes(name), where=self.store.locate(name))

    def drop_checkpoint(self, record: TrialRecord) -> None:
        """Delete the checkpoints of a trial that has ended, and what attempts stored that did not end it."""
        files = open_trial_files(self.store, record)
        files.delete_checkpoint()
        if record.attempts > 1:
            files.delete_lost_results(record.digests)

    def drop_weights(self, record: TrialRecord) -> None:
        """Delete the weights of a trial that has ended, and say so in its record.

        The record comes first: a file that is left over disturbs nobody, but one that is missing would be damage.
        """
        files = open_trial_files(self.store, record)
        self.save(record.updated(digests=files.without_weights(record.digests), weights_dropped=True))
        files.delete_weights(record.digests)


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
