"""`RecordBook`: every trial record of a study, in memory and on disk, written by the one process that drives it."""

import os
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from study.paths import STAGE_FOLDERS, Stage, TrialPaths
from trainables.record import TrialRecord
from trainables.store import Store
from trainables.trial_files import TrialFiles


def now_utc() -> str:
    """Return the time in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class MemoryBook:
    """Every trial record of a study, in memory alone."""

    def __init__(self) -> None:
        self._records: dict[Stage, dict[str, TrialRecord]] = {stage: {} for stage in STAGE_FOLDERS}

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
        return record

    def drop_checkpoint(self, record: TrialRecord) -> None:
        """Delete the checkpoint of a trial that will not go on; in memory there is none."""


class RecordBook(MemoryBook):
    """Every trial record of a study, in memory and on disk."""

    def __init__(self, store: Store) -> None:
        """Read every record of the study below `store`; raise DamagedFileError naming one that is damaged."""
        super().__init__()
        self.store = store
        self._check_lease: Callable[[], None] | None = None
        self._writer = f"{platform.node()}:{os.getpid()}"
        for stage, folder in STAGE_FOLDERS.items():
            for trial_id in store.list_folder(folder):
                name = TrialPaths(stage=stage, trial_id=trial_id).record
                if store.exists(name):
                    record = TrialRecord.from_json(store.read_bytes(name), where=f"{store.root}/{name}")
                    super().save(record)

    def fence(self, check_lease: Callable[[], None], token: int) -> None:
        """Call `check_lease` before every write, and sign what is written with the lease's fencing token."""
        self._check_lease = check_lease
        self._writer = f"{platform.node()}:{os.getpid()}#{token}"

    def save(self, record: TrialRecord) -> TrialRecord:
        """Replace the record on disk, then in memory; return it with its writer.

        Raises StudyInterrupted if another driver holds the study's lease by now.
        """
        if self._check_lease is not None:
            self._check_lease()
        signed = record.updated(writer=self._writer)
        paths = TrialPaths(stage=signed.stage, trial_id=signed.trial_id)
        self.store.write_text(paths.record, signed.to_json())
        return super().save(signed)

    def drop_checkpoint(self, record: TrialRecord) -> None:
        """Delete the checkpoint of a trial that will not go on."""
        folder = TrialPaths(stage=record.stage, trial_id=record.trial_id).folder
        TrialFiles(self.store.child(folder)).delete_checkpoint()
