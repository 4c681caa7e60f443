"""Differences between two sides class by class: exploratory, with control of the false discovery rate."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy import stats

from analysis.classes.confusion_matrix import check_class_names
from analysis.findings.comparison_findings import ClassDifference
from analysis.statistics.arm_predictions import ArmPredictions, Side, average_members, check_paired
from analysis.statistics.crossed_interval import compute_crossed_interval, compute_p_value
from analysis.statistics.influence import compute_f1_influence
from analysis.statistics.metrics import FloatArray, compute_confusion_counts, compute_f1_from_confusion

FALSE_DISCOVERY_RATE = 0.10
CONFIDENCE = 0.95


def compute_class_differences(
    treatment: Side, control: Side, class_names: Sequence[str]
) -> tuple[ClassDifference, ...]:
    """Return treatment minus control in F1, class by class, with 95 % intervals and adjusted p-values.

    A class is flagged if its adjusted p-value is at most `FALSE_DISCOVERY_RATE` (Benjamini and Hochberg 1995, JRSS B 57:289).

    Args:
        treatment: with S >= 2 seeds.
        control: with the same seeds and images.
        class_names: K names; a class indexes them.

    Raises:
        UserInputError: for sides that do not pair, one seed, or names that do not fit.
    """
    check_paired(treatment, control)
    check_class_names(treatment, class_names)
    labels, num_classes = treatment.labels, treatment.num_classes
    f1 = average_members(treatment, _class_f1) - average_members(control, _class_f1)
    found = []
    for index in range(num_classes):
        compute = partial(_class_f1_influence, index=index)
        influence = average_members(treatment, compute) - average_members(control, compute)
        values = np.ascontiguousarray(f1[:, index])
        found.append(compute_crossed_interval(values, influence, labels, num_classes, CONFIDENCE, treatment.groups))
    p_values = [compute_p_value(estimate) for estimate in found]
    adjusted = stats.false_discovery_control(p_values, method="bh")
    return tuple(
        ClassDifference(
            class_name=name,
            effect=estimate.interval,
            p_value=p_value,
            p_adjusted=float(p_adjusted),
            is_flagged=bool(p_adjusted <= FALSE_DISCOVERY_RATE),
        )
        for name, estimate, p_value, p_adjusted in zip(class_names, found, p_values, adjusted, strict=True)
    )


def _class_f1(arm: ArmPredictions) -> FloatArray:
    """Return (S, K) F1 of each class."""
    return compute_f1_from_confusion(compute_confusion_counts(arm.labels, arm.predicted, arm.num_classes))


def _class_f1_influence(arm: ArmPredictions, index: int) -> FloatArray:
    return compute_f1_influence(arm.labels, arm.predicted, index)
