"""The crossed bootstrap over seeds and images, an independent check of the comparison's interval."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.comparison.paired_difference import clip_to_range, compute_difference
from analysis.statistics.arm_predictions import Side
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import FloatArray, IntArray, compute_weighted_macro_f1
from analysis.statistics.variances import NO_GUARD
from search_spaces.errors import UserInputError
from trainables.seeds import numpy_generator

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
    treatment: Side, control: Side, weights: NDArray[np.floating], seed_draws: NDArray[np.int64]
) -> FloatArray:
    """Return (B,) differences D* of macro-F1 for image weights (B, N) and drawn seed positions (B, S)."""
    sides = (treatment, control)
    predicted = np.concatenate([member.predicted for side in sides for member in side.members])
    scores = compute_weighted_macro_f1(treatment.labels, predicted, weights, treatment.num_classes)
    by_arm = scores.reshape(len(weights), -1, len(treatment.seeds))
    split = len(treatment.members)
    differences = treatment.scale * by_arm[:, :split].mean(axis=1) - control.scale * by_arm[:, split:].mean(axis=1)
    return np.asarray(np.take_along_axis(differences, seed_draws, axis=1).mean(axis=1))
