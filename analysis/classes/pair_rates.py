"""Confusion rates of pairs of classes: of an arm, of human annotators, and the difference."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.findings.class_findings import ConfusedPair, HumanExcess
from analysis.findings.interval import Interval, TwoIntervals
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.families import Scale, compute_family, mean_cell
from analysis.statistics.metrics import FloatArray

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
    cells = []
    for pair in pairs:
        images, mistaken = _mistaken(arm, pair)
        cells.append(mean_cell(mistaken, arm.labels[images], None if arm.groups is None else arm.groups[images]))
    return compute_family(cells, scale=Scale.PROPORTION, confidence=confidence)


def compute_human_excess(
    marks: FloatArray,
    human_rates: NDArray[np.float64],
    labels: NDArray[np.int64],
    confidence: float,
    groups: NDArray[np.int64] | None = None,
) -> HumanExcess:
    """Return an arm's confusion rate minus that of human annotators on the same images.

    Args:
        marks: (S, n) 1 where the arm makes the confusion.
        human_rates: (n,) share of annotators who make it.
        labels: (n,) classes of the images.
        confidence: of each interval, in (0, 1).
        groups: (n,) number of each image's group; None where images are independent.

    Returns:
        The excess; its words are `MACHINE_SPECIFIC` where the interval lies above 0, `AMBIGUOUS` where none of it does, else
        `OPEN`.
    """
    cell = mean_cell(marks - human_rates, labels, groups)
    (found,) = compute_family([cell], scale=Scale.DIFFERENCE, confidence=confidence)
    return HumanExcess(
        human_rate=float(human_rates.mean()), excess=found, word=_word(found.models), recipe_word=_word(found.recipe)
    )


def _word(excess: Interval | None) -> str | None:
    if excess is None:
        return None
    return MACHINE_SPECIFIC if excess.low > 0 else AMBIGUOUS if excess.high <= 0 else OPEN


def compare_with_humans(
    arm: ArmPredictions,
    pairs: Sequence[ConfusedPair],
    class_names: Sequence[str],
    human: NDArray[np.float64] | None,
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
        labels = arm.labels[images]
        human_rates = np.where(labels == one, human[images, other], human[images, one])
        groups = None if arm.groups is None else arm.groups[images]
        excess = compute_human_excess(mistaken, human_rates, labels, confidence, groups)
        compared.append(replace(pair, human=excess))
    return tuple(compared)


def _mistaken(arm: ArmPredictions, pair: tuple[int, int]) -> tuple[NDArray[np.int64], FloatArray]:
    """Return the n images of the two classes, and (S, n) 1 where an image is predicted as the other class."""
    one, other = pair
    images = np.flatnonzero(np.isin(arm.labels, (one, other)))
    opposite = np.where(arm.labels[images] == one, other, one)
    return images, np.asarray(arm.predicted[:, images] == opposite, dtype=np.float64)
