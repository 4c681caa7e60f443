"""Anytime-valid intervals: they hold simultaneously at every number of seeds, so results may be inspected at any time.

The part for new seeds is the confidence sequence of the t-mixture martingale: a normal prior on the standardized effect, the
right Haar prior on the scale (Lai 1976, Ann. Stat. 4:265; Gonen et al. 2005, Am. Stat. 59:252; Wang and Ramdas 2023,
arXiv:2310.03722). Given the test images, it covers the difference that infinitely many seeds would show on them. The deviation
of this difference from that on new images is sampled once, with the images, so an ordinary interval covers it at every look.
Each part has half of the error rate.
"""

import math

import numpy as np

from analysis.comparison.paired_difference import MAX_SEEDS, clip_to_range, compute_difference, compute_seed_differences
from analysis.statistics.arm_predictions import Side
from analysis.statistics.crossed_interval import compute_t_quantile
from analysis.statistics.interval import Interval
from analysis.statistics.variances import guard_image_variance

# Standard deviation of the prior on the standardized effect: wide, so that few seeds suffice.
EFFECT_SCALE = 3.0


def compute_anytime_interval(treatment: Side, control: Side, confidence: float) -> Interval:
    """Return treatment minus control in macro-F1 with an interval that holds simultaneously at all numbers of seeds.

    With fewer seeds than `compute_fewest_seeds`, the interval is the whole possible range, and no look can decide.

    Args:
        treatment: with S >= 2 seeds.
        control: with the same seeds and images.
        confidence: in (0, 1).

    Raises:
        UserInputError: for arms that do not pair, and for one seed.
    """
    found = compute_difference(treatment, control, confidence)
    differences = compute_seed_differences(treatment, control)
    error_rate = (1 - confidence) / 2
    seeds = compute_sequence_half_width(len(differences), float(np.std(differences, ddof=1)), error_rate)
    quantile = float(compute_t_quantile(1 - error_rate, found.image_freedom))
    images = quantile * math.sqrt(guard_image_variance(found.image_variance, found.guard, quantile))
    estimate = found.interval.estimate
    unbounded = Interval(estimate=estimate, low=estimate - seeds - images, high=estimate + seeds + images)
    return clip_to_range(unbounded, treatment, control)


def describe_what_settles_anytime(treatment: Side, control: Side, margin: float, confidence: float) -> str:
    """Return a sentence with the number of seeds that would decide an UNDECIDED row, as `describe_what_settles` does.

    Args:
        treatment: with S >= 2 seeds.
        control: with the same seeds and images.
        margin: the equivalence margin, a fraction.
        confidence: in (0, 1).
    """
    found, now = compute_difference(treatment, control, confidence), len(treatment.seeds)
    effect, error_rate = abs(found.interval.estimate), (1 - confidence) / 2
    needed = max(effect, margin - effect)
    deviation = float(np.std(compute_seed_differences(treatment, control), ddof=1))
    quantile = float(compute_t_quantile(1 - error_rate, found.image_freedom))
    both = min(found.seed_image_variance, found.image_variance)
    for seeds in range(now, MAX_SEEDS + 1):
        image_variance = found.image_variance - both + both * now / seeds
        images = quantile * math.sqrt(guard_image_variance(image_variance, found.guard, quantile))
        if compute_sequence_half_width(seeds, deviation, error_rate) + images < needed:
            return f"about {seeds} seeds would settle it (now {now}), if the difference stays"
    if quantile * math.sqrt(guard_image_variance(found.image_variance - both, found.guard, quantile)) < needed:
        return f"more than {MAX_SEEDS} seeds would be needed at the present difference"
    return "more seeds cannot settle this; more test images are needed"


def compute_fewest_seeds(confidence: float) -> int:
    """Return the smallest number of seeds at which the confidence sequence of `compute_anytime_interval` is finite."""
    return next(n for n in range(2, 1000) if math.isfinite(compute_sequence_half_width(n, 1.0, (1 - confidence) / 2)))


def compute_sequence_half_width(num_values: int, standard_deviation: float, error_rate: float) -> float:
    """Return the half-width of the confidence sequence around the mean of the first n normal values.

    The true mean lies outside at any n with a probability of at most `error_rate`. The sequence is the set of means that the
    t-mixture martingale M does not reject, M < 1 / error_rate, with nu = n - 1, r = 1 / (1 + n * scale^2) and
    M = sqrt(r) * ((1 + t^2 / nu) / (1 + r * t^2 / nu))^(n / 2).

    Args:
        num_values: n >= 2.
        standard_deviation: of the values.
        error_rate: in (0, 1).
    """
    shrink = 1 / (1 + num_values * EFFECT_SCALE**2)
    bound = (1 / (error_rate * math.sqrt(shrink))) ** (2 / num_values)
    if bound * shrink >= 1:
        return math.inf
    squared_t = (num_values - 1) * (bound - 1) / (1 - bound * shrink)
    return math.sqrt(squared_t / num_values) * standard_deviation
