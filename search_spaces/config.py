"""`TrialConfig`: all that determines the result of one trial, with a canonical JSON form and a fingerprint."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, PlainSerializer, TypeAdapter

from search_spaces.errors import UserInputError
from search_spaces.settings import BUILT_IN_LOOP, DEFAULTS

Value = float | int | str | bool
Values = Annotated[Mapping[str, Value], PlainSerializer(dict)]
Fold = Annotated[str, Field(pattern=r"^(\d+/[1-9]\d*)?$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """The configuration of one trial: immutable, and the same in memory and in files.

    Attributes:
        arm: Name of the arm (a level of the study's A/B factor, or "all" in a pooled study).
        seed: Determines the initialization of the head, shuffling and augmentation.
        hyperparameters: The values that the search varies. A conditional parameter that does not apply is absent.
        fold: Which part of the test images the trial is tested on, such as "2/3" for the second of three; it trains on all other
            images. "0/3" is tested on none of them. "" trains on the training split and is tested on the whole test split.
        fixed: The settings that all trials of the study share (image size, epochs, batch size, ...). In a study these are all
            of `search_spaces.settings`; of a configuration made by hand, those that are left out have their defaults.

    Raises:
        UserInputError: If a name occurs in both `hyperparameters` and `fixed`, or a fold is beyond its number.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    arm: str
    seed: int
    hyperparameters: Values
    fixed: Values
    fold: Fold = ""

    def __post_init__(self) -> None:
        overlap = set(self.hyperparameters) & set(self.fixed)
        if overlap:
            raise UserInputError(
                f"a name is either a hyperparameter or a fixed setting, but {sorted(overlap)} occur in both"
            )
        place, _, number = self.fold.partition("/")
        if place and number and int(place) > int(number):
            raise UserInputError(f"a fold is one of its number, such as 2/3, but got {self.fold!r}")
        object.__setattr__(self, "hyperparameters", MappingProxyType(dict(self.hyperparameters)))
        object.__setattr__(self, "fixed", MappingProxyType(dict(self.fixed)))

    def __getitem__(self, name: str) -> Value:
        """Return the hyperparameter or fixed setting `name`; raise UserInputError if there is neither."""
        for settings in (self.hyperparameters, self.fixed, DEFAULTS):
            if name in settings:
                return settings[name]
        raise UserInputError(f"the configuration of the arm {self.arm!r} has no value of {name!r}")

    def get(self, name: str, default: Value) -> Value:
        """Return the hyperparameter or fixed setting `name`, or `default` where it does not apply."""
        return self[name] if name in {**self.hyperparameters, **self.fixed, **DEFAULTS} else default

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

    def annealed_part(self, epoch: int) -> float:
        """Return how much of the schedule behind the peak of the learning rate is done after an epoch.

        Below 0 before the peak, 1 at the end; 0 everywhere if the peak is the last step. A custom loop has no peak.
        """
        peak = self.number("lr_peak_fraction" if self["schedule"] == "onecycle" else "warmup_fraction")
        peak = peak if self["trainable"] == BUILT_IN_LOOP else 0.0
        return (epoch / self.whole("max_epochs") - peak) / (1 - peak) if peak < 1 else 0.0

    def with_seed(self, seed: int) -> "TrialConfig":
        """Return the same configuration under another seed."""
        return replace(self, seed=seed)

    def with_fold(self, fold: str) -> "TrialConfig":
        """Return the same configuration on another fold."""
        return replace(self, fold=fold)

    def with_values(self, values: Mapping[str, Value]) -> "TrialConfig":
        """Return the configuration with other values, which are hyperparameters from now on."""
        fixed = {name: value for name, value in self.fixed.items() if name not in values}
        return replace(self, hyperparameters={**self.hyperparameters, **values}, fixed=fixed)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as nested plain dicts."""
        plain: dict[str, Any] = _ADAPTER.dump_python(self)
        return plain

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
        """Fingerprint without seed and fold: equal for trials that differ in these alone."""
        return replace(self, seed=0, fold="").fingerprint


def list_folds(number: int) -> tuple[str, ...]:
    """Return the names of `number` folds; one without a name for 0, which is no division into folds."""
    return tuple(f"{place}/{number}" for place in range(1, number + 1)) or ("",)


def name_whole(number: int) -> str:
    """Return the name of the trial that no fold is held out of: it trains on all images, and is tested on none."""
    return f"0/{number}"


_ADAPTER = TypeAdapter(TrialConfig)
