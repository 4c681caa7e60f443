"""`TrialRecord`: the authoritative state of one trial, and how records rank. A study's state follows from its records alone."""

import hashlib
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json, to_json

from search_spaces.config import TrialConfig
from search_spaces.format import FORMAT, check_format
from trainables.damaged_files import DamagedFileError, decoding
from trainables.training.epoch_metrics import EpochMetrics

RECORD = "record.json"
RECORD_COPY = "record.copy.json"


class TrialState(StrEnum):
    """State of a trial."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"

    @property
    def is_finished(self) -> bool:
        """Whether the trial has ended."""
        return self is not TrialState.RUNNING


class EpochRecord(EpochMetrics):
    """One epoch as the study recorded it; `per_class_f1` is empty but in the last one, and TensorBoard's events have them all.

    Attributes:
        device_seconds: Device-seconds that the trial had spent by then, all its epochs together.
        order: Position of the report on the study's event counter.
        decision: Answer of the scheduler.
    """

    device_seconds: float
    order: int
    decision: Literal["continue", "stop"]


class EpochReport(BaseModel):
    """One epoch as the process of its trial reports it, and what only that process knows of the trial.

    Attributes:
        metrics: The epoch's measurements.
        device_seconds: Device-seconds that this attempt spent since its last report, set-up and checkpoint included.

    The others are fields of `TrialRecord`; one that is not set keeps its value there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    metrics: EpochMetrics
    device_seconds: float
    devices_per_trial: float = 1.0
    device: str = ""
    libraries: str = ""
    images_on: str = ""
    node: str = ""
    num_parameters: int = 0
    num_threads: int = 0
    confirm_macro_f1: float | None = None
    predictions: tuple[str, ...] = ()
    digests: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    last_finite_epoch: int | None = None

    def list_changes(self) -> dict[str, Any]:
        """Return the fields of the trial's record that this report sets."""
        return self.model_dump(exclude={"metrics", "device_seconds"}, exclude_unset=True)


class TrialRecord(BaseModel):
    """One trial, as record.json holds it.

    Attributes:
        format: Format of the study's files.
        trial_id: Zero-padded id, the name of the trial's folder.
        stage: "search", "confirmation" or "intervention".
        config: The trial's configuration, which determines its result.
        fingerprint: Fingerprint of `config` as the study suggested it. `is_altered` compares the two.
        state: State of the trial.
        reason: Why the trial failed or was pruned.
        suggested_order: Position of the suggestion on the study's event counter, which the epochs' `order` shares.
        epochs: Every reported epoch, first to last.
        device_seconds: Seconds of training and evaluation x devices held.
        devices_per_trial: Number of devices (GPUs, or CPU cores if the trial holds no GPU).
        device: Name of the device.
        libraries: Versions of the libraries that computed, see `trainables.devices.describe_libraries`.
        images_on: Where the images were: "streamed", or "device" or "host" for a trial on a GPU; "" in the memory of a CPU.
        node: Host and Ray node on which the last epoch ran.
        num_parameters: Trainable parameters of the model; 0 until it is built.
        num_threads: CPU threads that the trial computed with.
        attempts: Number of attempts: 1, plus 1 for each time that the trial was started again.
        retry_causes: Error of each attempt that failed.
        confirm_macro_f1: Macro-F1 on the confirm split at the end; only in confirmation trials.
        source_trial_id: Search trial whose configuration a confirmation trial repeats; "" in the search.
        predictions: Splits whose predictions are stored.
        digests: SHA-256 (hex) of the stored weights and predictions, by their paths below the trial's folder.
        notes: Other events, such as a damaged checkpoint.
        diverged: Whether the trial failed because macro-F1 or the training loss was not a finite number.
        last_finite_epoch: Epoch whose weights are stored for a confirmation trial that diverged; 0 if it had no finite epoch;
            None for every other trial.
        weights_dropped: Whether the weights were deleted because the trial could not be chosen any more (`search.keep_weights`).
        started: ISO 8601, UTC.
        ended: ISO 8601, UTC; "" while the trial is running.
        ended_order: Position of the end on the study's event counter.
        writer: Host, process and fencing token of the driver that last wrote the record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    format: int = FORMAT
    trial_id: str
    stage: Literal["search", "confirmation", "intervention"]
    config: TrialConfig
    fingerprint: str
    state: TrialState = Field(strict=False)
    reason: str = ""
    suggested_order: int
    epochs: tuple[EpochRecord, ...] = ()
    device_seconds: float = 0.0
    devices_per_trial: float = 1.0
    device: str = ""
    libraries: str = ""
    images_on: str = ""
    node: str = ""
    num_parameters: int = 0
    num_threads: int = 0
    attempts: int = 1
    retry_causes: tuple[str, ...] = ()
    confirm_macro_f1: float | None = None
    source_trial_id: str = ""
    predictions: tuple[str, ...] = ()
    digests: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    diverged: bool = False
    last_finite_epoch: int | None = None
    weights_dropped: bool = False
    started: str = ""
    ended: str = ""
    ended_order: int | None = None
    writer: str = ""

    @property
    def last_macro_f1(self) -> float | None:
        """Macro-F1 on the search split at the last reported epoch; None if there is none or it is not finite."""
        return self.epochs[-1].macro_f1 if self.epochs else None

    @property
    def is_altered(self) -> bool:
        """Whether the configuration was changed after the study wrote it."""
        return self.config.fingerprint != self.fingerprint

    def updated(self, **changes: Any) -> "TrialRecord":
        """Return a validated copy with `changes`."""
        return TrialRecord.model_validate({**dict(self), **changes})

    def to_json(self) -> str:
        """Return the text of record.json: the fields, and a checksum over all but `config`, which has its fingerprint."""
        body = self.model_dump(mode="json")
        # With lines, Python's own encoder takes five times as long.
        return to_json({**body, "checksum": compute_checksum(body)}, indent=1, ensure_ascii=True).decode() + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> "TrialRecord":
        """Rebuild a record from the text of record.json.

        A record whose `config` alone was changed is accepted; `is_altered` is then true.

        Args:
            text: Content of the file.
            where: Path or URI of the file, for messages.

        Raises:
            DamagedFileError: If it is not a valid record, or if any other part has changed since it was written.
            UserInputError: If it has another format.
        """
        body = read_body(text, where=where)
        with decoding(where):
            return cls.model_validate_json(to_json(body))


def read_body(text: str | bytes, *, where: str) -> dict[str, Any]:
    """Return the fields of record.json as they are written, without the checksum; see `TrialRecord.from_json`."""
    with decoding(where):
        body: dict[str, Any] = from_json(text)
        is_whole = body.pop("checksum", "") == compute_checksum(body)
    if not is_whole:
        raise DamagedFileError(f"{where} is damaged: its content does not match its checksum")
    check_format(body.get("format"), where)
    return body


def compute_checksum(body: dict[str, Any]) -> str:
    """Return 32 hex digits of SHA-256 over the record's canonical JSON without its `config`."""
    canonical = json.dumps({k: v for k, v in body.items() if k != "config"}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def ran_every_epoch(record: TrialRecord) -> bool:
    """Return whether the trial is COMPLETE and reported a finite macro-F1 at the last epoch of its configuration."""
    return (
        record.state is TrialState.COMPLETE
        and record.last_macro_f1 is not None
        and record.epochs[-1].epoch == record.config.whole("max_epochs")
    )


def best_trials(records: Sequence[TrialRecord], arm: str | None) -> tuple[TrialRecord, ...]:
    """Return the trials that ran every epoch, the best first.

    Trials rank by macro-F1 on the search split at the last epoch, highest first; ties go to the smallest trial id.

    Args:
        records: of one stage.
        arm: whose trials are ranked; None ranks those of all arms together.
    """
    full = [r for r in records if arm in (None, r.config.arm) and ran_every_epoch(r)]
    return tuple(sorted(full, key=lambda r: (-(r.last_macro_f1 or 0.0), r.trial_id)))
