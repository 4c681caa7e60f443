"""`TrialConfig`: all that determines the result of one trial, with a canonical JSON form and a fingerprint."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, PlainSerializer, TypeAdapter

from search_spaces.errors import UserInputError

Value = float | int | str | bool
# `trainable` of a configuration that the product's own training loop trains.
BUILT_IN_LOOP = "network"
# Settings that were added after studies had been stored, each with the value that stands for the behavior before it. A
# configuration with that value does not hold the setting, so that the fingerprints of earlier studies remain valid.
EARLIER_BEHAVIOR: dict[str, Value] = {
    "head_precision": "as_backbone",
    "crop_min_area": 1.0,
    "crop_max_ratio": 4 / 3,
    "model_arguments": "{}",
    "freeze_depth": 0,
    "layer_decay": 1.0,
    "layer_rule": "blocks",
    "augmentation": "default",
    "crop_padding": 0,
    "crop_padding_mode": "reflect",
    "trivial_augment": False,
    "contrast_fraction": 0.0,
    "saturation_fraction": 0.0,
    "hue_fraction": 0.0,
    "erase_probability": 0.0,
    "mixup_probability": 0.0,
    "mixup_alpha": 0.2,
    "ring_swap_probability": 0.0,
    "hard_group": "",
    "hard_fraction": 0.0,
    "hard_from_epoch": 1,
    "leave_out": "",
    "optimizer": "sgd",
    "schedule": "onecycle",
    "warmup_fraction": 0.05,
    "ema_decay": 0.0,
    "clip_norm": 0.0,
    "accumulate": 1,
    "processes": 1,
    "tf32": False,
    "deterministic": True,
    "trainable": BUILT_IN_LOOP,
}

Values = Annotated[Mapping[str, Value], PlainSerializer(dict)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """The configuration of one trial: immutable, and the same in memory and in files.

    Attributes:
        arm: Name of the arm (a level of the study's A/B factor, or "all" in a pooled study).
        seed: Determines the initialization of the head, shuffling and augmentation.
        hyperparameters: The values that the search varies. A conditional parameter that does not apply is absent.
        fixed: The settings that all trials of the study share (image size, epochs, batch size, ...), without those of
            `EARLIER_BEHAVIOR` that have the value given there.

    Raises:
        UserInputError: If a name occurs in both `hyperparameters` and `fixed`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    arm: str
    seed: int
    hyperparameters: Values
    fixed: Values

    def __post_init__(self) -> None:
        overlap = set(self.hyperparameters) & set(self.fixed)
        if overlap:
            raise UserInputError(
                f"a name is either a hyperparameter or a fixed setting, but {sorted(overlap)} occur in both"
            )
        object.__setattr__(self, "hyperparameters", MappingProxyType(dict(self.hyperparameters)))
        fixed = {k: v for k, v in self.fixed.items() if k not in EARLIER_BEHAVIOR or EARLIER_BEHAVIOR[k] != v}
        object.__setattr__(self, "fixed", MappingProxyType(fixed))

    def __getitem__(self, name: str) -> Value:
        """Return the hyperparameter or fixed setting `name`; raise UserInputError if there is neither."""
        if name in self.hyperparameters:
            return self.hyperparameters[name]
        for settings in (self.fixed, EARLIER_BEHAVIOR):
            if name in settings:
                return settings[name]
        raise UserInputError(f"the configuration of the arm {self.arm!r} has no value of {name!r}")

    def get(self, name: str, default: Value) -> Value:
        """Return the hyperparameter or fixed setting `name`, or `default` where it does not apply."""
        is_set = name in self.hyperparameters or name in self.fixed or name in EARLIER_BEHAVIOR
        return self[name] if is_set else default

    def number(self, name: str) -> float:
        """Return `name` as a float; raise UserInputError if it is not a number."""
        value = self[name]
        if isinstance(value, str):
            raise UserInputError(f"{name} must be a number, but got {value[:40]!r}")
        return float(value)

    def whole(self, name: str) -> int:
        """Return `name` as an int; raise UserInputError if it is not a whole number."""
        number = self.number(name)
        if not number.is_integer():
            raise UserInputError(f"{name} must be a whole number, but got {number:g}")
        return int(number)

    def word(self, name: str) -> str:
        """Return `name` as a str."""
        return str(self[name])

    def with_seed(self, seed: int) -> "TrialConfig":
        """Return the same configuration under another seed."""
        return replace(self, seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as nested plain dicts."""
        return {
            "arm": self.arm,
            "seed": self.seed,
            "hyperparameters": dict(self.hyperparameters),
            "fixed": dict(self.fixed),
        }

    @classmethod
    def from_json(cls, text: str) -> "TrialConfig":
        """Rebuild a configuration from the JSON text of `to_dict`.

        Raises:
            pydantic.ValidationError: On a missing or unknown key, or a value of another type.
        """
        return _ADAPTER.validate_json(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return TrialConfig.from_json, (json.dumps(self.to_dict()),)

    def canonical_json(self) -> str:
        """Return the unique JSON text of this configuration: sorted keys, no spaces, shortest float form."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of SHA-256 over the canonical JSON. Trials with equal fingerprints are equal."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:16]

    @property
    def configuration_fingerprint(self) -> str:
        """Fingerprint without the seed: equal for trials that differ in their seed alone."""
        return self.with_seed(0).fingerprint


_ADAPTER = TypeAdapter(TrialConfig)
