"""Precision, recall and F1 per class and macro-F1 of one arm, with intervals for new seeds and new images."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analysis.classes.confusion_matrix import check_class_names, compute_rate_interval
from analysis.findings.class_findings import ClassScore
from analysis.findings.interval import Interval
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.crossed_interval import CrossedEstimate, compute_crossed_interval, compute_proportion_interval
from analysis.statistics.influence import compute_f1_influence, compute_macro_f1_influence, compute_precision_influence
from analysis.statistics.metrics import (
    FloatArray,
    IntArray,
    compute_confusion_counts,
    compute_f1_from_confusion,
    compute_macro_f1,
    compute_precision_from_confusion,
)


def compute_class_scores(arm: ArmPredictions, class_names: Sequence[str], confidence: float) -> tuple[ClassScore, ...]:
    """Return precision, recall and F1 of each class, means over seeds, with intervals inside [0, 1].

    Args:
        arm: S >= 2 seeds over N images.
        class_names: K names; a class indexes them.
        confidence: of each interval alone, in (0, 1).

    Raises:
        UserInputError: for one seed, for a class with exactly one image, and for names that do not fit.
    """
    check_class_names(arm, class_names)
    counts = compute_confusion_counts(arm.labels, arm.predicted, arm.num_classes)
    return tuple(_score_class(arm, counts, index, name, confidence) for index, name in enumerate(class_names))


def compute_macro_f1_interval(arm: ArmPredictions, confidence: float) -> CrossedEstimate:
    """Return an arm's macro-F1, mean over seeds, with its interval clipped to [0, 1].

    Predictions without any variance (all correct, or all of one class) get the interval of a proportion over the N images
    instead of one of zero width.

    Args:
        arm: S >= 2 seeds over N images.
        confidence: two-sided, in (0, 1).

    Raises:
        UserInputError: for one seed, and for a class with exactly one image.
    """
    scores = compute_macro_f1(arm.labels, arm.predicted, arm.num_classes)
    influence = compute_macro_f1_influence(arm.labels, arm.predicted, arm.num_classes)
    found = compute_crossed_interval(scores, influence, arm.labels, arm.num_classes, confidence)
    if found.standard_error == 0:
        interval = compute_proportion_interval(
            found, num_seeds=1, num_observations=len(arm.labels), confidence=confidence
        )
    else:
        whole = found.interval
        interval = replace(whole, low=max(whole.low, 0.0), high=min(whole.high, 1.0))
    return replace(found, interval=interval)


def _score_class(arm: ArmPredictions, counts: IntArray, index: int, class_name: str, confidence: float) -> ClassScore:
    """Score one class from the seeds' (S, K, K) counts."""
    num_images = int(counts[0, index].sum())
    num_predicted = float(counts[:, :, index].sum(axis=1).mean())
    num_either = num_images + num_predicted - float(counts[:, index, index].mean())

    def interval(values: FloatArray, influence: FloatArray, num_observations: float) -> Interval:
        found = compute_crossed_interval(values, influence, arm.labels, arm.num_classes, confidence)
        return compute_proportion_interval(
            found, num_seeds=len(arm.seeds), num_observations=num_observations, confidence=confidence
        )

    return ClassScore(
        class_name=class_name,
        precision=interval(
            np.ascontiguousarray(compute_precision_from_confusion(counts)[:, index]),
            compute_precision_influence(arm.labels, arm.predicted, index),
            num_predicted,
        ),
        recall=compute_rate_interval(arm, index, index, confidence),
        f1=interval(
            np.ascontiguousarray(compute_f1_from_confusion(counts)[:, index]),
            compute_f1_influence(arm.labels, arm.predicted, index),
            num_either,
        ),
        num_images=num_images,
    )
