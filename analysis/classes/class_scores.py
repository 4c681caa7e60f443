"""Precision, recall and F1 per class and macro-F1 of one arm, with intervals for both questions."""

from collections.abc import Callable, Sequence

import numpy as np

from analysis.classes.confusion_matrix import check_class_names, compute_rates
from analysis.findings.class_findings import ClassScore
from analysis.findings.interval import TwoIntervals
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.families import Cell, Scale, compute_family, compute_two_intervals
from analysis.statistics.influence import compute_f1_influence, compute_macro_f1_influence, compute_precision_influence
from analysis.statistics.metrics import (
    FloatArray,
    IntArray,
    compute_confusion_counts,
    compute_f1_from_confusion,
    compute_macro_f1,
    compute_precision_from_confusion,
)

# Return (S, N) influence of the images on a statistic of one class, from labels (N,), predicted (S, N) and the class.
_ComputeInfluence = Callable[[IntArray, IntArray, int], FloatArray]


def compute_class_scores(arm: ArmPredictions, class_names: Sequence[str], confidence: float) -> tuple[ClassScore, ...]:
    """Return precision, recall and F1 of each class, means over seeds, with intervals inside [0, 1].

    The classes are one family each for precision, recall and F1.

    Args:
        arm: S seeds over N images; with one, there is no interval for the recipe.
        class_names: K names; a class indexes them.
        confidence: of each interval alone, in (0, 1).

    Raises:
        UserInputError: for names that do not fit.
    """
    check_class_names(arm, class_names)
    labels, predicted = arm.labels, arm.predicted
    counts = compute_confusion_counts(labels, predicted, arm.num_classes)
    true, called = counts.sum(axis=2), counts.sum(axis=1)
    hits = np.diagonal(counts, axis1=1, axis2=2)
    classes = range(arm.num_classes)

    def bound(values: FloatArray, sizes: IntArray, compute_influence: _ComputeInfluence) -> tuple[TwoIntervals, ...]:
        """Return the intervals of (S, K) values that rest on (S, K) images."""
        cells = [
            Cell(
                values=values[:, c],
                influence=compute_influence(labels, predicted, c),
                labels=labels,
                num_observations=float(sizes[:, c].mean()),
                groups=arm.groups,
            )
            for c in classes
        ]
        return compute_family(cells, scale=Scale.PROPORTION, confidence=confidence)

    precision = bound(compute_precision_from_confusion(counts), called, compute_precision_influence)
    f1 = bound(compute_f1_from_confusion(counts), true + called - hits, compute_f1_influence)
    recall = compute_rates(arm, [(c, c) for c in classes], confidence)
    return tuple(
        ClassScore(class_name=name, precision=precision[c], recall=recall[c, c], f1=f1[c], num_images=int(true[0, c]))
        for c, name in enumerate(class_names)
    )


def compute_macro_f1_intervals(arm: ArmPredictions, confidence: float) -> TwoIntervals:
    """Return an arm's macro-F1, mean over seeds, with its intervals inside [0, 1].

    Args:
        arm: S seeds over N images; with one, there is no interval for the recipe.
        confidence: two-sided, in (0, 1).
    """
    cell = Cell(
        values=compute_macro_f1(arm.labels, arm.predicted, arm.num_classes),
        influence=compute_macro_f1_influence(arm.labels, arm.predicted, arm.num_classes),
        labels=arm.labels,
        num_observations=len(arm.labels),
        groups=arm.groups,
    )
    return compute_two_intervals(cell, scale=Scale.PROPORTION, confidence=confidence)
