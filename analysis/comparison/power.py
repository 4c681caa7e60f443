"""What the looks of a planned comparison can decide, from variances that were measured before it.

A planned study is simulated: seeds, the images' common part, and the half-width that it would report. Where the variance between
seeds was itself measured over few seeds, its uncertainty is part of the simulation (the predictive distribution of a future
variance over the measured one is F). The variance between images comes from many images, and varies as that of differences of two
0/1 values does, whose kurtosis is the inverse of their variance. Classes are taken as equally large where the variance between
images is guarded.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy import special

from analysis.comparison.other_intervals import compute_sequence_half_width
from analysis.comparison.paired_difference import MAX_SEEDS, POWER
from analysis.statistics.arm_predictions import MIN_DISCORDANT
from analysis.statistics.crossed_interval import compute_half_width
from analysis.statistics.metrics import BoolArray, FloatArray, IntArray
from analysis.statistics.moderated_variances import LENT_SHARE, MIN_ROWS, count_independent_rows
from analysis.statistics.variances import Guard, guard_image_variance
from search_spaces.errors import UserInputError
from trainables.seeds import numpy_generator

NUM_DRAWS = 4000
# Bounds of the range of the half-width that a look is expected to have: 80 % of the simulated studies lie inside.
RANGE = (0.1, 0.9)
# Differences for which a look's power is stated, in margins.
MULTIPLES = (0.0, 1.0, 2.0)
# The largest test set that is considered.
MAX_IMAGES = 10_000_000
# Numbers of seeds that are simulated together in the search for the fewest.
CHUNK = 100


class Goal(NamedTuple):
    """What a planned comparison should reach.

    Attributes:
        multiples: true differences in margins, each one of `MULTIPLES`.
        power: probability with which a row is decided at each of them.
    """

    multiples: tuple[float, ...]
    power: float


# A row is decided with the usual power, if there is no difference and if it is the margin.
DECIDES_MARGIN = Goal(MULTIPLES[:2], POWER)
# A difference of twice the margin is as likely decided as not.
DECIDES_TWICE_BY_HALF = Goal(MULTIPLES[2:], 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceComponents:
    """Variances of a paired difference in macro-F1, independent of the numbers of seeds and images.

    Attributes:
        seeds: variance of one seed's difference on infinitely many images; an estimate may be negative.
        images: variance between images of their influence on the difference, without the noise of single seeds.
        seeds_x_images: variance of an image's influence from seed to seed.
        num_measured_seeds: seeds over which the variance between seeds was measured; None where it is taken as known.
        num_measured_images: images over which the other two were measured; None where they are taken as known.
    """

    seeds: float
    images: float
    seeds_x_images: float
    num_measured_seeds: int | None = None
    num_measured_images: int | None = None

    @classmethod
    def from_estimates(
        cls, v_s: float, v_i: float, v_si: float, *, num_seeds: int, num_images: int
    ) -> "VarianceComponents":
        """Return the components behind V_S, V_I and V_SI of a comparison over S seeds and N images."""
        return cls(
            seeds=num_seeds * (v_s - v_si),
            images=num_images * max(v_i - v_si, 0.0),
            seeds_x_images=num_seeds * num_images * v_si,
            num_measured_seeds=num_seeds,
            num_measured_images=num_images,
        )

    @classmethod
    def mean(cls, components: Sequence["VarianceComponents"]) -> "VarianceComponents":
        """Return the mean of the rows of one study, measured over the fewest of their seeds and images."""
        seeds = [c.num_measured_seeds for c in components if c.num_measured_seeds is not None]
        images = [c.num_measured_images for c in components if c.num_measured_images is not None]
        return cls(
            seeds=fmean(c.seeds for c in components),
            images=fmean(c.images for c in components),
            seeds_x_images=fmean(c.seeds_x_images for c in components),
            num_measured_seeds=min(seeds, default=None),
            num_measured_images=min(images, default=None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTest:
    """How a planned study will judge a row.

    Attributes:
        looks: numbers of paired seeds, increasing.
        num_images: test images N.
        margin: equivalence margin in macro-F1, a fraction.
        alpha: family-wise error rate over rows and looks.
        num_rows: rows of the table.
        is_anytime: whether intervals hold at every number of seeds, instead of at the planned looks.
        num_sharing: rows that share what they say about the variance between seeds; 1 for a row that stands alone.
    """

    looks: tuple[int, ...]
    num_images: int
    margin: float
    alpha: float
    num_rows: int
    is_anytime: bool = False
    num_sharing: int = 1

    def __post_init__(self) -> None:
        if not self.looks or list(self.looks) != sorted(set(self.looks)) or self.looks[0] < 2:
            raise UserInputError(f"looks must be increasing numbers of seeds from 2, but got {list(self.looks)}")
        if self.num_images < 2:
            raise UserInputError(f"a comparison needs at least two test images, but got {self.num_images}")

    @property
    def confidence(self) -> float:
        """Confidence of the interval at each look."""
        return 1 - self.alpha / (self.num_rows * (1 if self.is_anytime else len(self.looks)))


@dataclass(frozen=True, slots=True, kw_only=True)
class LookForecast:
    """What one look is expected to give.

    Attributes:
        num_seeds: paired seeds of the look.
        half_width: median half-width of the row's interval, a fraction.
        low: 10 % quantile of the half-width.
        high: 90 % quantile.
        power: probability that the row is decided by this look, for true differences of 0, 1 and 2 margins.
    """

    num_seeds: int
    half_width: float
    low: float
    high: float
    power: tuple[float, ...]

    def meets(self, goal: Goal) -> bool:
        """Return whether the row is decided with the power of a goal, for each of its differences."""
        return all(self.power[MULTIPLES.index(multiple)] >= goal.power for multiple in goal.multiples)


def forecast_looks(
    components: VarianceComponents, test: PlannedTest, *, random_seed: int = 0
) -> tuple[LookForecast, ...]:
    """Return a forecast per look, from `NUM_DRAWS` simulated studies.

    Args:
        components: variances of the difference.
        test: the rule of the planned study.
        random_seed: of the draws.
    """
    drawn = _draw_looks(components, test, np.asarray(test.looks), random_seed)
    widths = np.quantile(drawn.half_widths, [RANGE[0], 0.5, RANGE[1]], axis=0).T.tolist()
    powers = np.stack([_power(drawn, m, test.margin) for m in MULTIPLES], axis=1).tolist()
    return tuple(
        LookForecast(num_seeds=number, half_width=middle, low=low, high=high, power=tuple(power))
        for number, (low, middle, high), power in zip(test.looks, widths, powers, strict=True)
    )


def find_needed_seeds(components: VarianceComponents, test: PlannedTest, goal: Goal = DECIDES_MARGIN) -> int | None:
    """Return the fewest seeds of a single look that meet the goal on the planned images; None if above `MAX_SEEDS`."""
    if not forecast_looks(components, replace(test, looks=(MAX_SEEDS,)))[0].meets(goal):
        return None

    def compute_power(drawn: _Drawn) -> FloatArray:
        powers = [_is_decided(drawn, m, test.margin).mean(axis=0) for m in goal.multiples]
        return np.asarray(np.min(powers, axis=0))

    return _find_fewest(components, test, compute_power, goal.power)


def _find_fewest(
    components: VarianceComponents, test: PlannedTest, compute_power: Callable[["_Drawn"], FloatArray], power: float
) -> int | None:
    """Return the fewest seeds of a single look at which the power, of (looks,), is large enough; None if above `MAX_SEEDS`."""
    for first in range(2, MAX_SEEDS + 1, CHUNK):
        seeds = np.arange(first, min(first + CHUNK, MAX_SEEDS + 1))
        drawn = _draw_looks(components, replace(test, looks=(MAX_SEEDS,)), seeds)
        enough = np.flatnonzero(compute_power(drawn) >= power)
        if len(enough):
            return int(seeds[enough[0]])
    return None


def find_needed_images(components: VarianceComponents, test: PlannedTest, goal: Goal = DECIDES_MARGIN) -> int | None:
    """Return the fewest test images, to within 2 %, with which the planned looks meet the goal; None where none do."""

    def decides(num_images: int) -> bool:
        planned = replace(test, num_images=num_images)
        return forecast_looks(components, planned)[-1].meets(goal)

    low, high = 2, MAX_IMAGES
    if not decides(high):
        return None
    while high > 1.02 * low + 1:
        middle = round(math.sqrt(low * high))
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def find_decidable_margin(components: VarianceComponents, test: PlannedTest) -> float | None:
    """Return the smallest margin that the planned looks decide, a fraction to within 0.01 pp; None if there is none below 1."""
    drawn = _draw_looks(components, test, np.asarray(test.looks))

    def decides(margin: float) -> bool:
        return bool(min(_power(drawn, m, margin)[-1] for m in DECIDES_MARGIN.multiples) >= DECIDES_MARGIN.power)

    low, high = 0.0, 1.0
    if not decides(high):
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def forecast_noninferiority(components: VarianceComponents, test: PlannedTest) -> tuple[float, int | None]:
    """Return the probability that the planned looks exclude a loss of the margin or more where there is no difference at all.

    The second value is the fewest seeds of a single look that exclude it with the usual power, None if above `MAX_SEEDS`.

    Args:
        components: variances of the difference.
        test: whose confidence is that of the two-sided interval with this lower bound, 1 - 2 level.
    """

    def exclude_loss(drawn: _Drawn) -> BoolArray:
        """Return where the lower bound lies above minus the margin, if there is no difference."""
        return np.asarray(drawn.deviations - drawn.half_widths > -test.margin)

    excluded = exclude_loss(_draw_looks(components, test, np.asarray(test.looks)))
    power = float(np.maximum.accumulate(excluded, axis=1)[:, -1].mean())
    return power, _find_fewest(components, test, lambda drawn: exclude_loss(drawn).mean(axis=0), POWER)


class _Drawn(NamedTuple):
    """Simulated studies, (draws, looks): deviation of the estimate from the true difference, half-width, discordant images."""

    deviations: FloatArray
    half_widths: FloatArray
    discordant: FloatArray


def _draw_looks(components: VarianceComponents, test: PlannedTest, seeds: IntArray, random_seed: int = 0) -> _Drawn:
    """Return simulated studies.

    Args:
        components: variances of the difference.
        test: the rule; its looks count for the confidence only.
        seeds: (looks,) numbers of seeds at which the studies are looked at.
        random_seed: of the draws.
    """
    generator = numpy_generator(random_seed, "plan")
    only_images, planned = _draw_image_variances(components, test.num_images, generator)
    only_images = only_images / test.num_images
    both = components.seeds_x_images / test.num_images
    per_seed = _draw_seed_variances(components, test.num_images, generator)
    noise = np.sqrt(per_seed) * generator.standard_normal((NUM_DRAWS, int(seeds[-1])))
    means = np.cumsum(noise, axis=1)[:, seeds - 1] / seeds
    squares = np.cumsum(noise**2, axis=1)[:, seeds - 1]
    variances = np.maximum(squares - seeds * means**2, 0.0) / (seeds - 1)
    freedom = seeds - 1.0
    if test.num_sharing >= MIN_ROWS:
        # The rows together say as much about their variance as so many degrees of freedom; a row's is never below its own.
        together = count_independent_rows(test.num_sharing) * freedom
        shared = per_seed * generator.chisquare(together, size=(NUM_DRAWS, len(seeds))) / together
        variances, freedom = np.maximum(variances, shared), freedom + LENT_SHARE * (together - freedom)
    deviations = means + np.sqrt(only_images) * generator.standard_normal((NUM_DRAWS, 1))
    image_variance = planned * (only_images + both / seeds)
    if test.is_anytime:
        half_widths = _compute_anytime_half_widths(variances, image_variance, seeds, test)
    else:
        half_widths = compute_half_width(
            variances / seeds,
            image_variance,
            planned * both / seeds,
            seed_freedom=np.asarray(freedom, dtype=np.float64),
            image_freedom=test.num_images - 1,
            alpha=1 - test.confidence,
            guard=Guard(test.num_images),
        )
    # A discordant image has a squared influence of about 1. The root of a count is nearly normal with a variance of 1/4.
    roots = np.sqrt(test.num_images * (test.num_images * only_images + components.seeds_x_images * seeds))
    discordant = np.square(np.maximum(roots + generator.standard_normal((NUM_DRAWS, 1)) / 2, 0.0))
    return _Drawn(deviations, half_widths, discordant)


def _draw_seed_variances(components: VarianceComponents, num_images: int, generator: np.random.Generator) -> FloatArray:
    """Return (draws, 1) true variances of one seed's difference on so many images; at least the seed x image noise."""
    noise = components.seeds_x_images / num_images
    if components.num_measured_seeds is None:
        return np.full((NUM_DRAWS, 1), max(components.seeds, 0.0) + noise)
    freedom = components.num_measured_seeds - 1
    measured_noise = components.seeds_x_images / (components.num_measured_images or num_images)
    measured = max(components.seeds + measured_noise, 0.0)
    drawn = measured * freedom / generator.chisquare(freedom, size=(NUM_DRAWS, 1))
    return np.asarray(np.maximum(drawn - measured_noise, 0.0) + noise)


def _draw_image_variances(
    components: VarianceComponents, num_images: int, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return (draws, 1) true variances between images, and factors: variance found by the planned study over the true one.

    The variance of N differences of 0/1 values has a relative variance of (1 / v - 1) / N, where v is their variance. What was
    measured is the variance of the mean over seeds, which holds a part of the seed x image noise.
    """
    variance = components.images + components.seeds_x_images
    excess = max(1 / variance - 1, 0.0) if variance > 0 else 0.0
    images = np.full((NUM_DRAWS, 1), components.images)
    if components.num_measured_images is not None:
        of_mean = components.images + components.seeds_x_images / (components.num_measured_seeds or 1)
        error = math.sqrt(excess / components.num_measured_images) * of_mean
        images = np.maximum(images + error * generator.standard_normal((NUM_DRAWS, 1)), 0.0)
    log_sd = math.sqrt(math.log1p(excess / num_images))
    return images, np.exp(log_sd * generator.standard_normal((NUM_DRAWS, 1)))


def _compute_anytime_half_widths(
    variances: FloatArray, image_variance: FloatArray, seeds: IntArray, test: PlannedTest
) -> FloatArray:
    """Return the half-widths of `compute_anytime_interval`."""
    error_rate = (1 - test.confidence) / 2
    factors = [compute_sequence_half_width(int(number), 1.0, error_rate) for number in seeds]
    quantile = -float(special.ndtri(error_rate / 2))
    return np.asarray(
        np.sqrt(variances) * factors
        + quantile * np.sqrt(guard_image_variance(image_variance, Guard(test.num_images), quantile))
    )


def _power(drawn: _Drawn, multiple: float, margin: float) -> FloatArray:
    """Return (looks,) shares of the studies that are decided by each look, where the true difference is so many margins."""
    return np.asarray(np.maximum.accumulate(_is_decided(drawn, multiple, margin), axis=1).mean(axis=0))


def _is_decided(drawn: _Drawn, multiple: float, margin: float) -> BoolArray:
    """Return where a verdict is BETTER, WORSE or EQUIVALENT, if the true difference is so many margins."""
    effects = np.abs(drawn.deviations + multiple * margin)
    is_equivalent = (effects + drawn.half_widths < margin) & (drawn.discordant >= MIN_DISCORDANT)
    return np.asarray((effects > drawn.half_widths) | is_equivalent)
