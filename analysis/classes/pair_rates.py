"""Confusion rates of pairs of classes: of an arm, of human annotators, and the difference."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.findings.class_findings import ConfusedPair, HumanExcess
from analysis.findings.interval import Interval
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.crossed_interval import compute_crossed_interval, compute_share_interval
from analysis.statistics.metrics import FloatArray

MACHINE_SPECIFIC, AMBIGUOUS, OPEN = "machine-specific", "ambiguous to people", "undecided"


def compute_pair_rate(arm: ArmPredictions, one: int, other: int, confidence: float) -> Interval:
    """Return the confusion rate: the share of the two classes' images that the arm predicts as the other class.

    Args:
        arm: S >= 2 seeds over N images; the rate is the mean over seeds.
        one: class in [0, K).
        other: another class.
        confidence: of the interval for new seeds and new images.

    Raises:
        UserInputError: for one seed, and for a class with one image.
    """
    images, mistaken = _mistaken(arm, one, other)
    return compute_share_interval(mistaken, arm.labels[images], arm.num_classes, confidence)


def compute_human_excess(
    arm: ArmPredictions, one: int, other: int, human: NDArray[np.float64], confidence: float
) -> HumanExcess:
    """Return the arm's confusion rate minus that of human annotators on the same images.

    Args:
        arm: S >= 2 seeds over N images.
        one: class in [0, K).
        other: another class.
        human: (N, K) shares of annotators who chose each class.
        confidence: of the interval for new seeds and new images.

    Returns:
        The excess; its word is `MACHINE_SPECIFIC` where the interval lies above 0, `AMBIGUOUS` where none of it does, else
        `OPEN`.
    """
    images, mistaken = _mistaken(arm, one, other)
    labels = arm.labels[images]
    human_rates = np.where(labels == one, human[images, other], human[images, one])
    gaps = mistaken - human_rates
    values = gaps.mean(axis=1)
    found = compute_crossed_interval(values, gaps - values[:, None], labels, arm.num_classes, confidence).interval
    word = MACHINE_SPECIFIC if found.low > 0 else AMBIGUOUS if found.high <= 0 else OPEN
    return HumanExcess(human_rate=float(human_rates.mean()), excess=found, word=word)


def compare_with_humans(
    arm: ArmPredictions,
    pairs: Sequence[ConfusedPair],
    class_names: Sequence[str],
    human: NDArray[np.float64] | None,
    confidence: float,
) -> tuple[ConfusedPair, ...]:
    """Return the pairs with the comparison with human annotators; unchanged where there are no human counts.

    Args:
        arm: S >= 2 seeds over N images.
        pairs: that the arm confuses.
        class_names: K names.
        human: (N, K) shares of annotators who chose each class; None where there are no human counts.
        confidence: of each interval.
    """
    if human is None:
        return tuple(pairs)
    index = {name: i for i, name in enumerate(class_names)}
    return tuple(
        replace(
            pair, human=compute_human_excess(arm, index[pair.classes[0]], index[pair.classes[1]], human, confidence)
        )
        for pair in pairs
    )


def _mistaken(arm: ArmPredictions, one: int, other: int) -> tuple[NDArray[np.int64], FloatArray]:
    """Return the n images of the two classes, and (S, n) 1 where an image is predicted as the other class."""
    images = np.flatnonzero(np.isin(arm.labels, (one, other)))
    opposite = np.where(arm.labels[images] == one, other, one)
    return images, np.asarray(arm.predicted[:, images] == opposite, dtype=np.float64)
