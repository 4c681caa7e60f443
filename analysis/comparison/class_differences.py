"""Differences between two sides class by class: exploratory, with control of the false discovery rate."""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from scipy import stats

from analysis.comparison.values import ClassDifference
from analysis.confusions.matrix import check_class_names
from analysis.statistics.arm_predictions import ArmPredictions, Side, average_members, check_paired
from analysis.statistics.families import Cell, Scale, compute_family, compute_recipe_p_values
from analysis.statistics.metrics import (
    FloatArray,
    compute_confusion_counts,
    compute_f1_from_confusion,
    compute_f1_influence,
)

FALSE_DISCOVERY_RATE = 0.10
CONFIDENCE = 0.95


def compute_class_differences(
    treatment: Side, control: Side, class_names: Sequence[str]
) -> tuple[ClassDifference, ...]:
    """Return treatment minus control in F1, class by class, with 95 % intervals and adjusted p-values.

    The classes are one family with moderated variances between seeds (`analysis.statistics.families`); each p-value is the
    inverse of the class's interval for new seeds. A class is flagged if its adjusted p-value is at most
    `FALSE_DISCOVERY_RATE` (Benjamini and Hochberg 1995, JRSS B 57:289).

    Args:
        treatment: of S seeds.
        control: with the same seeds and images.
        class_names: K names; a class indexes them.

    Returns:
        One per class, in the order of the names; none for one seed, where a difference for new seeds is not defined.

    Raises:
        UserInputError: for sides that do not pair, or names that do not fit.
    """
    check_paired(treatment, control)
    check_class_names(treatment, class_names)
    if len(treatment.seeds) < 2:
        return ()
    cells = make_class_cells(treatment, control, range(treatment.num_classes))
    found = compute_family(cells, scale=Scale.DIFFERENCE, confidence=CONFIDENCE)
    p_values = compute_recipe_p_values(cells, scale=Scale.DIFFERENCE)
    adjusted = stats.false_discovery_control(p_values, method="bh")
    differences = []
    for name, both, p_value, p_adjusted in zip(class_names, found, p_values.tolist(), adjusted.tolist(), strict=True):
        assert both.recipe is not None
        differences.append(
            ClassDifference(
                class_name=name,
                effect=both.recipe,
                p_value=p_value,
                p_adjusted=p_adjusted,
                is_flagged=p_adjusted <= FALSE_DISCOVERY_RATE,
                models_effect=both.models,
            )
        )
    return tuple(differences)


def make_class_cells(treatment: Side, control: Side, classes: Iterable[int]) -> list[Cell]:
    """Return the difference in F1 of each class, treatment minus control, as one family.

    Args:
        treatment: of S seeds.
        control: with the same seeds and images.
        classes: in [0, K).
    """
    f1 = average_members(treatment, _class_f1) - average_members(control, _class_f1)
    sizes = (average_members(treatment, _class_sizes) + average_members(control, _class_sizes)) / 2
    cells = []
    for index in classes:
        compute = partial(_class_f1_influence, index=index)
        influence = average_members(treatment, compute) - average_members(control, compute)
        values = np.ascontiguousarray(f1[:, index])
        cells.append(
            Cell(
                values=values,
                influence=influence,
                labels=treatment.labels,
                num_observations=float(sizes[index]),
                groups=treatment.groups,
            )
        )
    return cells


def _class_f1(arm: ArmPredictions) -> FloatArray:
    """Return (S, K) F1 of each class."""
    return compute_f1_from_confusion(compute_confusion_counts(arm.labels, arm.predicted, arm.num_classes))


def _class_sizes(arm: ArmPredictions) -> FloatArray:
    """Return (K,) images that are of the class or predicted as it, the mean over seeds."""
    counts = compute_confusion_counts(arm.labels, arm.predicted, arm.num_classes)
    either = counts.sum(axis=-1) + counts.sum(axis=-2) - np.diagonal(counts, axis1=-2, axis2=-1)
    return np.asarray(either.mean(axis=0))


def _class_f1_influence(arm: ArmPredictions, index: int) -> FloatArray:
    return compute_f1_influence(arm.labels, arm.predicted, index)
