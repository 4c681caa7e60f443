"""`Predictions`: a model's logits on one split, sorted by sample id so that arms and seeds can be paired."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
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
        if self.groups is not None:
            object.__setattr__(self, "groups", np.ascontiguousarray(self.groups[order], dtype=np.int64))
        object.__setattr__(self, "sample_ids", np.ascontiguousarray(self.sample_ids[order], dtype=np.int64))
        object.__setattr__(self, "labels", np.ascontiguousarray(self.labels[order], dtype=np.int64))
        object.__setattr__(self, "logits", np.ascontiguousarray(self.logits[order], dtype=np.float32))
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
        return Predictions(
            sample_ids=self.sample_ids[chosen],
            labels=self.labels[chosen],
            logits=self.logits[chosen],
            split=self.split,
            groups=None if self.groups is None else self.groups[chosen],
        )

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
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {
            "sample_ids": self.sample_ids,
            "labels": self.labels,
            "logits": self.logits,
            "split": np.frombuffer(self.split.encode(), dtype=np.uint8),
        }
        if self.groups is not None:
            arrays["groups"] = self.groups
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, data: bytes) -> "Predictions":
        """Rebuild predictions from `to_npz`; an archive that contains pickles is refused with ValueError."""
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return cls(
                sample_ids=archive["sample_ids"],
                labels=archive["labels"],
                logits=archive["logits"],
                split=archive["split"].tobytes().decode(),
                groups=archive.get("groups"),
            )


def pool_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several models on different images of one split, such as folds, as those of one.

    Raises:
        UserInputError: If two parts have an image in common.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    groups = [part.groups for part in parts if part.groups is not None]
    return Predictions(
        sample_ids=np.concatenate([part.sample_ids for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        logits=np.concatenate([part.logits for part in parts]),
        split=first.split,
        groups=np.concatenate(groups) if groups else None,
    )
