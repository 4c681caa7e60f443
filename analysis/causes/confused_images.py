"""Confused images and their references: errors of other classes that are as deep, with contrasts adjusted for the rest.

A network that loses any useful cue moves all its margins towards 0, those below 0 upwards. So confused images are compared
with other errors of the same margin, never with images that are classified correctly. Images are chosen by the margins of some
seeds and measured on others, where both groups regress to their own mean; they are matched on the margin that is to be
expected there. What difference is left is removed by regression on the margin (the bias correction of Abadie and Imbens 2011,
J. Bus. Econ. Stat. 29:1). Its slope is estimated with the margins of the selecting seeds as an instrument, because a margin
that happens to be low on the measuring seeds raises the effects on these seeds as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from analysis.statistics.families import Cell
from analysis.statistics.metrics import BoolArray, FloatArray, IntArray

# Return (S, n, K) logits of the arm's S models for (n, H, W, 3) images. With a second argument, (n,) folds, they are of the model
# of each image's fold alone, and S is 1.
ComputeLogits = Callable[..., FloatArray]


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


class Errors(NamedTuple):
    """Images that the selecting seeds classify wrongly.

    Attributes:
        images: (n,) sample ids.
        true: (n,) their class.
        predicted: (n,) the class that at least half of the selecting seeds predict instead.
        margins: (n,) mean over the selecting seeds.
        measured: (n,) mean over the measuring seeds.
    """

    images: IntArray
    true: IntArray
    predicted: IntArray
    margins: FloatArray
    measured: FloatArray

    def take(self, chosen: IntArray | BoolArray) -> "Errors":
        """Return some of the errors."""
        parts: list[NDArray[Any]] = [values[chosen] for values in self]
        return Errors(*parts)

    def join(self, other: "Errors") -> "Errors":
        """Return these errors and then the others."""
        return Errors(*(np.concatenate(both) for both in zip(self, other, strict=True)))


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


# Widest difference of the expected margins of a match, in standard deviations (`pool_deviation`).
CALIPER = 0.25
MAX_MATCHES = 3
# The margins of the selecting seeds predict those of the measuring seeds with at least this slope.
MIN_RELIABILITY = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Confused images and their references.

    Attributes:
        confused: (n,) indices of the confused images that have a match.
        references: (m,) indices of the matched candidates.
        weights: (n + m,) 1/n for each confused image, and -1/n for each confused image shared among its references.
    """

    confused: IntArray
    references: IntArray
    weights: FloatArray


def expect_margins(selecting: FloatArray, measured: FloatArray) -> FloatArray:
    """Return the margins that are to be expected on the measuring seeds, by regression on those of the selecting seeds.

    Args:
        selecting: (n,) margins of one group of images.
        measured: (n,) margins of the same images on the measuring seeds.
    """
    if len(selecting) < 2 or np.ptp(selecting) == 0:
        return np.full(len(selecting), measured.mean() if len(measured) else 0.0)
    return np.asarray(np.polynomial.Polynomial.fit(selecting, measured, 1)(selecting), dtype=np.float64)


def pool_deviation(confused: FloatArray, candidates: FloatArray) -> float:
    """Return the standard deviation of the margins before matching (Stuart 2010, Stat. Sci. 25:1), pooled over both groups."""
    groups = [margins for margins in (confused, candidates) if len(margins) > 1]
    return float(np.sqrt(np.mean([margins.var(ddof=1) for margins in groups]))) if groups else 0.0


def match_references(confused: FloatArray, candidates: FloatArray, deviation: float, most: int) -> Matches:
    """Return up to `MAX_MATCHES` candidates for each confused image, with the smallest total difference and none used twice.

    Args:
        confused: (C,) expected margins of the confused images.
        candidates: (R,) expected margins of other errors.
        deviation: of the margins, from `pool_deviation`.
        most: references that are wanted in all; each confused image that can have one gets one.
    """
    owners: list[IntArray] = []
    found: list[IntArray] = []
    rows, columns = np.arange(len(confused)), np.arange(len(candidates))
    for turn in range(MAX_MATCHES):
        if not len(rows) or not len(columns) or (turn and len(rows) * (turn + 1) > most):
            break
        distance = np.abs(confused[rows][:, None] - candidates[columns])
        is_near = distance <= CALIPER * deviation
        # A pair outside the caliper costs more than all pairs inside together.
        one, other = linear_sum_assignment(np.where(is_near, distance, CALIPER * deviation * (len(rows) + 1) + 1))
        one, other = one[is_near[one, other]], other[is_near[one, other]]
        owners.append(rows[one])
        found.append(columns[other])
        rows, columns = np.sort(rows[one]), np.delete(columns, other)
    owner, reference = (np.concatenate(parts) if parts else np.empty(0, dtype=np.int64) for parts in (owners, found))
    kept, inverse, counts = np.unique(owner, return_inverse=True, return_counts=True)
    weights = np.concatenate([np.full(len(kept), 1.0), -1.0 / counts[inverse]]) / max(len(kept), 1)
    return Matches(confused=kept, references=reference, weights=weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedMargins:
    """Margins of confused images and references.

    Attributes:
        margins: (S, n) on the measuring seeds.
        instrument: (n,) on the selecting seeds.
        weights: (n,) as in `Matches`.
        groups: (n,) number of each image's group; None where images are independent.
    """

    margins: FloatArray
    instrument: FloatArray
    weights: FloatArray
    groups: IntArray | None = None

    @property
    def difference(self) -> float:
        """Mean margin of the confused images minus that of the references on the measuring seeds."""
        return float(self.margins.mean(axis=0) @ self.weights)

    def contrast(self, effects: FloatArray) -> Cell:
        """Return the cell of the effect on the confused images minus that on the references, at equal margins.

        Args:
            effects: (S, n) per measuring seed and image.
        """
        share, centered = np.abs(self.weights), self._center(self.instrument[None])[0]
        reliability = float(share * centered @ self.margins.mean(axis=0))
        strength = max(reliability, MIN_RELIABILITY * float(share @ centered**2))
        slope = float(share * centered @ effects.mean(axis=0)) / strength if strength > 0 else 0.0
        rest = effects - slope * self.margins
        values, differences = rest @ self.weights, self.margins @ self.weights
        rest = self._center(rest)
        influence = len(self.weights) * self.weights * rest
        if strength > 0:
            of_slope = len(self.weights) * share * centered * rest.mean(axis=0) / strength
            influence = influence - differences[:, None] * of_slope
        labels = np.asarray(self.weights < 0, dtype=np.int64)
        return Cell(values=values, influence=influence, labels=labels, num_observations=len(labels), groups=self.groups)

    def _center(self, values: FloatArray) -> FloatArray:
        """Return (S, n) values minus the weighted mean of their group."""
        centered = values.copy()
        for group in (self.weights > 0, self.weights < 0):
            centered[:, group] -= np.average(values[:, group], axis=1, weights=np.abs(self.weights[group]))[:, None]
        return centered
