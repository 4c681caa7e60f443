"""`Predictions`: a model's logits on one split, sorted by sample id so that arms and seeds can be paired."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from search_spaces.errors import UserInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Logits of one trial on one split; constructed in any order, held by ascending sample id.

    Attributes:
        sample_ids: (N,) int64, strictly increasing.
        labels: (N,) int64 in [0, K).
        logits: (N, K) float32, finite.
        split: Name of the split ("search", "confirm" or "test").
        groups: (N,) int64, number of the group of each image; None where images are independent.

    Raises:
        UserInputError: If the shapes do not match, ids repeat, logits are not finite, or labels are out of range.
    """

    sample_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    split: str
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.sample_ids)
        if self.logits.ndim != 2 or len(self.logits) != n or len(self.labels) != n:
            raise UserInputError(
                f"predictions on {self.split!r} need ids (N,), labels (N,) and logits (N, K), but got "
                f"{self.sample_ids.shape}, {self.labels.shape}, {self.logits.shape}"
            )
        if self.groups is not None and self.groups.shape != (n,):
            raise UserInputError(
                f"predictions on {self.split!r} need groups (N,), but got {self.groups.shape} for {n} images"
            )
        order = np.argsort(self.sample_ids, kind="stable")
        for name, values in self._arrays.items():
            dtype = np.float32 if name == "logits" else np.int64
            object.__setattr__(self, name, np.ascontiguousarray(values[order], dtype=dtype))
        if n and bool(np.any(np.diff(self.sample_ids) <= 0)):
            raise UserInputError(f"sample ids on {self.split!r} must be unique")
        if not np.isfinite(self.logits).all():
            raise UserInputError(f"logits on {self.split!r} must be finite, but hold NaN or inf")
        if n and (self.labels.min() < 0 or self.labels.max() >= self.logits.shape[1]):
            raise UserInputError(
                f"labels on {self.split!r} must be in [0, {self.logits.shape[1]}), "
                f"but range from {self.labels.min()} to {self.labels.max()}"
            )

    def take(self, chosen: NDArray[np.bool_]) -> "Predictions":
        """Return the predictions of the images that are chosen, (N,) bool."""
        return replace(self, **{name: values[chosen] for name, values in self._arrays.items()})

    @property
    def _arrays(self) -> dict[str, Any]:
        """The arrays by the names of their fields; without groups where images are independent."""
        arrays = {name: getattr(self, name) for name in ("sample_ids", "labels", "logits", "groups")}
        return {name: values for name, values in arrays.items() if values is not None}

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) int64, class of the highest logit."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, K) float64, softmax of the logits."""
        return np.asarray(softmax(self.logits.astype(np.float64), axis=1))

    def to_npz(self) -> bytes:
        """Return an npz archive without pickles."""
        buffer, arrays = io.BytesIO(), self._arrays
        groups: dict[str, Any] = {"groups": arrays.pop("groups")} if self.groups is not None else {}
        np.savez(buffer, **arrays, split=np.frombuffer(self.split.encode(), dtype=np.uint8), **groups)
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, data: bytes) -> "Predictions":
        """Rebuild predictions from `to_npz`; an archive that contains pickles is refused with ValueError."""
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return cls(**{**archive, "split": archive["split"].tobytes().decode()})


def pool_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several models on different images of one split, such as folds, as those of one.

    Raises:
        UserInputError: If two parts have an image in common.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    held = [part._arrays for part in parts]
    pooled: dict[str, Any] = {name: np.concatenate([arrays[name] for arrays in held]) for name in held[0]}
    return replace(first, **pooled)
