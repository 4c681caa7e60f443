"""The confusion matrix of one arm over its seeds: counts, rates with intervals, excess over chance."""

from collections.abc import Sequence

import numpy as np

from analysis.findings.class_findings import Confusion
from analysis.findings.interval import Interval
from analysis.statistics.arm_predictions import ArmPredictions, Side
from analysis.statistics.crossed_interval import compute_crossed_interval, compute_proportion_interval
from analysis.statistics.influence import compute_rate_influence
from analysis.statistics.metrics import FloatArray, compute_confusion_counts, divide_or_zero
from search_spaces.errors import UserInputError


def compute_confusion(arm: ArmPredictions, class_names: Sequence[str], confidence: float) -> Confusion:
    """Return the confusion matrix of an arm, with an interval for new seeds and new images in each cell.

    A class without images has rates of 0 with the interval [0, 1].

    Args:
        arm: S >= 2 seeds over N images.
        class_names: K names; a class indexes them.
        confidence: of each cell's interval alone, in (0, 1).

    Raises:
        UserInputError: for one seed, for a class with exactly one image, and for names that do not fit.
    """
    check_class_names(arm, class_names)
    counts = compute_confusion_counts(arm.labels, arm.predicted, arm.num_classes).mean(axis=0)
    classes = range(arm.num_classes)
    return Confusion(
        counts=_to_tuples(counts),
        rates=tuple(tuple(compute_rate_interval(arm, i, j, confidence) for j in classes) for i in classes),
        excess=_to_tuples(compute_excess(counts)),
    )


def compute_rate_interval(arm: ArmPredictions, true_class: int, predicted_class: int, confidence: float) -> Interval:
    """Return P(predicted_class | true_class), mean over seeds, with its interval inside [0, 1].

    The images of the true class are the sample.

    Args:
        arm: S >= 2 seeds over N images.
        true_class: in [0, K).
        predicted_class: in [0, K).
        confidence: two-sided, in (0, 1).

    Raises:
        UserInputError: for one seed, and for a class with exactly one image.
    """
    images = np.flatnonzero(arm.labels == true_class)
    if not len(images):
        return Interval(estimate=0.0, low=0.0, high=1.0)
    labels, predicted = arm.labels[images], arm.predicted[:, images]
    rates = (predicted == predicted_class).mean(axis=1)
    influence = compute_rate_influence(labels, predicted, true_class, predicted_class)
    found = compute_crossed_interval(rates, influence, labels, arm.num_classes, confidence)
    return compute_proportion_interval(
        found, num_seeds=len(arm.seeds), num_observations=len(images), confidence=confidence
    )


def compute_excess(counts: FloatArray) -> FloatArray:
    """Return (K, K) rates minus the rates expected by chance, from (K, K) counts; 0 on the diagonal.

    By chance, the errors of a row are distributed over the wrong classes in proportion to how often each class is wrongly
    predicted over all rows.
    """
    rates = divide_or_zero(counts, counts.sum(axis=1, keepdims=True))
    wrong = counts - np.diag(np.diagonal(counts))
    popularity = np.tile(wrong.sum(axis=0), (len(counts), 1))
    np.fill_diagonal(popularity, 0.0)
    error_rates = divide_or_zero(wrong.sum(axis=1), counts.sum(axis=1))[:, None]
    expected = error_rates * divide_or_zero(popularity, popularity.sum(axis=1, keepdims=True))
    excess = rates - expected
    np.fill_diagonal(excess, 0.0)
    return excess


def check_class_names(arm: Side, class_names: Sequence[str]) -> None:
    """Raise UserInputError unless there is one name per class of the arm."""
    if len(class_names) != arm.num_classes:
        raise UserInputError(
            f"arm {arm.name!r} has {arm.num_classes} classes and needs as many names, but got {len(class_names)}"
        )


def _to_tuples(matrix: FloatArray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
