"""Intervals for new seeds and new images, for any statistic with an influence function."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.findings.interval import Interval
from analysis.statistics.metrics import FloatArray, IntArray
from search_spaces.errors import UserInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossedEstimate:
    """A mean over S seeds and N images with its interval for new seeds and new images.

    Attributes:
        interval: estimate +- t * standard_error.
        standard_error: sqrt(max(V_S + V_I - V_SI, V_S, V_I)).
        degrees_of_freedom: such that t * standard_error is the half-width; from S - 1 to N - 1.
        seed_variance: V_S, variance of the seeds' values over S.
        image_variance: V_I, class-stratified variance of the images' mean influence.
        seed_image_variance: V_SI, the seed x image noise that V_S and V_I both contain.
    """

    interval: Interval
    standard_error: float
    degrees_of_freedom: float
    seed_variance: float
    image_variance: float
    seed_image_variance: float


def compute_p_value(found: CrossedEstimate) -> float:
    """Return the two-sided p-value for no difference; without any variance 1 for an exact zero, else 0."""
    effect = abs(found.interval.estimate)
    if found.standard_error == 0:
        return 1.0 if effect == 0 else 0.0
    return float(2 * special.stdtr(found.degrees_of_freedom, -effect / found.standard_error))


def compute_t_quantile(confidence: float, degrees_of_freedom: NDArray[np.float64] | float) -> FloatArray:
    """Return the two-sided quantile t with P(|T| < t) = confidence; any shape of degrees of freedom."""
    return np.asarray(special.stdtrit(degrees_of_freedom, 0.5 + confidence / 2), dtype=np.float64)


def check_confidence(confidence: float) -> None:
    """Raise UserInputError unless 0 < confidence < 1."""
    if not 0.0 < confidence < 1.0:
        raise UserInputError(f"`0 < confidence < 1` must hold, but got {confidence}; use for example 0.95")


def compute_crossed_interval(
    values: FloatArray, influence: FloatArray, labels: IntArray, num_classes: int, confidence: float
) -> CrossedEstimate:
    """Return the mean of `values` with an interval for new seeds and new images.

    The statistic is that of one arm, with its influence, or a paired difference, with the difference of the influences.

    Args:
        values: (S,) the statistic of each seed.
        influence: (S, N) its influence per seed and image (`analysis.statistics.influence`).
        labels: (N,) true classes in [0, K); the images are a sample stratified by them.
        num_classes: K.
        confidence: two-sided, in (0, 1).

    Raises:
        UserInputError: for one seed, for a class with exactly one image, and for shapes that do not fit.
    """
    _check_crossed(values, influence, labels, num_classes, confidence)
    seed_variance, image_variance, seed_image_variance = compute_variances(values, influence, labels)
    half_width = float(
        compute_half_width(
            seed_variance,
            image_variance,
            seed_image_variance,
            num_seeds=len(values),
            num_images=len(labels),
            confidence=confidence,
        )
    )
    estimate = float(np.mean(values))
    only_images = max(image_variance - seed_image_variance, 0.0)
    standard_error = math.sqrt(max(seed_variance + only_images, image_variance))
    return CrossedEstimate(
        interval=Interval(estimate=estimate, low=estimate - half_width, high=estimate + half_width),
        standard_error=standard_error,
        degrees_of_freedom=compute_effective_df(
            half_width, standard_error, confidence, len(values) - 1, len(labels) - 1
        ),
        seed_variance=seed_variance,
        image_variance=image_variance,
        seed_image_variance=seed_image_variance,
    )


def compute_half_width(
    seed_variance: NDArray[np.float64] | float,
    image_variance: NDArray[np.float64] | float,
    seed_image_variance: NDArray[np.float64] | float,
    *,
    num_seeds: IntArray | int,
    num_images: int,
    confidence: float,
) -> FloatArray:
    """Return the half-width of the interval; all arguments broadcast.

    It is Banerjee's (1960, Sankhya 22:359): sqrt(t_{S-1}^2 V_S + t_{N-1}^2 (V_I - V_SI)), the second term at least 0, each with
    the quantile of its own degrees of freedom. It is at least t_{N-1} sqrt(V_I), because a few seeds that agree by chance carry
    no information about new images. Satterthwaite's degrees of freedom for the sum would be too many in that case: with three
    rows and three seeds, up to 10 % of the tables without any difference claimed one (benchmarks/STATISTICS.md has the errors
    of the present rule).

    Args:
        seed_variance: V_S.
        image_variance: V_I.
        seed_image_variance: V_SI.
        num_seeds: S.
        num_images: N.
        confidence: two-sided, in (0, 1).
    """
    seeds = compute_t_quantile(confidence, np.asarray(num_seeds, dtype=np.float64) - 1)
    images = compute_t_quantile(confidence, float(max(num_images - 1, 1)))
    only_images = np.maximum(np.asarray(image_variance) - seed_image_variance, 0.0)
    both = seeds**2 * np.asarray(seed_variance) + images**2 * only_images
    return np.asarray(np.sqrt(np.maximum(both, images**2 * np.asarray(image_variance))))


def compute_effective_df(half_width: float, standard_error: float, confidence: float, fewest: int, most: int) -> float:
    """Return the degrees of freedom, from `fewest` to `most`, such that t times the standard error is the half-width."""
    if standard_error == 0:
        return float(fewest)
    df = float(special.stdtridf(0.5 + confidence / 2, half_width / standard_error))
    return float(max(fewest, most)) if not math.isfinite(df) else min(max(df, fewest), max(fewest, most))


def compute_proportion_interval(
    estimate: CrossedEstimate, *, num_seeds: int, num_observations: float, confidence: float
) -> Interval:
    """Return an interval inside [0, 1] for a proportion or another score in [0, 1].

    It is the Clopper-Pearson interval at the effective sample size p(1-p)/SE^2, reduced for the degrees of freedom (Korn and
    Graubard 1998, Survey Methodology 24:193) and at most S * num_observations. A proportion of exactly 0 or 1 has no variance;
    its effective sample size is `num_observations`, so that the interval of 0 out of 500 does not have a width of 0.

    Args:
        estimate: from `compute_crossed_interval`, with its estimate in [0, 1].
        num_seeds: S.
        num_observations: images behind the proportion, per seed; 0 gives [0, 1].
        confidence: two-sided, in (0, 1).
    """
    p, tail = min(max(estimate.interval.estimate, 0.0), 1.0), (1 - confidence) / 2
    size = num_observations
    if 0 < p < 1:
        most = num_seeds * num_observations
        squared_error = estimate.standard_error**2
        size = min(p * (1 - p) / squared_error, most) if squared_error > 0 else most
        normal = float(special.ndtri(1 - tail))
        size *= (normal / float(compute_t_quantile(confidence, estimate.degrees_of_freedom))) ** 2
    successes = p * size
    failures = size - successes
    low = float(special.betaincinv(successes, failures + 1, tail)) if successes > 0 else 0.0
    high = float(special.betaincinv(successes + 1, failures, 1 - tail)) if failures > 0 else 1.0
    return Interval(estimate=p, low=min(low, p), high=max(high, p))


def compute_share_interval(marks: FloatArray, labels: IntArray, num_classes: int, confidence: float) -> Interval:
    """Return the mean of marks with an interval inside [0, 1] for new seeds and new images.

    Args:
        marks: (S, N) 1 where the image counts for the seed, else 0.
        labels: (N,) true classes in [0, K), by which the images are stratified.
        num_classes: K.
        confidence: two-sided, in (0, 1).

    Raises:
        UserInputError: for one seed, and for a class with exactly one image.
    """
    shares = marks.mean(axis=1)
    found = compute_crossed_interval(shares, marks - shares[:, None], labels, num_classes, confidence)
    return compute_proportion_interval(
        found, num_seeds=len(shares), num_observations=len(labels), confidence=confidence
    )


def _check_crossed(
    values: FloatArray, influence: FloatArray, labels: IntArray, num_classes: int, confidence: float
) -> None:
    check_confidence(confidence)
    if values.ndim != 1 or influence.shape != (len(values), len(labels)):
        raise UserInputError(
            f"an interval needs values (S,) and influence (S, N) over labels (N,), "
            f"but got {values.shape}, {influence.shape}, {labels.shape}"
        )
    if len(values) == 1:
        raise UserInputError(
            f"one seed only: an interval needs at least two seeds; the estimate is {np.mean(values):.4f}. Add a seed"
        )
    if len(values) == 0 or len(labels) == 0:
        raise UserInputError(f"an interval needs seeds and images, but got {len(values)} and {len(labels)}")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserInputError(f"labels must lie in [0, {num_classes}), but reach from {labels.min()} to {labels.max()}")
    check_images(labels)


def check_images(labels: IntArray) -> None:
    """Raise UserInputError for a class with exactly one image, and where there is none."""
    if not len(labels):
        raise UserInputError("an interval needs images, but there are none")
    single = np.flatnonzero(np.bincount(labels) == 1)
    if len(single):
        raise UserInputError(
            f"an interval needs at least two images of each class in the split, but class {single[0]} has 1; "
            f"enlarge the split"
        )


def compute_variances(values: FloatArray, influence: FloatArray, labels: IntArray) -> tuple[float, float, float]:
    """Return V_S, V_I and V_SI of the comparison protocol; for one seed only V_I, the others are NaN and 0.

    Args:
        values: (S,) the statistic of each seed.
        influence: (S, N) its influence per seed and image.
        labels: (N,) classes, at least two images each.
    """
    num_seeds, num_images = influence.shape
    order = np.argsort(labels, kind="stable")
    by_class = influence[:, order]
    sizes = np.unique(labels, return_counts=True)[1]
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))

    image_means = by_class.mean(axis=0)
    class_means = np.add.reduceat(image_means, starts) / sizes
    squares = np.add.reduceat((image_means - np.repeat(class_means, sizes)) ** 2, starts)
    image_variance = float(np.sum(sizes * squares / (sizes - 1)) / num_images**2)

    if num_seeds == 1:
        return math.nan, image_variance, 0.0
    rest = by_class - image_means
    rest_means = np.add.reduceat(rest, starts, axis=1) / sizes
    rest = rest - np.repeat(rest_means, sizes, axis=1)
    freedom = (num_seeds - 1) * (num_images - len(sizes))
    seed_image_variance = float(np.sum(rest**2) / freedom / (num_seeds * num_images))
    seed_variance = float(np.var(values, ddof=1) / num_seeds)
    return seed_variance, image_variance, seed_image_variance
