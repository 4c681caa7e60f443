"""Intervals for new seeds and new images, for any statistic with an influence function."""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, special

from analysis.statistics.interval import Interval
from analysis.statistics.metrics import FloatArray, IntArray
from analysis.statistics.moderated_variances import SharedVariance
from analysis.statistics.variances import (
    NO_GUARD,
    Guard,
    SamplingUnits,
    Variances,
    compute_variances,
    find_sampling_units,
    guard_image_variance,
)
from search_spaces.errors import UserInputError

# p-values below it count as 0.
SMALLEST_P = 1e-100


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossedEstimate:
    """A mean over S seeds and N images with its interval for new seeds and new images.

    Attributes:
        interval: estimate +- half-width (`compute_half_width`).
        seed_variance: V_S, variance of the seeds' values over S.
        image_variance: V_I, class-stratified variance of the images' mean influence, clustered by group where there are groups.
        seed_image_variance: V_SI, the seed x image noise that V_S and V_I both contain.
        seed_freedom: degrees of freedom of V_S: S - 1, or more where other rows say something about it.
        num_units: images N, or the groups that they belong to.
        image_freedom: degrees of freedom of V_I.
        confidence: of the interval.
        guard: of V_I against a variance of zero; none by default.
    """

    interval: Interval
    seed_variance: float
    image_variance: float
    seed_image_variance: float
    seed_freedom: float
    num_units: int
    image_freedom: int
    confidence: float
    guard: Guard = NO_GUARD

    @property
    def standard_error(self) -> float:
        """sqrt(max(V_S + V_I - V_SI, V_S, V_I)), with the guarded V_I of the interval."""
        quantile = float(special.stdtrit(self.image_freedom, (1 - self.confidence) / 2))
        images = float(guard_image_variance(self.image_variance, self.guard, quantile))
        return math.sqrt(max(self.seed_variance + max(images - self.seed_image_variance, 0.0), images))

    @property
    def half_width(self) -> float:
        """At the estimate's confidence."""
        return self._half_width(1 - self.confidence)

    @property
    def degrees_of_freedom(self) -> float:
        """Those with which t times the standard error is the half-width: from those of V_S to N - 1."""
        fewest, most = self.seed_freedom, max(self.seed_freedom, self.image_freedom)
        if self.standard_error == 0:
            return float(fewest)
        df = float(special.stdtridf(0.5 + self.confidence / 2, self.half_width / self.standard_error))
        return float(most) if not math.isfinite(df) else min(max(df, fewest), most)

    def _half_width(self, alpha: float) -> float:
        variances = self.seed_variance, self.image_variance, self.seed_image_variance
        freedoms = {"seed_freedom": self.seed_freedom, "image_freedom": self.image_freedom}
        return float(compute_half_width(*variances, **freedoms, alpha=alpha, guard=self.guard))


def compute_p_value(found: CrossedEstimate) -> float:
    """Return the two-sided p-value for no difference: the smallest alpha at which the interval at 1 - alpha excludes 0.

    It is found by inversion of the half-width, so that it agrees with the interval at every confidence. A p-value below
    `SMALLEST_P` is 0; without any variance it is 1 for an estimate of exactly zero, else 0.
    """
    effect = abs(found.interval.estimate)
    if effect == 0:
        return 1.0

    def excess(log_alpha: float) -> float:
        return found._half_width(math.exp(log_alpha)) - effect

    if excess(math.log(SMALLEST_P)) <= 0:
        return 0.0
    return math.exp(optimize.brentq(excess, math.log(SMALLEST_P), 0.0, xtol=1e-13, rtol=1e-13))


def compute_one_sided_p_value(found: CrossedEstimate, bound: float) -> float:
    """Return the smallest one-sided level at which the lower bound of the estimate lies above `bound`.

    It agrees with the interval: a level of a is that of the interval at confidence 1 - 2 a.
    """
    shift = found.interval.estimate - bound
    half = compute_p_value(replace(found, interval=Interval(estimate=shift, low=shift, high=shift))) / 2
    return half if shift > 0 else 1 - half


def compute_t_quantile(confidence: float, degrees_of_freedom: FloatArray | float) -> FloatArray:
    """Return the two-sided quantile t with P(|T| < t) = confidence; any shape of degrees of freedom."""
    return np.asarray(special.stdtrit(degrees_of_freedom, 0.5 + confidence / 2), dtype=np.float64)


def check_confidence(confidence: float) -> None:
    """Raise UserInputError unless 0 < confidence < 1."""
    if not 0.0 < confidence < 1.0:
        raise UserInputError(f"`0 < confidence < 1` must hold, but got {confidence}; use for example 0.95")


def compute_crossed_interval(
    values: FloatArray,
    influence: FloatArray,
    labels: IntArray,
    num_classes: int,
    confidence: float,
    groups: IntArray | None = None,
    shared: SharedVariance | None = None,
    guard: Guard = NO_GUARD,
) -> CrossedEstimate:
    """Return the mean of `values` with an interval for new seeds and new images.

    The statistic is that of one arm, with its influence, or a paired difference, with the difference of the influences.

    Args:
        values: (S,) the statistic of each seed.
        influence: (S, N) its influence per seed and image (`analysis.statistics.metrics`).
        labels: (N,) true classes in [0, K); the images are a sample stratified by them.
        num_classes: K.
        confidence: two-sided, in (0, 1).
        groups: (N,) number of each image's group, where images that belong together (one patient, one scene) were sampled
            together; groups may span classes. None where images are independent.
        shared: the variance between seeds, with what other rows say about it; None for that of `values` alone.
        guard: of V_I against a variance of zero; none by default.

    Raises:
        UserInputError: for one seed, for a single image or group, and for shapes that do not fit.
    """
    _check_crossed(values, influence, labels, num_classes, confidence)
    units = find_sampling_units(labels, groups)
    found, seed_freedom = compute_variances(values, influence, units), len(values) - 1.0
    if shared is not None:
        found, seed_freedom = found._replace(seeds=shared.seed_variance), shared.degrees_of_freedom
    return _estimate(float(np.mean(values)), found, seed_freedom, units, confidence, guard)


def compute_unpaired_interval(
    treatment: tuple[FloatArray, FloatArray],
    control: tuple[FloatArray, FloatArray],
    labels: IntArray,
    num_classes: int,
    confidence: float,
    groups: IntArray | None,
    guard: Guard,
) -> CrossedEstimate:
    """Return the difference of two means over different seeds and the same images, with its interval for new seeds and images.

    V_I is the variance of the difference of the images' mean influences, for the images pair; V_S and V_SI are sums over the
    sides, V_S with the degrees of freedom of Welch (1947, Biometrika 34:28).

    Args:
        treatment: (S,) statistic of each seed and (S, N) influence, with S >= 2.
        control: the same with its own number of seeds.
        labels: (N,) true classes in [0, K).
        num_classes: K.
        confidence: two-sided, in (0, 1).
        groups: (N,) number of each image's group; None where images are independent.
        guard: of V_I against a variance of zero.

    Raises:
        UserInputError: as in `compute_crossed_interval`.
    """
    units = find_sampling_units(labels, groups)
    for values, influence in (treatment, control):
        _check_crossed(values, influence, labels, num_classes, confidence)
    own, other = (compute_variances(*side, units) for side in (treatment, control))
    estimate = float(np.mean(treatment[0]) - np.mean(control[0]))
    differences = treatment[1].mean(axis=0) - control[1].mean(axis=0)
    images = compute_variances(np.array([estimate]), differences[None], units).images
    seeds = own.seeds + other.seeds
    parts = [(side.seeds**2, len(values) - 1) for side, (values, _) in ((own, treatment), (other, control))]
    scale = sum(square / freedom for square, freedom in parts)
    fewest = float(min(freedom for _, freedom in parts))
    seed_freedom = seeds**2 / scale if scale > 0 else fewest
    found = Variances(seeds, images, own.seeds_x_images + other.seeds_x_images)
    return _estimate(estimate, found, seed_freedom, units, confidence, guard)


def _estimate(
    estimate: float, found: Variances, seed_freedom: float, units: SamplingUnits, confidence: float, guard: Guard
) -> CrossedEstimate:
    freedoms = {"seed_freedom": seed_freedom, "image_freedom": units.freedom}
    half_width = float(compute_half_width(*found, **freedoms, alpha=1 - confidence, guard=guard))
    return CrossedEstimate(
        interval=Interval(estimate=estimate, low=estimate - half_width, high=estimate + half_width),
        seed_variance=found.seeds,
        image_variance=found.images,
        seed_image_variance=found.seeds_x_images,
        seed_freedom=seed_freedom,
        num_units=units.count,
        image_freedom=units.freedom,
        confidence=confidence,
        guard=guard,
    )


def compute_half_width(
    seed_variance: FloatArray | float,
    image_variance: FloatArray | float,
    seed_image_variance: FloatArray | float,
    *,
    seed_freedom: FloatArray | float,
    image_freedom: float,
    alpha: FloatArray | float,
    guard: Guard = NO_GUARD,
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
        seed_freedom: degrees of freedom of V_S, for one row alone S - 1.
        image_freedom: degrees of freedom of V_I, at least 1: N - 1 where images are sampled one by one.
        alpha: two-sided error rate of the interval, in (0, 1).
        guard: of V_I against a variance of zero; none by default.
    """
    seeds = special.stdtrit(np.asarray(seed_freedom, dtype=np.float64), np.asarray(alpha) / 2)
    images = np.asarray(special.stdtrit(float(max(image_freedom, 1)), np.asarray(alpha) / 2), dtype=np.float64)
    image_variance = guard_image_variance(image_variance, guard, images)
    only_images = np.maximum(image_variance - seed_image_variance, 0.0)
    both = seeds**2 * np.asarray(seed_variance) + images**2 * only_images
    return np.asarray(np.sqrt(np.maximum(both, images**2 * image_variance)))


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
