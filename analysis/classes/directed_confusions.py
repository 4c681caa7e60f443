"""Directed confusions: which class is called which, ranked by rate, and whether the rate matters.

The test of pairs (`analysis.classes.clusters`) asks whether two classes are confused more often than chance would have it. This
asks whether a confusion is frequent: a cell of the confusion matrix is material if its interval lies above the tolerance.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from analysis.classes.confusion_matrix import check_class_names, compute_rates
from analysis.classes.pair_rates import compute_human_excess
from analysis.findings.class_findings import CONFUSION_TOLERANCE, DirectedConfusion, HumanExcess, Materiality
from analysis.findings.interval import Interval
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.mid_p_bounds import compute_mid_p_tail

ALPHA = 0.05
MAX_LISTED = 50
MOST_IMAGES = 1_000_000


def compute_directed_confusions(
    arm: ArmPredictions, class_names: Sequence[str], human: NDArray[np.float64] | None = None
) -> tuple[tuple[DirectedConfusion, ...], int]:
    """Return the most frequent confusions, and the number of cells over which they are simultaneous.

    They are the `MAX_LISTED` most frequent ones, and all others that are MATERIAL.

    Args:
        arm: S seeds over N images; with one, there is no interval for the recipe.
        class_names: K names; a class indexes them.
        human: (N, K) shares of annotators who chose each class; None where there are no human counts.

    Raises:
        UserInputError: for names that do not fit.
    """
    check_class_names(arm, class_names)
    sizes = np.bincount(arm.labels, minlength=arm.num_classes)
    classes = range(arm.num_classes)
    pairs = [(i, j) for i in classes for j in classes if i != j and sizes[i]]
    confidence = 1 - ALPHA / max(len(pairs), 1)
    rates = compute_rates(arm, pairs, confidence)
    found = [pair for pair in pairs if rates[pair].estimate > 0]
    ranked = sorted(found, key=lambda pair: -rates[pair].estimate)
    material = [pair for pair in ranked[MAX_LISTED:] if judge_rate(rates[pair].models) is Materiality.MATERIAL]
    listed = [*ranked[:MAX_LISTED], *material]
    return tuple(
        DirectedConfusion(
            true_class=class_names[true],
            predicted_class=class_names[predicted],
            rate=rates[true, predicted],
            num_images=int(sizes[true]),
            verdict=judge_rate(rates[true, predicted].models),
            recipe_verdict=None if (recipe := rates[true, predicted].recipe) is None else judge_rate(recipe),
            images_to_decide=count_images_to_decide(rates[true, predicted].models, int(sizes[true]), confidence),
            human=None if human is None else _compare_with_humans(arm, true, predicted, human),
        )
        for true, predicted in listed
    ), len(pairs)


def judge_rate(rate: Interval) -> Materiality:
    """Return MATERIAL where the whole interval lies above the tolerance, NOT where it lies below, else UNDECIDED."""
    if rate.low > CONFUSION_TOLERANCE:
        return Materiality.MATERIAL
    return Materiality.NOT if rate.high < CONFUSION_TOLERANCE else Materiality.UNDECIDED


def count_images_to_decide(rate: Interval, num_images: int, confidence: float) -> int | None:
    """Return how many images of the class would decide an UNDECIDED cell, rounded up to two digits.

    It is the size at which the interval of one model with the present rate excludes the tolerance. Several seeds on the same
    images do a little better.

    Args:
        rate: with its interval for these models.
        num_images: of the class.
        confidence: of the interval, in (0, 1).

    Returns:
        The number; None for a cell that is decided, and where more than `MOST_IMAGES` would be needed.
    """
    if judge_rate(rate) is not Materiality.UNDECIDED:
        return None
    p, tail = rate.estimate, (1 - confidence) / 2
    # The upper bound of a proportion is the lower bound of the rest.
    share, tolerance = (p, CONFUSION_TOLERANCE) if p > CONFUSION_TOLERANCE else (1 - p, 1 - CONFUSION_TOLERANCE)

    def distance(size: float) -> float:
        """Return a value above 0 where the bound lies beyond the tolerance at this size."""
        hits, misses = np.array([share * size]), np.array([(1 - share) * size])
        return tail - float(compute_mid_p_tail(np.array([tolerance]), hits, misses)[0])

    if distance(MOST_IMAGES) <= 0:
        return None
    size = num_images if distance(num_images) > 0 else optimize.brentq(distance, num_images, MOST_IMAGES)
    unit = 10 ** max(len(str(int(size))) - 2, 0)
    return int(-(-(size + 1) // unit) * unit)


def _compare_with_humans(arm: ArmPredictions, true: int, predicted: int, human: NDArray[np.float64]) -> HumanExcess:
    images = np.flatnonzero(arm.labels == true)
    return compute_human_excess(arm, images, arm.predicted[:, images] == predicted, human[images, predicted], 1 - ALPHA)
