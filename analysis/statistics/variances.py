"""Variances of a mean over seeds and images: between seeds, between images or groups of images, and of their interaction."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from analysis.statistics.metrics import FloatArray, IntArray
from search_spaces.errors import UserInputError

# Pseudo-observations at each end of the range of a difference, as a multiple of the squared quantile.
PSEUDO_DIFFERENCES = 1 / 6


class LonelyUnitError(UserInputError):
    """There is a single image or group of images, from which no variance can be estimated."""


class Variances(NamedTuple):
    """The components of the comparison protocol, each of the mean over S seeds and N images.

    Attributes:
        seeds: V_S, variance of the seeds' values over S; NaN for one seed.
        images: V_I, variance of the images' mean influence.
        seeds_x_images: V_SI, the seed x image noise that V_S and V_I both contain; 0 for one seed.
    """

    seeds: float
    images: float
    seeds_x_images: float


class Guard(NamedTuple):
    """Size of the pseudo-observations that keep V_I from zero: one of n images moves the mean by r / n.

    Attributes:
        size: n, images or groups of them; infinite for no pseudo-observations.
        reach: r.
    """

    size: float
    reach: float = 1.0


NO_GUARD = Guard(math.inf)


@dataclass(frozen=True, slots=True, eq=False)
class SamplingUnits:
    """How the images were sampled: as U units (images, or groups of images) within H strata.

    Attributes:
        order: (N,) images sorted by stratum and unit.
        strata_starts: (H,) first image of each stratum in this order.
        strata_sizes: (H,) images of each.
        unit_starts: (U,) first image of each unit; None where each image is a unit.
        weights: (U,) u / (u - 1) for the u units of the stratum.
    """

    order: IntArray
    strata_starts: IntArray
    strata_sizes: IntArray
    unit_starts: IntArray | None
    weights: FloatArray

    @property
    def count(self) -> int:
        """U."""
        return len(self.weights)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of V_I: U - H for groups, of which there may be few, and U - 1 for images; at least 1."""
        lost = 1 if self.unit_starts is None else len(self.strata_starts)
        return max(self.count - lost, 1)

    def sum_deviations(self, influence: FloatArray) -> FloatArray:
        """Return (..., U) sums over each unit of the (..., N) influence minus its mean in the stratum."""
        ordered = influence[..., self.order]
        means = np.add.reduceat(ordered, self.strata_starts, axis=-1) / self.strata_sizes
        deviations = ordered - np.repeat(means, self.strata_sizes, axis=-1)
        if self.unit_starts is None:
            return np.asarray(deviations)
        return np.asarray(np.add.reduceat(deviations, self.unit_starts, axis=-1))


def find_sampling_units(labels: IntArray, groups: IntArray | None = None) -> SamplingUnits:
    """Return the sampling units of images that were sampled one by one, or in groups.

    Images are stratified by class. Groups are too where each lies within one class; groups that span classes are one stratum. A
    stratum with one unit has no variance: all such strata are collapsed into one, and a single one joins the smallest of the
    others, which overestimates the variance by that between their means (Wolter 2007, Introduction to Variance Estimation, 2.5).

    Args:
        labels: (N,) classes.
        groups: (N,) number of the group of each image, such as its patient; None where images are independent.

    Raises:
        UserInputError: where there are no images, for groups of another length, and for a single image or group.
    """
    if not len(labels):
        raise UserInputError("an interval needs images, but there are none")
    if groups is None:
        strata = collapse_lonely_strata(labels)
        _, starts, sizes = _split(strata[order := np.argsort(strata, kind="stable")])
        return SamplingUnits(order, starts, sizes, None, np.repeat(sizes / np.maximum(sizes - 1, 1), sizes))
    if groups.shape != labels.shape:
        raise UserInputError(f"`groups` needs one number per image, {labels.shape}, but has {groups.shape}")
    strata = collapse_lonely_strata(labels if _lie_within(groups, labels) else np.zeros_like(labels), groups)
    order = np.lexsort((groups, strata))
    _, starts, sizes = _split(strata[order])
    _, unit_starts, _ = _split(groups[order])
    counts = np.diff(np.append(np.searchsorted(unit_starts, starts), len(unit_starts)))
    return SamplingUnits(order, starts, sizes, unit_starts, np.repeat(counts / np.maximum(counts - 1, 1), counts))


def collapse_lonely_strata(strata: IntArray, groups: IntArray | None = None) -> IntArray:
    """Return (N,) strata of which each has several units, as `find_sampling_units` describes.

    Args:
        strata: (N,) number of the stratum of each image.
        groups: (N,) number of the group of each image, none of which spans strata; None where each image is a unit.

    Raises:
        LonelyUnitError: for a single unit.
    """
    first = np.arange(len(strata)) if groups is None else np.unique(groups, return_index=True)[1]
    names, counts = np.unique(strata[first], return_counts=True)
    if len(first) == 1:
        units, unit = ("images", "image") if groups is None else ("groups of images", "group")
        raise LonelyUnitError(f"an interval needs at least two {units}, but there is one {unit}; enlarge the split")
    lonely = names[counts == 1]
    if not len(lonely):
        return strata
    if len(lonely) == 1:
        lonely = names[np.argsort(counts, kind="stable")[:2]]
    return np.where(np.isin(strata, lonely), lonely[0], strata)


def compute_variances(values: FloatArray, influence: FloatArray, units: SamplingUnits) -> Variances:
    """Return V_S, V_I and V_SI.

    V_I is the sum over units of their squared totals, u / (u - 1) for the u units of a stratum, over N^2: with groups, the
    cluster-robust variance (Liang and Zeger 1986, Biometrika 73:13).

    Args:
        values: (S,) the statistic of each seed.
        influence: (S, N) its influence per seed and image.
        units: from `find_sampling_units`.
    """
    num_seeds, num_images = influence.shape
    image_means = influence.mean(axis=0)
    images = float(units.weights @ units.sum_deviations(image_means) ** 2) / num_images**2
    if num_seeds == 1:
        return Variances(math.nan, images, 0.0)
    rest = units.sum_deviations(influence - image_means)
    num_strata = len(units.strata_starts)
    freedom = (num_seeds - 1) * (units.count - num_strata)
    both = float(np.sum(rest**2)) * units.count / freedom / (num_seeds * num_images**2)
    return Variances(float(np.var(values, ddof=1)) / num_seeds, images, both)


def guard_image_variance(image_variance: FloatArray | float, guard: Guard, quantile: FloatArray | float) -> FloatArray:
    """Return V_I, or, where it is larger, V_I of the images and pseudo-observations; variances and quantiles broadcast.

    V_I is zero where two sides agree on every image, which does not show that they agree on new ones. The q^2 / 3
    pseudo-observations, as many as in `families`, lie one discordant image above and below the difference (after Bonett and
    Price 2012, J. Educ. Behav. Stat. 37:479): with n images of the reach r, (V_I + q^2 r^2 / (3 n^2)) / (1 + q^2 / (3 n))^2.

    Args:
        image_variance: V_I, or its part without the seed x image noise.
        guard: n and r.
        quantile: q of the interval that the variance is for.
    """
    pseudo = 2 * PSEUDO_DIFFERENCES * np.square(quantile) / guard.size
    return np.asarray(
        np.maximum(image_variance, (image_variance + pseudo * guard.reach**2 / guard.size) / (1 + pseudo) ** 2)
    )


def _split(ordered: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return values, starts and sizes of the runs of equal values."""
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return ordered[starts], starts, np.diff(np.append(starts, len(ordered)))


def _lie_within(groups: IntArray, labels: IntArray) -> bool:
    """Return whether all images of each group have one class."""
    pairs = np.unique(np.stack([groups, labels], axis=1), axis=0)
    return len(pairs) == len(np.unique(groups))
