"""`TrialConfig`: everything that determines one trial, with a canonical JSON form and a fingerprint."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from search_spaces.errors import UserInputError

Value = float | int | str | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """One trial, as data.

    Attributes:
        arm: name of the arm (a level of the study's A/B factor, or "all" in a pooled study).
        seed: determines initialisation of the head, shuffling and augmentation.
        hyperparameters: what the search varies; a conditional parameter that does not apply is absent.
        fixed: what is the same for every trial of the study (image size, epochs, batch size, ...).
    """

    arm: str
    seed: int
    hyperparameters: Mapping[str, Value]
    fixed: Mapping[str, Value]

    def __post_init__(self) -> None:
        overlap = set(self.hyperparameters) & set(self.fixed)
        if overlap:
            raise UserInputError(f"a name is either a hyperparameter or fixed, but both hold {sorted(overlap)}")
        object.__setattr__(self, "hyperparameters", MappingProxyType(dict(self.hyperparameters)))
        object.__setattr__(self, "fixed", MappingProxyType(dict(self.fixed)))

    def __getitem__(self, name: str) -> Value:
        """Return the hyperparameter or fixed setting `name`; raise UserInputError if the config has neither."""
        if name in self.hyperparameters:
            return self.hyperparameters[name]
        if name not in self.fixed:
            raise UserInputError(f"the configuration of the arm {self.arm!r} has no {name!r}")
        return self.fixed[name]

    def get(self, name: str, default: Value) -> Value:
        """Return the hyperparameter or fixed setting `name`, or `default` where it does not apply."""
        return self[name] if name in self.hyperparameters or name in self.fixed else default

    def number(self, name: str) -> float:
        """Return `name` as a float; raise UserInputError if it is no number."""
        value = self[name]
        if isinstance(value, str):
            raise UserInputError(f"{name} must be a number, but got {value[:40]!r}")
        return float(value)

    def whole(self, name: str) -> int:
        """Return `name` as an int; raise UserInputError if it is no whole number."""
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
        """Return the JSON form as plain dicts, keys sorted."""
        return {
            "arm": self.arm,
            "fixed": dict(sorted(self.fixed.items())),
            "hyperparameters": dict(sorted(self.hyperparameters.items())),
            "seed": self.seed,
        }

    def canonical_json(self) -> str:
        """Return the one JSON text of this configuration: sorted keys, no spaces, shortest float form."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of SHA-256 over the canonical JSON; equal fingerprints are the same experiment."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:16]

    @property
    def configuration_fingerprint(self) -> str:
        """Fingerprint without the seed: equal for trials that differ only in their seed."""
        return self.with_seed(0).fingerprint

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TrialConfig":
        """Rebuild from `to_dict`'s form; raise UserInputError on missing or unknown keys."""
        expected = {"arm", "fixed", "hyperparameters", "seed"}
        if set(data) != expected:
            raise UserInputError(f"a trial configuration has the keys {sorted(expected)}, but got {sorted(data)}")
        return cls(
            arm=str(data["arm"]),
            seed=int(data["seed"]),
            hyperparameters=data["hyperparameters"],
            fixed=data["fixed"],
        )
