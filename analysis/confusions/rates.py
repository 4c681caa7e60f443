"""Confusion rates: of pairs of classes, of an arm and of human annotators by their counts, and of directed confusions.

The test of pairs (`analysis.confusions.clusters`) asks whether two classes are confused more often than chance would have it.
This asks whether a confusion is frequent: a cell of the confusion matrix is material if its interval lies above the tolerance.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from analysis.confusions.class_scores import check_class_names, compute_rates, make_cell
from analysis.confusions.values import CONFUSION_TOLERANCE, ConfusedPair, DirectedConfusion, HumanExcess, Materiality
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.families import Scale, compute_family, compute_two_intervals
from analysis.statistics.interval import Interval, TwoIntervals
from analysis.statistics.metrics import BoolArray, FloatArray, IntArray
from analysis.statistics.mid_p_bounds import compute_mid_p_tail
from search_spaces.errors import UserInputError

MACHINE_SPECIFIC, AMBIGUOUS, OPEN = "machine-specific", "ambiguous to people", "undecided"


def compute_pair_rates(
    arm: ArmPredictions, pairs: Sequence[tuple[int, int]], confidence: float
) -> tuple[TwoIntervals, ...]:
    """Return confusion rates as one family: the share of two classes' images that the arm predicts as the other class.

    Args:
        arm: S seeds over N images; each rate is the mean over seeds.
        pairs: of two different classes in [0, K).
        confidence: of each interval alone, in (0, 1).
    """
    cells = [make_cell(arm, *_mistaken(arm, pair)) for pair in pairs]
    return compute_family(cells, scale=Scale.PROPORTION, confidence=confidence)


def compute_human_excess(
    arm: ArmPredictions, images: IntArray, marks: FloatArray | BoolArray, human_rates: FloatArray, confidence: float
) -> HumanExcess:
    """Return an arm's confusion rate minus that of human annotators on the same images.

    Args:
        arm: S seeds over N images.
        images: (n,) indices of those that count.
        marks: (S, n) 1 or True where the arm makes the confusion.
        human_rates: (n,) share of annotators who make it.
        confidence: of each interval, in (0, 1).

    Returns:
        The excess; its words are `MACHINE_SPECIFIC` where the interval lies above 0, `AMBIGUOUS` where none of it does, else
        `OPEN`.
    """
    cell = make_cell(arm, images, marks - human_rates)
    found = compute_two_intervals(cell, scale=Scale.DIFFERENCE, confidence=confidence)
    return HumanExcess(
        human_rate=float(human_rates.mean()),
        excess=found,
        word=_word(found.models),
        recipe_word=None if found.recipe is None else _word(found.recipe),
    )


def _word(excess: Interval) -> str:
    return MACHINE_SPECIFIC if excess.low > 0 else AMBIGUOUS if excess.high <= 0 else OPEN


def compare_with_humans(
    arm: ArmPredictions,
    pairs: Sequence[ConfusedPair],
    class_names: Sequence[str],
    human: FloatArray | None,
    confidence: float,
) -> tuple[ConfusedPair, ...]:
    """Return the pairs with the comparison with human annotators; unchanged where there are no human counts.

    Args:
        arm: S seeds over N images.
        pairs: that the arm confuses.
        class_names: K names.
        human: (N, K) shares of annotators who chose each class; None where there are no human counts.
        confidence: of each interval.
    """
    if human is None:
        return tuple(pairs)
    index = {name: i for i, name in enumerate(class_names)}
    compared = []
    for pair in pairs:
        one, other = (index[name] for name in pair.classes)
        images, mistaken = _mistaken(arm, (one, other))
        human_rates = np.where(arm.labels[images] == one, human[images, other], human[images, one])
        excess = compute_human_excess(arm, images, mistaken, human_rates, confidence)
        compared.append(replace(pair, human=excess))
    return tuple(compared)


def _mistaken(arm: ArmPredictions, pair: tuple[int, int]) -> tuple[IntArray, FloatArray]:
    """Return the n images of the two classes, and (S, n) 1 where an image is predicted as the other class."""
    one, other = pair
    images = np.flatnonzero(np.isin(arm.labels, (one, other)))
    opposite = np.where(arm.labels[images] == one, other, one)
    return images, np.asarray(arm.predicted[:, images] == opposite, dtype=np.float64)


ALPHA = 0.05
MAX_LISTED = 50
MOST_IMAGES = 1_000_000


def compute_directed_confusions(
    arm: ArmPredictions, class_names: Sequence[str], human: FloatArray | None = None
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


def _compare_with_humans(arm: ArmPredictions, true: int, predicted: int, human: FloatArray) -> HumanExcess:
    images = np.flatnonzero(arm.labels == true)
    return compute_human_excess(arm, images, arm.predicted[:, images] == predicted, human[images, predicted], 1 - ALPHA)


def compute_human_shares(counts: NDArray[np.generic], num_images: int, class_names: Sequence[str]) -> FloatArray:
    """Return the share of annotators who chose each class.

    Args:
        counts: (N, K) numbers of annotators who chose each class for each image.
        num_images: N.
        class_names: K names.

    Returns:
        (N, K) float64; each row sums to 1.

    Raises:
        UserInputError: if the counts do not fit the images, are negative or not finite, or an image has none.
    """
    expected = (num_images, len(class_names))
    if counts.shape != expected:
        raise UserInputError(
            f"human counts must be (images, classes) = {expected}, a row for each image of the test set, but are {counts.shape}"
        )
    numbers = np.asarray(counts, dtype=np.float64)
    if not np.isfinite(numbers).all() or (numbers < 0).any():
        raise UserInputError("human counts must be finite and not negative")
    empty = np.flatnonzero(numbers.sum(axis=1) == 0)
    if len(empty):
        raise UserInputError(f"every image needs a human label, but image {empty[0]} of the test set has none")
    return np.asarray(numbers / numbers.sum(axis=1, keepdims=True))
