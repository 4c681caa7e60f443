"""The images that an arm's models classify wrongly, from which the root cause chooses confused images and references."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.audits.ring_swaps import Images
from analysis.statistics.metrics import FloatArray, IntArray

# Return (S, n, K) logits of the arm's S models for (n, H, W, 3) images.
ComputeLogits = Callable[[Images], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedClasses:
    """Two classes that are confused: images of `one` predicted as `other`, and unless `is_directed` those of `other` as `one`."""

    one: int
    other: int
    is_directed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseModels:
    """The models of an arm: those whose errors choose the images, and those that measure (`split_seeds`).

    Attributes:
        sample_ids: (N,) indices of the images that may be used.
        selecting: (A, N, K) logits of the models that choose.
        measuring: (B, N, K) logits of the models that measure.
        compute_logits: of the B models that measure.
        are_own_errors: whether the same model chooses and measures.
    """

    sample_ids: IntArray
    selecting: FloatArray
    measuring: FloatArray
    compute_logits: ComputeLogits
    are_own_errors: bool


def split_seeds(num_seeds: int) -> tuple[slice, slice]:
    """Return which seeds choose the images, the first third, and which measure, the others; one alone does both."""
    third = max(num_seeds // 3, 1)
    return slice(third), slice(third if num_seeds > 1 else 0, num_seeds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Images that the selecting seeds classify wrongly.

    Attributes:
        images: (n,) sample ids.
        true, predicted: (n,) their class, and the one that at least half of the selecting seeds predict instead.
        margins: (n,) mean over the selecting seeds.
        measured: (n,) mean over the measuring seeds.
    """

    images: IntArray
    true: IntArray
    predicted: IntArray
    margins: FloatArray
    measured: FloatArray

    def take(self, chosen: IntArray | NDArray[np.bool_]) -> "Errors":
        """Return some of the errors."""
        return Errors(**{name: values[chosen] for name, values in self._arrays().items()})

    def join(self, other: "Errors") -> "Errors":
        """Return these errors and then the others."""
        others = other._arrays()
        return Errors(**{name: np.concatenate([values, others[name]]) for name, values in self._arrays().items()})

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def find_errors(models: CauseModels, labels: IntArray) -> Errors:
    """Return the images to which at least half of the selecting models give the same wrong class; (N,) labels."""
    votes = np.eye(models.selecting.shape[2])[models.selecting.argmax(axis=2)].mean(axis=0)
    votes[np.arange(len(labels)), labels] = 0
    wrong = np.flatnonzero(votes.max(axis=1) >= 0.5)
    true, predicted, n = labels[wrong], votes[wrong].argmax(axis=1), np.arange(len(wrong))
    before, after = (logits[:, wrong].mean(axis=0) for logits in (models.selecting, models.measuring))
    return Errors(
        images=models.sample_ids[wrong],
        true=true,
        predicted=predicted,
        margins=before[n, true] - before[n, predicted],
        measured=after[n, true] - after[n, predicted],
    )
