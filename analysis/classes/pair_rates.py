"""Confusion rates of pairs of classes: of an arm, of human annotators, and the difference."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.classes.confusion_matrix import make_cell
from analysis.findings.class_findings import ConfusedPair, HumanExcess
from analysis.findings.interval import Interval, TwoIntervals
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.families import Scale, compute_family, compute_two_intervals
from analysis.statistics.metrics import FloatArray, IntArray

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
    arm: ArmPredictions,
    images: IntArray,
    marks: FloatArray | NDArray[np.bool_],
    human_rates: FloatArray,
    confidence: float,
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
