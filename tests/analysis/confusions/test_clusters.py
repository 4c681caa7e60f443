"""Clusters of confused classes: the test keeps its level and both margins, and finds planted clusters."""

import numpy as np
import pytest

from analysis.confusions.clusters import ALPHA, _fit, compute_pair_test, find_clusters
from analysis.confusions.rates import (
    AMBIGUOUS,
    MACHINE_SPECIFIC,
    OPEN,
    compare_with_humans,
    compute_human_shares,
    compute_pair_rates,
)
from analysis.confusions.values import ConfusedPair, HumanExcess
from benchmarks.validation.cluster_tables import NUM_CLASSES, ConfusedArm
from search_spaces.errors import UserInputError
from tests.built_values import arm_of

K = NUM_CLASSES
NAMES = tuple("abcdefghij")


def test_family_wise_error_is_kept_with_unequal_margins_and_dependent_seeds() -> None:
    num = 120
    rejected = 0
    for seed in range(num):
        arm = ConfusedArm(num_images=300).draw(seed)
        test = compute_pair_test(arm, np.random.default_rng(seed), num_permutations=99)
        rejected += bool((test.p_adjusted <= ALPHA).any())
    assert rejected / num <= ALPHA + 2 * np.sqrt(ALPHA * (1 - ALPHA) / num)


def test_margins_are_kept_and_chance_is_near_quasi_independence() -> None:
    arm = ConfusedArm(num_images=600).draw(1)
    test = compute_pair_test(arm, np.random.default_rng(0))
    wrong = np.zeros((K, K))
    for row in arm.predicted:
        np.add.at(wrong, (arm.labels, row), row != arm.labels)
    varies = test.deviation > 0
    observed = test.expected[varies] + test.z[varies] * test.deviation[varies]
    assert observed == pytest.approx((wrong + wrong.T)[varies])
    assert varies.sum() == K * (K - 1)
    # Both margins: how often each class is wrong, and how often it is wrongly predicted.
    assert test.expected.sum(axis=1) == pytest.approx(wrong.sum(axis=1) + wrong.sum(axis=0))
    fitted, _ = _fit(wrong, np.zeros(wrong.shape, dtype=bool), None)
    assert fitted.sum(axis=1) == pytest.approx(wrong.sum(axis=1), rel=1e-6)
    assert fitted.sum(axis=0) == pytest.approx(wrong.sum(axis=0), rel=1e-6)
    assert test.expected == pytest.approx(fitted + fitted.T, rel=0.25, abs=4)


def test_planted_cluster_is_found_and_stable_and_repeats() -> None:
    arm = ConfusedArm(num_images=3000, group=(2, 4, 7), share=0.6).draw(2)
    pairs, clusters = find_clusters(arm, NAMES)
    assert {pair.classes for pair in pairs} == {("c", "e"), ("c", "h"), ("e", "h")}
    assert all(pair.rate.recipe.low > pair.expected_rate for pair in pairs)
    assert [cluster.classes for cluster in clusters] == [("c", "e", "h")]
    assert clusters[0].stability >= 0.95
    assert find_clusters(arm, NAMES) == (pairs, clusters)


def test_a_strong_pair_does_not_bias_the_others() -> None:
    """The margins are fixed, so the errors of the strong pair are missing elsewhere; this must not produce further pairs."""
    pairs, clusters = find_clusters(ConfusedArm(num_images=4000, group=(0, 4), share=0.8).draw(3), NAMES)
    assert {pair.classes for pair in pairs} == {("a", "e")}
    assert [cluster.classes for cluster in clusters] == [("a", "e")]


def test_no_errors_no_clusters() -> None:
    labels = np.arange(100) % K
    assert find_clusters(arm_of(labels, np.tile(labels, (2, 1))), NAMES) == ((), ())


def test_human_excess_and_its_word() -> None:
    arm = ConfusedArm(num_images=1800, group=(0, 4), share=0.9).draw(4)
    (rate,) = compute_pair_rates(arm, [(0, 4)], 0.95)
    pair = ConfusedPair(classes=("a", "e"), rate=rate, expected_rate=0.1, p_adjusted=0.01)

    def compare(human: np.ndarray) -> HumanExcess:
        (found,) = compare_with_humans(arm, [pair], NAMES, human, 0.95)
        assert found.human is not None
        return found.human

    clear = np.eye(K)[arm.labels]
    found = compare(clear)
    assert (found.human_rate, found.word, found.recipe_word) == (0.0, MACHINE_SPECIFIC, MACHINE_SPECIFIC)
    assert found.excess.estimate == pytest.approx(rate.estimate)
    blurred = clear.copy()
    blurred[np.isin(arm.labels, (0, 4))] = 0.4 * np.eye(K)[0] + 0.6 * np.eye(K)[4]
    assert compare(blurred).word == AMBIGUOUS
    same = clear.copy()
    images = np.isin(arm.labels, (0, 4))
    other = np.where(arm.labels == 0, 4, 0)
    same[images, arm.labels[images]] = 1 - rate.estimate
    same[images, other[images]] = rate.estimate
    as_people = compare(same)
    assert as_people.word == OPEN
    assert as_people.excess.models.low < 0 < as_people.excess.models.high


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.ones((9, K)), r"= \(10, 10\), a row for each image of the test set, but are \(9, 10\)"),
        (np.ones((10, K + 1)), r"but are \(10, 11\)"),
        (np.full((10, K), np.nan), "finite"),
        (-np.ones((10, K)), "not negative"),
        (np.eye(10, K, -1), "image 0 of the test set has none"),
    ],
)
def test_bad_human_counts_are_named(counts: np.ndarray, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        compute_human_shares(counts, 10, NAMES)
