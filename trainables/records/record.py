"""`TrialRecord`: the truth about one trial. The state of a study is a function of its records alone."""

import hashlib
import json
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search_spaces.config import TrialConfig, Value
from trainables.damaged_files import DamagedFileError

RECORD = "record.json"
RECORD_COPY = "record.copy.json"


class TrialState(StrEnum):
    """Where a trial stands."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"

    @property
    def is_finished(self) -> bool:
        """Whether the trial will never run again."""
        return self is not TrialState.RUNNING


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ConfigModel(_Strict):
    """`TrialConfig` as it stands in a file."""

    arm: str
    seed: int
    hyperparameters: dict[str, float | int | str | bool]
    fixed: dict[str, float | int | str | bool]

    def to_config(self) -> TrialConfig:
        """Return the value used inside the product."""
        return TrialConfig(arm=self.arm, seed=self.seed, hyperparameters=self.hyperparameters, fixed=self.fixed)


class EpochRecord(_Strict):
    """One epoch as reported, with the order in which the study heard of it.

    A non-finite number stands as null; `device_seconds` is what the trial had spent until then, all its epochs together;
    `decision` is what the scheduler answered; `part_seconds` are pairs of a part and its seconds, none without `profile`.
    """

    epoch: int
    train_loss: float | None
    search_loss: float | None
    macro_f1: float | None
    per_class_f1: tuple[float | None, ...]
    head_lr: float
    backbone_lr: float
    train_seconds: float
    evaluate_seconds: float
    train_images_per_second: float
    peak_memory_bytes: int
    part_seconds: tuple[tuple[str, float], ...] = ()
    device_seconds: float
    order: int
    decision: Literal["continue", "stop"]


class TrialRecord(_Strict):
    """One trial, as its record.json holds it.

    Attributes:
        trial_id: zero-padded id, the name of the trial's folder.
        stage: "search", "confirmation" or "intervention".
        config: everything that determines the trial.
        fingerprint: of `config` as the study suggested it; `is_altered` says whether `config` still has it.
        state: where it stands; `reason` says why it failed or was pruned.
        suggested_order: when the study asked for it, on the same counter as the epochs' `order`.
        epochs: every epoch reported, first to last.
        device_seconds: seconds of training and evaluation x devices held.
        devices_per_trial: number of devices (GPUs, or CPU cores where it holds no GPU).
        device: name of the device.
        node: host and Ray node on which the last epoch ran.
        num_parameters: trainable parameters of the model; 0 until it is built.
        num_threads: CPU threads that the trial computed with.
        attempts: how often the trial was started; `retry_causes` has one entry per start that broke off with an error.
        confirm_macro_f1: on the confirm split at the end; only in confirmation trials.
        source_trial_id: the search trial whose configuration a confirmation trial repeats.
        predictions: splits whose predictions are stored in best/.
        digests: SHA-256 (hex) of the files stored in best/, by their names below the trial's folder.
        notes: what befell the trial beside broken-off starts, such as a damaged checkpoint.
        diverged: it failed because macro-F1 or the training loss was not a finite number.
        started, ended: ISO 8601, UTC; `ended_order` is on the counter of `suggested_order`.
        writer: host, process and fencing token of the driver that wrote the record last.
    """

    version: Literal[1] = 1
    trial_id: str
    stage: Literal["search", "confirmation", "intervention"]
    config: ConfigModel
    fingerprint: str
    state: TrialState = Field(strict=False)
    reason: str = ""
    suggested_order: int
    epochs: tuple[EpochRecord, ...] = ()
    device_seconds: float = 0.0
    devices_per_trial: float = 1.0
    device: str = ""
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
    started: str = ""
    ended: str = ""
    ended_order: int | None = None
    writer: str = ""

    @property
    def last_macro_f1(self) -> float | None:
        """Macro-F1 on the search split at the last epoch reported; None if there is none or it is not finite."""
        return self.epochs[-1].macro_f1 if self.epochs else None

    @property
    def is_altered(self) -> bool:
        """Whether somebody changed the configuration after the study wrote it."""
        return self.trial_config().fingerprint != self.fingerprint

    def trial_config(self) -> TrialConfig:
        """Return the trial's configuration."""
        return self.config.to_config()

    def updated(self, **changes: Any) -> "TrialRecord":
        """Return a copy with `changes`, validated."""
        return TrialRecord.model_validate({**dict(self), **changes})

    def to_json(self) -> str:
        """Return record.json's text: the fields, and a checksum over all but `config`, which has its fingerprint."""
        body = self.model_dump(mode="json")
        return json.dumps({**body, "checksum": compute_checksum(body)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> "TrialRecord":
        """Rebuild from record.json's text.

        A changed `config` is not refused: `is_altered` says it. Raises DamagedFileError, naming `where`, if it is no
        valid record or anything else in it has changed since it was written.
        """
        try:
            body: dict[str, Any] = json.loads(text)
            checksum = body.pop("checksum", "")
            record = cls.model_validate_json(json.dumps(body))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(p) for p in first["loc"]) or "the file"
            raise DamagedFileError(f"{where} is damaged: {place}: {first['msg']}") from None
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise DamagedFileError(f"{where} is damaged: {error}") from None
        if checksum != compute_checksum(body):
            raise DamagedFileError(f"{where} is damaged: its content does not match its checksum")
        return record


def compute_checksum(body: dict[str, Any]) -> str:
    """Return 32 hex digits of SHA-256 over the record's canonical JSON without its `config`."""
    canonical = json.dumps({k: v for k, v in body.items() if k != "config"}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def config_model(config: TrialConfig) -> ConfigModel:
    """Return `config` in the form that a record holds."""
    hyperparameters: dict[str, Value] = dict(config.hyperparameters)
    return ConfigModel(arm=config.arm, seed=config.seed, hyperparameters=hyperparameters, fixed=dict(config.fixed))
