"""Intervals for families of cells, such as one per class or one per pair of classes, with an answer to two questions.

For these models, seeds are fixed and images are sampled. For the recipe, seeds and images are sampled, and the variance between
seeds is moderated: with few seeds, the variance of one cell is shrunk towards that of all cells of the family. Intervals of
proportions are mid-P intervals at an effective number of observations; benchmarks/STATISTICS.md has their coverage.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import special

from analysis.statistics.crossed_interval import SMALLEST_P, check_confidence
from analysis.statistics.interval import Interval, TwoIntervals
from analysis.statistics.metrics import BoolArray, FloatArray, IntArray
from analysis.statistics.mid_p_bounds import compute_mid_p_bounds
from analysis.statistics.moderated_variances import ModeratedVariances, moderate_variances
from analysis.statistics.variances import (
    PSEUDO_DIFFERENCES,
    LonelyUnitError,
    SamplingUnits,
    compute_variances,
    find_sampling_units,
)
from search_spaces.errors import UserInputError

# Proportions whose rarer outcome has fewer observations per seed say little about the variance between seeds.
MIN_COUNT = 1
# Pseudo-observations at each end of the range, as a multiple of the squared normal quantile.
PSEUDO_SHARES = 0.15

# Instead of no observations at all; the interval of a share is then that of no knowledge, [0, 1].
FEWEST = 1e-9

Bounds = tuple[FloatArray, FloatArray]


class Scale(StrEnum):
    """The possible range of a statistic."""

    PROPORTION = "proportion"
    DIFFERENCE = "difference"
    UNBOUNDED = "unbounded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The P pairs of images behind a statistic. The influence of an image is the sum over its pairs, so that each counts twice.

    Attributes:
        influence: (S, P) of each seed and pair.
        ids: (P,) equal for pairs of the same two images or groups of images.
        each: observations of an image, such as its pairs or, where two of them are compared, half as many.
        freedom: degrees of freedom of V_I, at most: images, or groups of them, less one.
    """

    influence: FloatArray
    ids: IntArray
    each: float
    freedom: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One member of a family.

    Attributes:
        values: (S,) the statistic of each seed.
        influence: (S, n) its influence per seed and image.
        labels: (n,) strata of the images, such as their classes.
        num_observations: images behind the statistic, per seed; below n where most images say nothing about it.
        groups: (n,) number of each image's group, where images were sampled in groups.
        pairs: of a mean over pairs of images, both of which are a sample.
    """

    values: FloatArray
    influence: FloatArray
    labels: IntArray
    num_observations: float
    groups: IntArray | None = None
    pairs: Pairs | None = None


def mean_cell(values: FloatArray, labels: IntArray, groups: IntArray | None = None) -> Cell:
    """Return the cell of the mean of (S, n) values over n images with (n,) classes and, where they have any, (n,) groups."""
    means = values.mean(axis=1)
    influence = values - means[:, None]
    return Cell(values=means, influence=influence, labels=labels, num_observations=len(labels), groups=groups)


def class_cells(values: FloatArray, labels: IntArray, groups: IntArray | None = None) -> list[Cell]:
    """Return one cell per present class, in increasing order: the mean of (S, N) values over the class's images."""
    return [
        mean_cell(values[:, own], labels[own], None if groups is None else groups[own])
        for own in (labels == label for label in np.unique(labels))
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Members:
    """What the intervals of a family need, one entry per cell.

    Attributes:
        estimates: (C,) means over seeds.
        images: (C,) V_I.
        both: (C,) V_SI.
        thirds: (C,) third central moments of the mean over images; 0 where the scale does not need them.
        sizes: (C,) observations per seed.
        image_freedom: (C,) degrees of freedom of V_I, infinite for the normal distribution.
        seeds: (C,) moderated V_S, on the arcsine scale for proportions; None for one seed.
        freedom: of V_S.
    """

    estimates: FloatArray
    images: FloatArray
    both: FloatArray
    thirds: FloatArray
    sizes: FloatArray
    image_freedom: FloatArray
    seeds: FloatArray | None
    freedom: float


def compute_family(cells: Sequence[Cell], *, scale: Scale, confidence: float) -> tuple[TwoIntervals, ...]:
    """Return both intervals of each cell, inside the range of its scale.

    Args:
        cells: of one family, with the same S seeds; S = 1 gives no interval for the recipe.
        scale: "proportion" in [0, 1], "difference" of two proportions in [-1, 1], or "unbounded".
        confidence: of each interval alone, two-sided, in (0, 1); divide the error rate by the number of cells for simultaneous
            intervals.

    A cell with a single image, or whose images belong to one group, has the whole range as its interval.

    Raises:
        UserInputError: for a cell without images; for an unbounded one with a single image or group.
    """
    check_confidence(confidence)
    if not cells:
        return ()
    members = _measure(cells, scale)
    models, recipe = _bound(members, scale, np.full(len(cells), (1 - confidence) / 2))
    models_found = _to_intervals(members.estimates, models)
    recipe_found = [None] * len(cells) if recipe is None else _to_intervals(members.estimates, recipe)
    return tuple(TwoIntervals(models=m, recipe=r) for m, r in zip(models_found, recipe_found, strict=True))


def compute_two_intervals(cell: Cell, *, scale: Scale, confidence: float) -> TwoIntervals:
    """Return both intervals of one statistic that belongs to no family; its variance is not moderated."""
    return compute_family([cell], scale=scale, confidence=confidence)[0]


def compute_recipe_p_values(cells: Sequence[Cell], *, scale: Scale) -> FloatArray:
    """Return (C,) two-sided p-values for no difference with new seeds and new images.

    Each is the smallest alpha at which the cell's interval for the recipe at confidence 1 - alpha excludes 0.

    Args:
        cells: of one family, with the same S >= 2 seeds.
        scale: "difference" or "unbounded".
    """
    members = _measure(cells, scale)
    if members.seeds is None:
        raise UserInputError("one seed only: p-values for new seeds need at least two seeds; add a seed")

    def is_excluded(log_alpha: FloatArray) -> BoolArray:
        recipe = _bound(members, scale, np.exp(log_alpha) / 2)[1]
        assert recipe is not None
        return np.asarray((recipe[0] > 0) | (recipe[1] < 0))

    low, high = np.full(len(cells), math.log(SMALLEST_P)), np.zeros(len(cells))
    found = is_excluded(low)
    for _ in range(60):
        middle = (low + high) / 2
        excluded = is_excluded(middle)
        low, high = np.where(excluded, low, middle), np.where(excluded, middle, high)
    return np.where(found, 0.0, np.exp(high))


def _measure(cells: Sequence[Cell], scale: Scale) -> _Members:
    num_seeds = len(cells[0].values)
    if any(len(cell.values) != num_seeds for cell in cells):
        raise UserInputError("the cells of a family need the same seeds")
    known: dict[tuple[int, int], SamplingUnits | None] = {}
    images, both, thirds, sizes, freedom = np.zeros((5, len(cells)))
    for i, cell in enumerate(cells):
        key = id(cell.labels), id(cell.groups)
        if key not in known:
            known[key] = _find_units(cell, scale)
        units = known[key]
        if units is None:
            sizes[i], freedom[i] = FEWEST, 1.0
            continue
        _, images[i], both[i] = compute_variances(cell.values, cell.influence, units)
        freedom[i] = units.freedom
        # Pseudo-observations count against groups, of which no more is known than that their images may be copies.
        sizes[i] = max(cell.num_observations * units.count / len(cell.labels), FEWEST)
        if cell.pairs is not None:
            # Of pairs that share an image (Aronow et al. 2015, Political Analysis 23:564); at least that of independent pairs.
            apart = find_sampling_units(np.zeros_like(cell.pairs.ids), cell.pairs.ids)
            _, once, once_both = compute_variances(cell.values, cell.pairs.influence, apart)
            images[i], both[i] = max(images[i] - once, once), max(both[i] - once_both, once_both)
            freedom[i] = min(units.freedom, cell.pairs.freedom)
            # Each pair is an observation as far as the pairs of an image differ, whose variance is then that of independent ones.
            sizes[i] *= max(cell.pairs.each * once / images[i], 1.0) if images[i] else 1.0
        if scale is Scale.DIFFERENCE:
            thirds[i] = np.sum(units.sum_deviations(cell.influence.mean(axis=0)) ** 3) / len(cell.labels) ** 3
        # The variance of a share follows from it, so that of independent images has no degrees of freedom to lose.
        if scale is not Scale.UNBOUNDED and cell.groups is None and cell.pairs is None:
            freedom[i] = math.inf
    values = np.stack([cell.values for cell in cells])
    moderated = None if num_seeds < 2 else _moderate(values, sizes, scale)
    return _Members(
        estimates=values.mean(axis=1),
        images=images,
        both=both,
        thirds=thirds,
        sizes=sizes,
        image_freedom=freedom,
        seeds=None if moderated is None else moderated.variances / num_seeds,
        freedom=math.nan if moderated is None else moderated.degrees_of_freedom,
    )


def _find_units(cell: Cell, scale: Scale) -> SamplingUnits | None:
    """Return the sampling units of a cell; None for a single image or group of images, which says nothing about others."""
    try:
        return find_sampling_units(cell.labels, cell.groups)
    except LonelyUnitError:
        if scale is Scale.UNBOUNDED:
            raise
        return None


def _moderate(values: FloatArray, sizes: FloatArray, scale: Scale) -> ModeratedVariances:
    """Moderate the variances of (C, S) values between seeds, those of proportions on the arcsine scale with a trend.

    The variance of rounding to whole counts is added (Sheppard), for seeds that agree exactly have no log variance.
    """
    degrees_of_freedom = values.shape[1] - 1
    if scale is Scale.UNBOUNDED:
        return moderate_variances(values.var(axis=1, ddof=1), degrees_of_freedom)
    rounding = 1 / (12 * np.maximum(sizes, 1.0) ** 2)
    if scale is Scale.DIFFERENCE:
        variances = values.var(axis=1, ddof=1) + rounding
        return moderate_variances(variances, degrees_of_freedom, is_informative=sizes >= MIN_COUNT)
    # Anscombe 1948, Biometrika 35:246.
    shares = np.clip((values * sizes[:, None] + 3 / 8) / (sizes[:, None] + 3 / 4), 0.0, 1.0)
    means, angles = shares.mean(axis=1), np.arcsin(np.sqrt(shares))
    return moderate_variances(
        angles.var(axis=1, ddof=1) + rounding / (4 * means * (1 - means)),
        degrees_of_freedom,
        means=angles.mean(axis=1),
        is_informative=np.minimum(means, 1 - means) * sizes >= MIN_COUNT,
    )


def _bound(m: _Members, scale: Scale, tails: FloatArray) -> tuple[Bounds, Bounds | None]:
    """Return the bounds of the cells for these models and for the recipe, with an error rate of (C,) `tails` on each side."""
    quantiles = -np.where(
        np.isinf(m.image_freedom), special.ndtri(tails), special.stdtrit(np.minimum(m.image_freedom, 1e9), tails)
    )
    match scale:
        case Scale.UNBOUNDED:
            centers, images = m.estimates, m.images
        case Scale.PROPORTION:
            centers, images = _add_pseudo_shares(m, quantiles)
        case Scale.DIFFERENCE:
            centers, images = _add_pseudo_differences(m, quantiles)
    squares = quantiles**2 * images
    models = _find_bounds(m, scale, centers, squares, tails)
    if m.seeds is None:
        return models, None
    seeds = special.stdtrit(m.freedom, tails) ** 2 * m.seeds
    if scale is Scale.PROPORTION:
        seeds = seeds * 4 * centers * (1 - centers)
    crossed = np.maximum(seeds + quantiles**2 * np.maximum(images - m.both, 0.0), squares)
    return models, _find_bounds(m, scale, centers, crossed, tails)


def _find_bounds(m: _Members, scale: Scale, centers: FloatArray, squares: FloatArray, tails: FloatArray) -> Bounds:
    """Return low and high of each cell from its squared half-width."""
    if scale is Scale.PROPORTION:
        # Korn and Graubard 1998, Survey Methodology 24:193: as many observations as would have this half-width.
        sizes = special.ndtri(tails) ** 2 * centers * (1 - centers) / squares
        low, high = compute_mid_p_bounds(np.clip(m.estimates, 0.0, 1.0), sizes, tails)
    else:
        low, high = centers - np.sqrt(squares), centers + np.sqrt(squares)
    if scale is Scale.DIFFERENCE:
        low, high = np.maximum(low, -1.0), np.minimum(high, 1.0)
    return np.minimum(low, m.estimates), np.maximum(high, m.estimates)


def _add_pseudo_shares(m: _Members, quantiles: FloatArray) -> Bounds:
    """Return mean and variance of proportions with pseudo-observations of 0 and 1.

    The variance over that of a binomial is the design effect; few hits say little about it, and the pseudo-observations shrink it
    towards 1, its largest value.
    """
    each = PSEUDO_SHARES * quantiles**2
    total = m.sizes + 2 * each
    mean = (m.sizes * m.estimates + each) / total
    second = (m.sizes * (m.images * m.sizes + m.estimates**2) + each) / total
    return mean, (second - mean**2) / m.sizes


def _add_pseudo_differences(m: _Members, quantiles: FloatArray) -> Bounds:
    """Return center and variance of differences with pseudo-observations of -1 and 1.

    They keep an interval from a width of zero where all images agree (after Bonett and Price 2012, J. Educ. Behav. Stat. 37:479,
    who add one of each at 95 %). Where nearly all images that differ do so in one direction, the sampling distribution is
    skewed, and the center moves towards its longer tail (Johnson 1978, JASA 73:536). As the pseudo-observations are symmetric,
    they make it less skew; otherwise intervals of a higher confidence would not contain those of a lower one.
    """
    each = PSEUDO_DIFFERENCES * quantiles**2
    total = m.sizes + 2 * each
    mean = m.sizes * m.estimates / total
    second = (m.sizes * (m.images * m.sizes + m.estimates**2) + 2 * each) / total
    variance = (second - mean**2) / total
    thirds = m.thirds * (m.sizes / total) ** 3
    return mean + (1 + 2 * quantiles**2) / 6 * thirds / variance, variance


def _to_intervals(estimates: FloatArray, bounds: Bounds) -> list[Interval]:
    rows = zip(estimates.tolist(), bounds[0].tolist(), bounds[1].tolist(), strict=True)
    return [Interval(estimate=estimate, low=low, high=high) for estimate, low, high in rows]
