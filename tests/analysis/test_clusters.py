"""Clusters of confused classes: the test keeps its level and both margins, and finds what was put in."""

import numpy as np
import pytest

from analysis.clusters import (
    ALPHA,
    compute_pair_test,
    find_clusters,
    fit_quasi_independence,
)
from analysis.comparison import ArmPredictions
from analysis.pair_rates import (
    AMBIGUOUS,
    MACHINE_SPECIFIC,
    OPEN,
    check_human_counts,
    compute_human_excess,
    compute_pair_rate,
)
from search_spaces.errors import UserInputError

K = 10
NAMES = tuple("abcdefghij")
POPULARITY = np.array([0.2, 0.16, 0.12, 0.1, 0.1, 0.08, 0.08, 0.06, 0.06, 0.04])
ERROR_RATES = np.array([0.5, 0.1, 0.3, 0.2, 0.4, 0.05, 0.3, 0.25, 0.2, 0.35])


def draw_arm(
    seed: int,
    *,
    num_images: int = 600,
    num_seeds: int = 3,
    confused: tuple[tuple[int, ...], ...] = (),
    share: float = 0.0,
    stickiness: float = 0.8,
) -> ArmPredictions:
    """Return an arm whose errors fall on classes by popularity, unequal in rows and columns.

    Where an image is wrong it is wrong in most seeds and mostly with the same label, so seeds are far from independent. Of the
    errors of classes in a group of `confused`, `share` fall on the group's other classes.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % K
    hard = rng.random(num_images) < ERROR_RATES[labels]
    usual = np.array([draw_wrong(rng, label, confused, share) for label in labels])
    predicted = np.tile(labels, (num_seeds, 1))
    for s in range(num_seeds):
        wrong = hard & (rng.random(num_images) < stickiness)
        fresh = np.array([draw_wrong(rng, label, confused, share) for label in labels])
        said = np.where(rng.random(num_images) < stickiness, usual, fresh)
        predicted[s, wrong] = said[wrong]
    return ArmPredictions(
        name="arm",
        seeds=tuple(range(num_seeds)),
        labels=labels,
        sample_ids=np.arange(num_images),
        predicted=predicted,
        num_classes=K,
    )


def draw_wrong(rng: np.random.Generator, label: int, confused: tuple[tuple[int, ...], ...], share: float) -> int:
    for group in confused:
        if label in group and rng.random() < share:
            return int(rng.choice([c for c in group if c != label]))
    weights = np.where(np.arange(K) == label, 0, POPULARITY)
    return int(rng.choice(K, p=weights / weights.sum()))


def test_family_wise_error_is_kept_with_unequal_margins_and_dependent_seeds() -> None:
    num = 120
    rejected = 0
    for seed in range(num):
        arm = draw_arm(seed, num_images=300)
        test = compute_pair_test(arm, np.random.default_rng(seed), num_permutations=99)
        rejected += bool((test.p_adjusted <= ALPHA).any())
    assert rejected / num <= ALPHA + 2 * np.sqrt(ALPHA * (1 - ALPHA) / num)


def test_margins_are_kept_and_chance_is_near_quasi_independence() -> None:
    arm = draw_arm(1)
    test = compute_pair_test(arm, np.random.default_rng(0))
    wrong = np.zeros((K, K))
    for row in arm.predicted:
        np.add.at(wrong, (arm.labels, row), row != arm.labels)
    assert np.array_equal(test.observed, wrong + wrong.T)
    # What both margins fix: of each class, how often it is wrong and how often it is wrongly said.
    assert test.expected.sum(axis=1) == pytest.approx(wrong.sum(axis=1) + wrong.sum(axis=0))
    fitted = fit_quasi_independence(wrong)
    assert fitted.sum(axis=1) == pytest.approx(wrong.sum(axis=1), rel=1e-6)
    assert fitted.sum(axis=0) == pytest.approx(wrong.sum(axis=0), rel=1e-6)
    assert test.expected == pytest.approx(fitted + fitted.T, rel=0.25, abs=4)


def test_planted_cluster_is_found_and_stable_and_repeats() -> None:
    arm = draw_arm(2, num_images=3000, confused=((2, 4, 7),), share=0.6)
    pairs, clusters = find_clusters(arm, NAMES)
    assert {pair.classes for pair in pairs} == {("c", "e"), ("c", "h"), ("e", "h")}
    assert all(pair.rate.low > pair.expected_rate for pair in pairs)
    assert [cluster.classes for cluster in clusters] == [("c", "e", "h")]
    assert clusters[0].stability >= 0.95
    assert find_clusters(arm, NAMES) == (pairs, clusters)


def test_two_pairs_are_two_clusters() -> None:
    arm = draw_arm(3, num_images=3000, confused=((4, 9), (2, 3)), share=0.6)
    pairs, clusters = find_clusters(arm, NAMES)
    assert {pair.classes for pair in pairs} == {("e", "j"), ("c", "d")}
    assert {cluster.classes for cluster in clusters} == {("e", "j"), ("c", "d")}


def test_no_errors_no_clusters() -> None:
    labels = np.arange(100) % K
    arm = ArmPredictions(
        name="perfect",
        seeds=(1, 2),
        labels=labels,
        sample_ids=np.arange(100),
        predicted=np.tile(labels, (2, 1)),
        num_classes=K,
    )
    assert find_clusters(arm, NAMES) == ((), ())


def test_human_excess_and_its_word() -> None:
    arm = draw_arm(4, num_images=1800, confused=((0, 4),), share=0.9)
    n = len(arm.labels)
    clear = np.eye(K)[arm.labels]
    rate = compute_pair_rate(arm, 0, 4, 0.95)
    found = compute_human_excess(arm, 0, 4, clear, 0.95)
    assert (found.human_rate, found.word) == (0.0, MACHINE_SPECIFIC)
    assert found.excess.estimate == pytest.approx(rate.estimate)
    blurred = clear.copy()
    blurred[np.isin(arm.labels, (0, 4))] = 0.4 * np.eye(K)[0] + 0.6 * np.eye(K)[4]
    assert compute_human_excess(arm, 0, 4, blurred, 0.95).word == AMBIGUOUS
    same = clear.copy()
    images = np.isin(arm.labels, (0, 4))
    other = np.where(arm.labels == 0, 4, 0)
    same[images, arm.labels[images]] = 1 - rate.estimate
    same[images, other[images]] = rate.estimate
    as_people = compute_human_excess(arm, 0, 4, same, 0.95)
    assert as_people.word == OPEN
    assert as_people.excess.low < 0 < as_people.excess.high
    assert n == 1800


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
        check_human_counts(counts, 10, NAMES)
