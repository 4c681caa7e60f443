"""Two other intervals of a row of the A/B table beside that of `paired_difference`: anytime-valid, and bootstrapped.

Anytime-valid intervals hold simultaneously at every number of seeds, so results may be inspected at any time. The part for new
seeds is the confidence sequence of the t-mixture martingale: a normal prior on the standardized effect, the right Haar prior
on the scale (Lai 1976, Ann. Stat. 4:265; Gonen et al. 2005, Am. Stat. 59:252; Wang and Ramdas 2023, arXiv:2310.03722). Given
the test images, it covers the difference that infinitely many seeds would show on them. The deviation of this difference from
that on new images is sampled once, with the images, so an ordinary interval covers it at every look. Each part has half of the
error rate.

The crossed bootstrap over seeds and images is an independent check of the comparison's interval.
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.comparison.paired_difference import MAX_SEEDS, clip_to_range, compute_difference, compute_seed_differences
from analysis.statistics.arm_predictions import Side
from analysis.statistics.crossed_interval import compute_t_quantile
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import FloatArray, IntArray, compute_weighted_macro_f1
from analysis.statistics.variances import NO_GUARD, guard_image_variance
from search_spaces.errors import UserInputError
from trainables.seeds import numpy_generator

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


CHUNK_WEIGHTS = 4_000_000


def compute_crossed_bootstrap(
    treatment: Side, control: Side, *, confidence: float, random_seed: int = 0, num_draws: int = 5000
) -> Interval:
    """Return the interval of treatment minus control from resampled seeds and images, to check that of `compute_difference`.

    Each draw takes seeds with replacement, the same for both arms, and multinomial image weights within each class,
    shared by arms and seeds; macro-F1 comes from weighted confusion counts (crossed bootstrap: Owen 2007, Ann. Appl.
    Stat. 1:386). The interval is D +- SD(D*) times the half-width of `compute_difference` in standard errors, both without
    pseudo-observations, because percentiles are too narrow with fewer than ten seeds. Resampling both ways counts the
    seed x image noise three times (SD^2 is near V_S (S-1)/S + V_I + V_SI), so this interval is the wider one where that noise
    is large.

    Args:
        treatment: with S >= 2 seeds.
        control: with the same seeds and images.
        confidence: two-sided, in (0, 1).
        random_seed: of the draws.
        num_draws: B >= 2.

    Raises:
        UserInputError: for arms that do not pair, one seed, or fewer than two draws.
    """
    if num_draws < 2:
        raise UserInputError(f"`num_draws >= 2` must hold, but got {num_draws}; 5000 is usual")
    found = replace(compute_difference(treatment, control, confidence), guard=NO_GUARD)
    generator = numpy_generator(random_seed, "crossed-bootstrap")
    num_seeds, num_images = len(treatment.seeds), len(treatment.labels)
    chunk = max(1, CHUNK_WEIGHTS // num_images)
    draws = []
    for start in range(0, num_draws, chunk):
        size = min(chunk, num_draws - start)
        weights = draw_image_weights(treatment.labels, size, generator, treatment.groups)
        seed_draws = generator.integers(num_seeds, size=(size, num_seeds))
        draws.append(compute_bootstrap_differences(treatment, control, weights, seed_draws))
    deviation = float(np.std(np.concatenate(draws), ddof=1))
    estimate = found.interval.estimate
    half_width = found.half_width * deviation / found.standard_error if found.standard_error > 0 else 0.0
    unbounded = Interval(estimate=estimate, low=estimate - half_width, high=estimate + half_width)
    return clip_to_range(unbounded, treatment, control)


def draw_image_weights(
    labels: IntArray, num_draws: int, generator: np.random.Generator, groups: IntArray | None = None
) -> NDArray[np.float32]:
    """Return (B, N) float32 weights: for each draw, multinomial counts that sum to the number of units of each stratum.

    The units are images stratified by class, or the groups of images that `groups` (N,) numbers; all images of a group have its
    count. Groups are stratified by class where each lies within one class.
    """
    if groups is not None:
        number = np.unique(groups, return_inverse=True)[1]
        first = np.unique(number, return_index=True)[1]
        strata = labels[first] if np.array_equal(labels[first][number], labels) else np.zeros_like(first)
        return np.ascontiguousarray(draw_image_weights(strata, num_draws, generator)[:, number])
    weights = np.empty((num_draws, len(labels)), dtype=np.float32)
    rows = np.arange(num_draws)[:, None]
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        picks = generator.integers(len(images), size=(num_draws, len(images))) + rows * len(images)
        counts = np.bincount(picks.ravel(), minlength=picks.size)
        weights[:, images] = counts.reshape(picks.shape)
    return weights


def compute_bootstrap_differences(
    treatment: Side, control: Side, weights: NDArray[np.floating], seed_draws: IntArray
) -> FloatArray:
    """Return (B,) differences D* of macro-F1 for image weights (B, N) and drawn seed positions (B, S)."""
    sides = (treatment, control)
    predicted = np.concatenate([member.predicted for side in sides for member in side.members])
    scores = compute_weighted_macro_f1(treatment.labels, predicted, weights, treatment.num_classes)
    by_arm = scores.reshape(len(weights), -1, len(treatment.seeds))
    split = len(treatment.members)
    differences = treatment.scale * by_arm[:, :split].mean(axis=1) - control.scale * by_arm[:, split:].mean(axis=1)
    return np.asarray(np.take_along_axis(differences, seed_draws, axis=1).mean(axis=1))
