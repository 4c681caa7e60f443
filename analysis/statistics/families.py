"""Intervals for families of cells, such as one per class or one per pair of classes, with an answer to two questions.

For these models, seeds are fixed and images are sampled. For the recipe, seeds and images are sampled, and the variance between
seeds is moderated: with few seeds, the variance of one cell is shrunk towards that of all cells of the family (Smyth 2004, Stat.
Appl. Genet. Mol. Biol. 3:3).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import special

from analysis.findings.interval import Interval, TwoIntervals
from analysis.statistics.crossed_interval import check_confidence
from analysis.statistics.metrics import FloatArray, IntArray
from analysis.statistics.variances import compute_variances, find_sampling_units
from search_spaces.errors import UserInputError

# A trend of the variance in the mean is fitted to at least so many cells.
MIN_CELLS_OF_TREND = 10


class Scale(StrEnum):
    """The possible range of a statistic."""

    PROPORTION = "proportion"
    DIFFERENCE = "difference"
    UNBOUNDED = "unbounded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One member of a family.

    Attributes:
        values: (S,) the statistic of each seed.
        influence: (S, n) its influence per seed and image.
        labels: (n,) strata of the images, classes in [0, K).
        num_observations: images behind the statistic, per seed; below n where most images say nothing about it.
        groups: (n,) number of each image's group, where images were sampled in groups.
    """

    values: FloatArray
    influence: FloatArray
    labels: IntArray
    num_observations: float
    groups: IntArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeratedVariances:
    """Variances between seeds after moderation.

    Attributes:
        variances: (C,) one per cell.
        degrees_of_freedom: of their t distribution, the same for all cells.
    """

    variances: FloatArray
    degrees_of_freedom: float


def mean_cell(values: FloatArray, labels: IntArray) -> Cell:
    """Return the cell of the mean of (S, n) values over n images with (n,) classes."""
    means = values.mean(axis=1)
    return Cell(values=means, influence=values - means[:, None], labels=labels, num_observations=len(labels))


def class_cells(values: FloatArray, labels: IntArray) -> list[Cell]:
    """Return one cell per present class, in increasing order: the mean of (S, N) values over the class's images."""
    return [mean_cell(values[:, labels == label], labels[labels == label]) for label in np.unique(labels)]


def compute_family(cells: Sequence[Cell], *, scale: Scale, confidence: float) -> tuple[TwoIntervals, ...]:
    """Return both intervals of each cell, inside the range of its scale.

    Args:
        cells: of one family, with the same S seeds; S = 1 gives no interval for the recipe.
        scale: "proportion" in [0, 1], "difference" of two proportions in [-1, 1], or "unbounded".
        confidence: of each interval alone, two-sided, in (0, 1); divide the error rate by the number of cells for simultaneous
            intervals.

    Raises:
        UserInputError: for a cell with one image in a stratum, or without images.
    """
    check_confidence(confidence)
    if len({len(cell.values) for cell in cells}) > 1:
        raise UserInputError("the cells of a family need the same seeds")
    for cell in cells:
        find_sampling_units(cell.labels, cell.groups)
    if not cells:
        return ()
    seeds = len(cells[0].values)
    moderated = None if seeds < 2 else moderate_variances(*_spread_of_seeds(cells, scale), seeds - 1)
    found = []
    for i, cell in enumerate(cells):
        variance, freedom = (
            (math.nan, 1.0)
            if moderated is None
            else (float(moderated.variances[i]) / seeds, moderated.degrees_of_freedom)
        )
        found.append(_bound(cell, scale, confidence, variance, freedom))
    return tuple(found)


def compute_two_intervals(cell: Cell, *, scale: Scale, confidence: float) -> TwoIntervals:
    """Return both intervals of one statistic that belongs to no family; its variance is not moderated."""
    return compute_family([cell], scale=scale, confidence=confidence)[0]


def moderate_variances(variances: FloatArray, means: FloatArray, degrees_of_freedom: int) -> ModeratedVariances:
    """Return variances shrunk towards a prior that is estimated from all of them (Smyth 2004; limma's squeezeVar).

    The prior's degrees of freedom d0 and location s0^2 are the moment estimates from the log variances; with at least
    `MIN_CELLS_OF_TREND` cells, log s0^2 is linear in the mean. The posterior variance is (d0 s0^2 + d s^2) / (d0 + d), with
    d0 + d degrees of freedom, at most C d. Variances of zero have no logarithm: they do not count for the prior, and are shrunk
    towards it as all others.

    Args:
        variances: (C,) of C cells over S seeds.
        means: (C,) of the cells, on the scale of the variances.
        degrees_of_freedom: d = S - 1.
    """
    d = degrees_of_freedom
    positive = variances > 0
    if positive.sum() < 2:
        return ModeratedVariances(variances=variances, degrees_of_freedom=float(d))
    logs = np.log(variances[positive]) - special.digamma(d / 2) + math.log(d / 2)
    order = 1 if positive.sum() >= MIN_CELLS_OF_TREND and np.ptp(means[positive]) > 0 else 0
    fit = np.polynomial.Polynomial.fit(means[positive], logs, order)
    residuals = logs - fit(means[positive])
    excess = float(np.sum(residuals**2) / (len(logs) - order - 1)) - float(special.polygamma(1, d / 2))
    location = fit(np.clip(means, means[positive].min(), means[positive].max()))
    if excess <= 0:
        prior = np.exp(location)
        return ModeratedVariances(variances=prior, degrees_of_freedom=float(len(variances) * d))
    d0 = 2 * _invert_trigamma(excess)
    prior = np.exp(location + special.digamma(d0 / 2) - math.log(d0 / 2))
    return ModeratedVariances(
        variances=(d0 * prior + d * variances) / (d0 + d), degrees_of_freedom=min(d0 + d, float(len(variances) * d))
    )


def _invert_trigamma(value: float) -> float:
    """Return x with trigamma(x) = value, by Newton's method on 1 / trigamma (limma's trigammaInverse)."""
    if value > 1e7:
        return 1 / math.sqrt(value)
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x


def _spread_of_seeds(cells: Sequence[Cell], scale: Scale) -> tuple[FloatArray, FloatArray]:
    """Return the variance between seeds and the mean of each cell, of proportions on the arcsine scale."""
    values = np.stack([cell.values for cell in cells])
    if scale is Scale.PROPORTION:
        sizes = np.array([cell.num_observations for cell in cells])[:, None]
        # Anscombe 1948, Biometrika 35:246.
        values = np.arcsin(np.sqrt(np.clip((values * sizes + 3 / 8) / (sizes + 3 / 4), 0.0, 1.0)))
    return values.var(axis=1, ddof=1), values.mean(axis=1)


def _bound(cell: Cell, scale: Scale, confidence: float, seed_variance: float, freedom: float) -> TwoIntervals:
    """Return both intervals of a cell.

    Args:
        cell: one.
        scale: of the family.
        confidence: of each interval.
        seed_variance: of the mean over seeds, on the arcsine scale for proportions; NaN for one seed.
        freedom: its degrees of freedom.
    """
    estimate = float(cell.values.mean())
    _, images, both = compute_variances(cell.values, cell.influence, find_sampling_units(cell.labels, cell.groups))
    tail = 0.5 + confidence / 2
    if scale is Scale.UNBOUNDED:
        quantile, center = float(special.stdtrit(max(len(cell.labels) - 1, 1), tail)), estimate
    else:
        quantile = float(special.ndtri(tail))
        center, images = _add_pseudo_images(estimate, images, cell.num_observations, scale, quantile)
    if scale is Scale.PROPORTION:
        seed_variance *= 4 * center * (1 - center)
    squares = [quantile**2 * images]
    if not math.isnan(seed_variance):
        seeds = float(special.stdtrit(freedom, tail))
        squares.append(max(seeds**2 * seed_variance + quantile**2 * max(images - both, 0.0), squares[0]))
    found = [
        _proportion(estimate, center * (1 - center) * quantile**2 / square, tail)
        if scale is Scale.PROPORTION
        else _symmetric(estimate, center, math.sqrt(square), scale)
        for square in squares
    ]
    return TwoIntervals(models=found[0], recipe=found[1] if len(found) > 1 else None)


def _add_pseudo_images(
    estimate: float, variance: float, size: float, scale: Scale, quantile: float
) -> tuple[float, float]:
    """Return mean and variance of the mean after adding pseudo-images at both ends of the range.

    They keep an interval from a width of zero where all images agree. Proportions get z^2 / 2 at 0 and at 1 (Agresti and Coull
    1998, Am. Stat. 52:119), differences z^2 / 4 at -1 and at 1, which is one each at 95 % (Bonett and Price 2012, J. Educ.
    Behav. Stat. 37:479).
    """
    low = 0.0 if scale is Scale.PROPORTION else -1.0
    each = quantile**2 / (2 if scale is Scale.PROPORTION else 4)
    total = size + 2 * each
    mean = (size * estimate + each * (low + 1)) / total
    second = (size * (variance * size + estimate**2) + each * (low**2 + 1)) / total
    return mean, (second - mean**2) / total


def _proportion(estimate: float, size: float, tail: float) -> Interval:
    """Return the Clopper-Pearson interval of a proportion at an effective sample size (Korn and Graubard 1998)."""
    estimate = min(max(estimate, 0.0), 1.0)
    successes, failures = estimate * size, (1 - estimate) * size
    low = float(special.betaincinv(successes, failures + 1, 1 - tail)) if successes > 0 else 0.0
    high = float(special.betaincinv(successes + 1, failures, tail)) if failures > 0 else 1.0
    return Interval(estimate=estimate, low=min(low, estimate), high=max(high, estimate))


def _symmetric(estimate: float, center: float, half_width: float, scale: Scale) -> Interval:
    low, high = min(center - half_width, estimate), max(center + half_width, estimate)
    if scale is Scale.DIFFERENCE:
        low, high = max(low, -1.0), min(high, 1.0)
    return Interval(estimate=estimate, low=low, high=high)
