"""`RecordBook`: every trial record of a study, in memory and on disk, written by the one process that drives it."""

import os
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from study.state.paths import STAGE_FOLDERS, Stage, TrialPaths
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord
from trainables.records.store import Store
from trainables.records.trial_files import TrialFiles


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
        """Read every record of the study below `store`.

        A damaged or missing record is taken from its copy, and named in `recovered`. Raises DamagedFileError naming a
        record that is damaged and whose copy cannot help.
        """
        super().__init__()
        self.store = store
        self.recovered: tuple[str, ...] = ()
        self._recovered_records: list[TrialRecord] = []
        self._check_lease: Callable[[], None] | None = None
        self._writer = f"{platform.node()}:{os.getpid()}"
        for stage, folder in STAGE_FOLDERS.items():
            for trial_id in store.list_folder(folder):
                paths = TrialPaths(stage=stage, trial_id=trial_id)
                if store.exists(paths.record) or store.exists(paths.record_copy):
                    super().save(self._read(paths))

    def fence(self, check_lease: Callable[[], None], token: int) -> None:
        """Take up writing under a lease, and write again what was recovered from copies.

        `check_lease` is called before every write; what is written is signed with the lease's fencing token.
        """
        self._check_lease = check_lease
        self._writer = f"{platform.node()}:{os.getpid()}#{token}"
        for record in self._recovered_records:
            self.save(record)

    def save(self, record: TrialRecord) -> TrialRecord:
        """Replace the record on disk, then in memory; return it with its writer.

        Raises StudyInterrupted if another driver holds the study's lease by now.
        """
        if self._check_lease is not None:
            self._check_lease()
        signed = record.updated(writer=self._writer)
        paths = TrialPaths(stage=signed.stage, trial_id=signed.trial_id)
        text = signed.to_json()
        self.store.write_text(paths.record, text)
        self.store.write_text(paths.record_copy, text)
        return super().save(signed)

    def _read(self, paths: TrialPaths) -> TrialRecord:
        try:
            return self._parse(paths.record)
        except (DamagedFileError, FileNotFoundError) as damage:
            problem = (
                str(damage) if isinstance(damage, DamagedFileError) else f"{self.store.root}/{paths.record} is missing"
            )
            try:
                record = self._parse(paths.record_copy)
            except (DamagedFileError, FileNotFoundError):
                raise DamagedFileError(
                    f"{problem}, and so is its copy; move the trial's folder away to go on without it"
                ) from None
        self.recovered = (*self.recovered, f"{problem}; it was recovered from its copy")
        self._recovered_records.append(record)
        return record

    def _parse(self, name: str) -> TrialRecord:
        return TrialRecord.from_json(self.store.read_bytes(name), where=f"{self.store.root}/{name}")

    def drop_checkpoint(self, record: TrialRecord) -> None:
        """Delete the checkpoint of a trial that will not go on."""
        folder = TrialPaths(stage=record.stage, trial_id=record.trial_id).folder
        TrialFiles(self.store.child(folder)).delete_checkpoint()
