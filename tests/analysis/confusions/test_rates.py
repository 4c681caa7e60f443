"""Directed confusions: ranked by rate, judged against the tolerance, and how many images would decide."""

import numpy as np
import pytest
from scipy.stats import binom

from analysis.confusions.rates import ALPHA, compute_directed_confusions
from analysis.confusions.values import CONFUSION_TOLERANCE, DirectedConfusion, Materiality
from analysis.statistics.arm_predictions import ArmPredictions
from tests.built_values import arm_of

NAMES = ("glass", "metal", "paper", "trash", "cardboard", "plastic")
NUM_CELLS = 30


def make_arm(num_wrong: dict[tuple[int, int], int], num_images: int = 83, num_seeds: int = 1) -> ArmPredictions:
    """Return predictions of six classes with so many images of one class predicted as another, in every seed."""
    labels = np.repeat(np.arange(6), num_images)
    predicted = labels.copy()
    for (true, called), number in num_wrong.items():
        own = np.flatnonzero((labels == true) & (predicted == true))[:number]
        predicted[own] = called
    return arm_of(labels, np.tile(predicted, (num_seeds, 1)))


def find(num_wrong: int, **options: int) -> DirectedConfusion:
    """Return the cell in which `num_wrong` images of "trash" are called "glass"."""
    (cell,), number = compute_directed_confusions(make_arm({(3, 0): num_wrong}, **options), NAMES)
    assert number == NUM_CELLS
    return cell


def test_a_frequent_confusion_is_material_though_it_goes_one_way_only() -> None:
    cells, _ = compute_directed_confusions(make_arm({(3, 0): 29, (1, 0): 15, (5, 2): 3}), NAMES)
    assert [(c.true_class, c.predicted_class) for c in cells] == [
        ("trash", "glass"),
        ("metal", "glass"),
        ("plastic", "paper"),
    ]
    assert [c.verdict for c in cells] == [Materiality.MATERIAL, Materiality.MATERIAL, Materiality.UNDECIDED]
    assert all(c.recipe_verdict is None and c.rate.recipe is None for c in cells)


def test_material_of_one_model_needs_what_the_exact_interval_needs() -> None:
    """Of 83 images, 12 are the fewest at which a rate of 5 % has a mid-p value below half of alpha / 30."""
    mid_p = [binom.sf(k, 83, CONFUSION_TOLERANCE) + binom.pmf(k, 83, CONFUSION_TOLERANCE) / 2 for k in (11, 12)]
    assert [p < ALPHA / NUM_CELLS / 2 for p in mid_p] == [False, True]
    assert [find(k).verdict for k in (11, 12)] == [Materiality.UNDECIDED, Materiality.MATERIAL]


def test_the_images_that_would_decide_do_decide() -> None:
    cell = find(3)
    assert cell.verdict is Materiality.UNDECIDED
    needed = cell.images_to_decide
    assert needed is not None
    assert needed > 83
    decided = find(round(3 / 83 * needed), num_images=needed)
    assert decided.verdict is Materiality.NOT
    assert decided.images_to_decide is None
    half = needed // 2
    assert find(round(3 / 83 * half), num_images=half).verdict is Materiality.UNDECIDED


def test_a_rate_at_the_tolerance_cannot_be_decided() -> None:
    assert find(5, num_images=100).images_to_decide is None


def test_seeds_that_differ_leave_the_recipe_undecided() -> None:
    arm = make_arm({(3, 0): 20}, num_seeds=3)
    predicted = arm.predicted.copy()
    predicted[1, arm.labels == 3] = 3
    varied = arm_of(arm.labels, predicted)
    (cell,), _ = compute_directed_confusions(varied, NAMES)
    assert cell.verdict is Materiality.MATERIAL
    assert cell.recipe_verdict is Materiality.UNDECIDED


def test_human_shares_are_compared_in_the_same_direction() -> None:
    arm = make_arm({(3, 0): 29})
    human = np.eye(6)[arm.labels]
    human[arm.labels == 3] = 0.2 * np.eye(6)[0] + 0.8 * np.eye(6)[3]
    (cell,), _ = compute_directed_confusions(arm, NAMES, human)
    assert cell.human is not None
    assert cell.human.human_rate == pytest.approx(0.2)
    assert cell.human.excess.estimate == pytest.approx(29 / 83 - 0.2)
    assert cell.human.recipe_word is None
