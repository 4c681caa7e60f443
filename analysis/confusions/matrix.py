"""The confusion matrix of one arm over its seeds: counts, rates with intervals, excess over chance, and examples of its cells."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.confusions.values import Confusion, ConfusionExamples
from analysis.statistics.arm_predictions import ArmPredictions, Side
from analysis.statistics.families import Cell, Scale, compute_family, mean_cell
from analysis.statistics.interval import Interval, TwoIntervals
from analysis.statistics.metrics import FloatArray, IntArray, compute_confusion_counts, divide_or_zero
from search_spaces.errors import UserInputError


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
    counts = compute_confusion_counts(arm.labels, arm.predicted, arm.num_classes).mean(axis=0)
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
