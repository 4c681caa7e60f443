"""Scores of the classes of one arm over its seeds: precision, recall, F1, macro-F1, the confusion matrix, contrasts of groups.

The confusion matrix has counts, rates with intervals, the excess over chance, and examples of its cells.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.confusions.values import ClassScore, Confusion, ConfusionExamples, GroupContrast
from analysis.statistics import metrics
from analysis.statistics.arm_predictions import ArmPredictions, Side
from analysis.statistics.families import Cell, Scale, compute_family, compute_two_intervals, mean_cell
from analysis.statistics.interval import Interval, TwoIntervals
from analysis.statistics.metrics import FloatArray, IntArray
from search_spaces.errors import UserInputError, nearest_name, refuse_any

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
    counts = metrics.compute_confusion_counts(labels, predicted, arm.num_classes)
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

    precision = bound(metrics.compute_precision_from_confusion(counts), called, metrics.compute_precision_influence)
    f1 = bound(metrics.compute_f1_from_confusion(counts), true + called - hits, metrics.compute_f1_influence)
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
        values=metrics.compute_macro_f1(arm.labels, arm.predicted, arm.num_classes),
        influence=metrics.compute_macro_f1_influence(arm.labels, arm.predicted, arm.num_classes),
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
    refuse_any(list_unknown_classes(groups, tuple(f1)))
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


def compute_confusion(arm: ArmPredictions, class_names: Sequence[str], confidence: float) -> Confusion:
    """Return the confusion matrix of an arm, with the intervals for both questions in each cell.

    A class without images has rates of 0 with the interval [0, 1].

    Args:
        arm: S seeds over N images; with one, there is no interval for the recipe.
        class_names: K names; a class indexes them.
        confidence: of each cell's interval alone, in (0, 1).

    Raises:
        UserInputError: for names that do not fit.
    """
    check_class_names(arm, class_names)
    counts = metrics.compute_confusion_counts(arm.labels, arm.predicted, arm.num_classes).mean(axis=0)
    classes = range(arm.num_classes)
    rates = compute_rates(arm, [(i, j) for i in classes for j in classes], confidence)
    return Confusion(
        counts=_to_tuples(counts),
        rates=tuple(tuple(rates[i, j] for j in classes) for i in classes),
        excess=_to_tuples(compute_excess(counts)),
    )


def compute_rates(
    arm: ArmPredictions, pairs: Sequence[tuple[int, int]], confidence: float
) -> dict[tuple[int, int], TwoIntervals]:
    """Return P(predicted class | true class), mean over seeds, with its intervals, as one family.

    The images of the true class are the sample; a true class without images has the rate 0 with the interval [0, 1].

    Args:
        arm: S seeds over N images.
        pairs: (true class, predicted class), each in [0, K).
        confidence: of each interval alone, in (0, 1).
    """
    images = {label: np.flatnonzero(arm.labels == label) for label in {true for true, _ in pairs}}
    known = [pair for pair in pairs if len(images[pair[0]])]
    unknown = Interval(estimate=0.0, low=0.0, high=1.0)
    nothing = TwoIntervals(models=unknown, recipe=unknown if len(arm.seeds) > 1 else None)
    cells = [make_cell(arm, images[true], arm.predicted[:, images[true]] == predicted) for true, predicted in known]
    found = compute_family(cells, scale=Scale.PROPORTION, confidence=confidence)
    return dict.fromkeys(pairs, nothing) | dict(zip(known, found, strict=True))


def make_cell(arm: ArmPredictions, images: IntArray, values: NDArray[np.generic]) -> Cell:
    """Return the cell of the mean of (S, n) values over n images of the arm's, which are given by their (n,) indices."""
    groups = None if arm.groups is None else arm.groups[images]
    return mean_cell(np.asarray(values, dtype=np.float64), arm.labels[images], groups)


def compute_excess(counts: FloatArray) -> FloatArray:
    """Return (K, K) rates minus the rates expected by chance, from (K, K) counts; 0 on the diagonal.

    By chance, the errors of a row are distributed over the wrong classes in proportion to how often each class is wrongly
    predicted over all rows.
    """
    rates = metrics.divide_or_zero(counts, counts.sum(axis=1, keepdims=True))
    wrong = counts - np.diag(np.diagonal(counts))
    popularity = np.tile(wrong.sum(axis=0), (len(counts), 1))
    np.fill_diagonal(popularity, 0.0)
    error_rates = metrics.divide_or_zero(wrong.sum(axis=1), counts.sum(axis=1))[:, None]
    expected = error_rates * metrics.divide_or_zero(popularity, popularity.sum(axis=1, keepdims=True))
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


# Cells of an arm, and images of a cell, that are listed.
MAX_CELLS = 60
MAX_IMAGES = 8


def find_confusion_examples(arm: ArmPredictions, class_names: Sequence[str]) -> tuple[ConfusionExamples, ...]:
    """Return examples of at most MAX_CELLS confusions, those first with the most images.

    Args:
        arm: S seeds over N images.
        class_names: K names; a class indexes them.
    """
    votes = np.stack([(arm.predicted == number).sum(axis=0) for number in range(arm.num_classes)], axis=1)
    votes[np.arange(len(arm.labels)), arm.labels] = 0
    images, predicted = np.nonzero(votes)
    cells: dict[tuple[int, int], list[int]] = {}
    for image, other in zip(images.tolist(), predicted.tolist(), strict=True):
        cells.setdefault((int(arm.labels[image]), other), []).append(image)
    found = []
    for (label, other), own in sorted(cells.items(), key=lambda cell: (-len(cell[1]), cell[0]))[:MAX_CELLS]:
        first = sorted(own, key=lambda image: (-votes[image, other], arm.sample_ids[image]))[:MAX_IMAGES]
        found.append(
            ConfusionExamples(
                true_class=class_names[label],
                predicted_class=class_names[other],
                num_images=len(own),
                sample_ids=tuple(int(arm.sample_ids[image]) for image in first),
                num_seeds=tuple(int(votes[image, other]) for image in first),
            )
        )
    return tuple(found)
