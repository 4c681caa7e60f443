"""Precision, recall and F1 per class and macro-F1 of one arm, and contrasts of groups of classes."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from analysis.confusions.matrix import check_class_names, compute_rates
from analysis.confusions.values import ClassScore, GroupContrast
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.families import Cell, Scale, compute_family, compute_two_intervals
from analysis.statistics.interval import TwoIntervals
from analysis.statistics.metrics import (
    FloatArray,
    IntArray,
    compute_confusion_counts,
    compute_f1_from_confusion,
    compute_f1_influence,
    compute_macro_f1,
    compute_macro_f1_influence,
    compute_precision_from_confusion,
    compute_precision_influence,
)
from search_spaces.errors import UserInputError, nearest_name

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


# The exact test is left out where the classes can be divided in more ways than this.
MAX_DIVISIONS = 2_000_000


def compute_group_contrasts(
    scores: Sequence[ClassScore], groups: Mapping[str, Sequence[str]]
) -> tuple[GroupContrast, ...]:
    """Return, for each pair of groups, the difference of their mean F1 with an exact permutation test over the classes.

    The units are the classes, regardless of the number of images: the test enumerates every division of the two groups' classes
    into groups of the same sizes (Fisher's exact permutation test, two-sided).

    Args:
        scores: one per class.
        groups: names of classes by the name of their group. Two that share classes have no contrast; the group of an
            intervention and one of the study may.

    Raises:
        UserInputError: for a group with an unknown class.
    """
    f1 = {score.class_name: score.f1.estimate for score in scores}
    problems = list_unknown_classes(groups, tuple(f1))
    if problems:
        raise UserInputError("; ".join(problems))
    found = []
    for one, other in itertools.combinations(groups, 2):
        if set(groups[one]) & set(groups[other]):
            continue
        contrast = _compare(one, other, [f1[c] for c in groups[one]], [f1[c] for c in groups[other]])
        if contrast is not None:
            found.append(contrast)
    return tuple(found)


def list_unknown_classes(groups: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> list[str]:
    """Return which groups of classes name classes that do not exist."""
    return [
        f"the group {group!r} names the class {name!r}{nearest_name(name, class_names)}"
        for group, classes in groups.items()
        for name in classes
        if name not in class_names
    ]


def list_group_problems(groups: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> list[str]:
    """Return what is wrong with groups of classes: classes that do not exist, and classes in two groups."""
    problems = list_unknown_classes(groups, class_names)
    for one, other in itertools.combinations(groups, 2):
        both = set(groups[one]) & set(groups[other])
        if both:
            problems.append(f"the groups {one!r} and {other!r} must not share classes, but both have {min(both)!r}")
    return problems


def _compare(one: str, other: str, first: list[float], second: list[float]) -> GroupContrast | None:
    values = np.array(first + second)
    total, size = len(values), len(first)
    if not first or not second or math.comb(total, size) > MAX_DIVISIONS:
        return None
    chosen = np.array(list(itertools.combinations(range(total), size)))
    means = values[chosen].mean(axis=1)
    differences = means - (values.sum() - means * size) / (total - size)
    observed = float(differences[0])
    # A rounding error must not make a division look less extreme than itself.
    p_value = float(np.mean(np.abs(differences) >= abs(observed) - 1e-12))
    return GroupContrast(
        groups=(one, other),
        difference=observed,
        p_value=p_value,
        smallest_p=1 / len(chosen) if size * 2 != total else 2 / len(chosen),
        num_classes=total,
    )
