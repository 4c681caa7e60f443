from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.crossed_interval import compute_crossed_interval
from analysis.statistics.families import Scale, compute_family, mean_cell
from analysis.statistics.variances import compute_variances, find_sampling_units
from search_spaces.errors import UserInputError


def draw(num_seeds=3, num_images=24, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(num_seeds, num_images))
    return values.mean(axis=1), values - values.mean(axis=1, keepdims=True)


def test_groups_of_one_image_change_nothing():
    values, influence = draw()
    labels = np.arange(24) % 3
    plain = compute_variances(values, influence, find_sampling_units(labels))
    grouped = compute_variances(
        values, influence, find_sampling_units(labels, np.random.default_rng(1).permutation(24))
    )
    assert grouped == pytest.approx(plain)


def test_groups_that_span_classes_are_one_stratum():
    values, influence = draw()
    labels, groups = np.arange(24) % 3, np.arange(24) // 4
    totals = influence.mean(axis=0).reshape(6, 4).sum(axis=1)
    rest = (influence - influence.mean(axis=0)).reshape(3, 6, 4).sum(axis=2)
    found = compute_variances(values, influence, find_sampling_units(labels, groups))
    assert found.images == pytest.approx(6 / 5 * np.sum(totals**2) / 24**2)
    assert found.seeds_x_images == pytest.approx(np.sum(rest**2) / 2 * 6 / 5 / (3 * 24**2))


def test_groups_within_classes_are_stratified_by_them():
    values, influence = draw()
    labels, groups = np.arange(24) // 12, np.arange(24) // 3
    order = np.random.default_rng(2).permutation(24)
    expected = 0.0
    for label in (0, 1):
        mine = influence.mean(axis=0)[labels == label]
        expected += 4 / 3 * np.sum((mine - mine.mean()).reshape(4, 3).sum(axis=1) ** 2) / 24**2
    found = compute_variances(values, influence[:, order], find_sampling_units(labels[order], groups[order]))
    assert found.images == pytest.approx(expected)


def test_each_class_loses_a_degree_of_freedom_to_its_mean():
    """Two classes with two groups each, of which the image part has two degrees of freedom."""
    values, influence = np.zeros(2), np.array([[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]] * 2)
    labels, groups = np.repeat([0, 1], 4), np.repeat(np.arange(4), 2)
    influence = influence - influence.mean()
    found = compute_crossed_interval(values, influence, labels, 2, 0.95, groups=groups)
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, 2) * found.image_variance**0.5)


def test_copies_of_images_widen_nothing_only_if_they_are_grouped():
    """Each image five times says no more about new images than once."""
    values, influence = draw(num_images=40)
    labels = np.arange(40) % 2
    once = compute_crossed_interval(values, influence, labels, 2, 0.95)
    copied = np.repeat(influence, 5, axis=1), np.repeat(labels, 5)
    grouped = compute_crossed_interval(values, *copied, 2, 0.95, groups=np.repeat(np.arange(40), 5))
    assert grouped.image_variance == pytest.approx(once.image_variance)
    # Groups within classes lose a degree of freedom to the mean of each class.
    assert grouped.image_freedom == 38
    assert grouped.half_width == pytest.approx(replace(once, image_freedom=38).half_width)
    assert grouped.num_units == 40
    assert compute_crossed_interval(values, *copied, 2, 0.95).image_variance < once.image_variance / 4


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([2], None, "at least two images, but there is one image; enlarge the split"),
        ([0, 1, 0, 1], [7, 7, 7, 7], "at least two groups of images, but there is one group; enlarge the split"),
        ([0, 0, 1, 1], [1, 2, 5], "one number per image"),
        ([], None, "needs images, but there are none"),
    ],
)
def test_too_few_units_are_refused(labels, groups, message):
    with pytest.raises(UserInputError, match=message):
        find_sampling_units(np.array(labels, dtype=np.int64), None if groups is None else np.array(groups))


@pytest.mark.parametrize(
    ("labels", "groups", "strata"),
    [
        # A single image joins the smallest of the other classes, two of them each other.
        ([0, 0, 0, 1, 1, 2], None, [0, 0, 0, 1, 1, 1]),
        ([0, 0, 0, 1, 2], None, [0, 0, 0, 1, 1]),
        ([0, 0, 1, 1, 1], [1, 2, 5, 5, 5], [0, 0, 0, 0, 0]),
    ],
)
def test_classes_with_one_unit_are_collapsed_into_one_stratum(labels, groups, strata):
    rng = np.random.default_rng(3)
    values, influence = np.zeros(3), rng.normal(size=(3, len(labels)))
    groups = None if groups is None else np.array(groups)
    found = compute_variances(values, influence, find_sampling_units(np.array(labels), groups))
    assert found.images > 0
    assert found == compute_variances(values, influence, find_sampling_units(np.array(strata), groups))


def test_a_share_of_one_image_is_unknown_and_the_others_keep_their_intervals():
    alone = mean_cell(np.ones((3, 1)), np.zeros(1, dtype=np.int64))
    other = mean_cell(np.array([[1.0, 0.0] * 10] * 3), np.zeros(20, dtype=np.int64))
    one, many = compute_family([alone, other], scale=Scale.PROPORTION, confidence=0.95)
    assert (one.recipe.low, one.recipe.high) == (0.0, 1.0)
    assert 0.2 < many.recipe.low < many.recipe.high < 0.8
