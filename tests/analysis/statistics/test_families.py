from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.statistics.crossed_interval import compute_crossed_interval
from analysis.statistics.families import (
    Cell,
    Scale,
    class_cells,
    compute_family,
    compute_recipe_p_values,
    compute_two_intervals,
    mean_cell,
)
from analysis.statistics.mid_p_bounds import compute_mid_p_bounds
from analysis.statistics.moderated_variances import moderate_variances
from search_spaces.errors import UserInputError


def shares_cell(counts, num_images):
    """A cell of seeds with these counts of hits, which fall on the first images."""
    hits = np.arange(num_images) < np.asarray(counts)[:, None]
    return mean_cell(hits.astype(np.float64), np.zeros(num_images, dtype=np.int64))


def draw_cells(num_cells=6, num_seeds=3, num_images=60, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % 3
    return [
        mean_cell(rng.normal(size=(num_seeds, 1)) * scale + rng.normal(size=(num_seeds, num_images)), labels)
        for _ in range(num_cells)
    ]


def test_one_unbounded_cell_has_the_crossed_interval():
    (cell,) = draw_cells(1)
    both = compute_two_intervals(cell, scale=Scale.UNBOUNDED, confidence=0.9)
    crossed = compute_crossed_interval(cell.values, cell.influence, cell.labels, 3, 0.9)
    assert both.recipe.low == pytest.approx(crossed.interval.low)
    assert both.recipe.high == pytest.approx(crossed.interval.high)
    half_width = stats.t.ppf(0.95, 59) * np.sqrt(crossed.image_variance)
    assert both.models.high - both.estimate == pytest.approx(half_width)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 12), min_size=2, max_size=2), min_size=1, max_size=4),
    st.sampled_from([0.5, 0.95, 0.99999]),
    st.booleans(),
)
def test_intervals_stay_in_their_range_and_around_the_estimate(counts, confidence, is_difference):
    cells = [shares_cell(c, 12) for c in counts]
    if is_difference:
        cells = [mean_cell(2 * (c.values[:, None] + c.influence) - 1, c.labels) for c in cells]
    scale, least = (Scale.DIFFERENCE, -1.0) if is_difference else (Scale.PROPORTION, 0.0)
    for cell, both in zip(cells, compute_family(cells, scale=scale, confidence=confidence), strict=True):
        for interval in (both.models, both.recipe):
            assert least <= interval.low <= interval.estimate <= interval.high <= 1.0
            assert interval.estimate == pytest.approx(cell.values.mean())
            assert interval.high - interval.low > 0.01


def test_a_single_model_has_the_mid_p_interval_of_a_binomial():
    """Of one image less, for the variance is unbiased."""
    for hits in (0, 1, 7, 20):
        found = compute_two_intervals(shares_cell([hits], 20), scale=Scale.PROPORTION, confidence=0.95)
        assert found.recipe is None
        low, high = compute_mid_p_bounds(np.full(2, hits / 20), np.array([19.0, 20.0]), np.full(2, 0.025))
        assert low[0] <= found.models.low <= low[1]
        assert high[1] - 1e-12 <= found.models.high <= high[0]


def test_mid_p_bounds_are_those_of_the_definition():
    (low,), (high,) = compute_mid_p_bounds(np.array([0.35]), np.array([20.0]), np.array([0.025]))
    assert stats.binom.sf(7, 20, low) + stats.binom.pmf(7, 20, low) / 2 == pytest.approx(0.025)
    assert stats.binom.cdf(6, 20, high) + stats.binom.pmf(7, 20, high) / 2 == pytest.approx(0.025)
    (low,), (high,) = compute_mid_p_bounds(np.array([0.0]), np.array([20.0]), np.array([0.025]))
    assert (low, high) == (0, pytest.approx(1 - 0.05 ** (1 / 20)))
    (low,), (high,) = compute_mid_p_bounds(np.array([0.04]), np.array([1e-7]), np.array([1e-5]))
    assert (low, high) == (pytest.approx(0, abs=1e-9), pytest.approx(1, abs=1e-9))


def test_mid_p_bounds_lie_inside_the_exact_ones_and_mirror():
    shares, sizes, tails = np.array([0.0, 0.1, 0.5, 1.0]), np.full(4, 40.0), np.full(4, 0.01)
    low, high = compute_mid_p_bounds(shares, sizes, tails)
    for i, share in enumerate(shares):
        exact = stats.binomtest(round(40 * share), 40).proportion_ci(0.98, method="exact")
        assert exact.low <= low[i] <= high[i] <= exact.high
    mirrored = compute_mid_p_bounds(1 - shares, sizes, tails)
    np.testing.assert_allclose(1 - mirrored[1], low, atol=1e-9)


def test_many_models_that_agree_are_worth_one():
    one = compute_two_intervals(shares_cell([6], 50), scale=Scale.PROPORTION, confidence=0.95).models
    many = compute_two_intervals(shares_cell([6] * 5, 50), scale=Scale.PROPORTION, confidence=0.95).models
    assert (many.low, many.high) == (pytest.approx(one.low), pytest.approx(one.high))


def test_moderated_intervals_are_narrower_than_each_cell_alone_with_few_seeds():
    cells = draw_cells(10)
    together = compute_family(cells, scale=Scale.UNBOUNDED, confidence=0.995)
    alone = [compute_two_intervals(c, scale=Scale.UNBOUNDED, confidence=0.995) for c in cells]
    widths = [np.mean([b.recipe.high - b.recipe.low for b in both]) for both in (together, alone)]
    assert widths[0] < widths[1] / 2
    assert [b.models for b in together] == [b.models for b in alone]


def test_prior_is_recovered_from_many_cells():
    rng = np.random.default_rng(4)
    d, d0, location = 4, 6.0, 0.5
    variances = location * d0 / rng.chisquare(d0, 20_000) * rng.chisquare(d, 20_000) / d
    found = moderate_variances(variances, d)
    assert found.degrees_of_freedom == pytest.approx(d + d0, rel=0.05)
    slope, intercept = np.polyfit(variances, found.variances, 1)
    assert slope == pytest.approx(d / (d + d0), rel=0.05)
    assert intercept == pytest.approx(d0 * location / (d + d0), rel=0.05)


def test_equal_variances_are_pooled_and_follow_a_trend_in_the_mean():
    means = np.linspace(0, 1, 20)
    found = moderate_variances(np.exp(1 + 2 * means), 2, means=means)
    assert found.degrees_of_freedom == 40
    np.testing.assert_allclose(np.diff(np.log(found.variances)), 2 / 19, rtol=1e-9)
    flat = moderate_variances(np.full(5, 0.3), 2)
    assert len(set(flat.variances)) == 1


def test_seeds_that_agree_by_chance_do_not_spoil_the_prior():
    """Equal counts in all seeds have a variance of 1e-34 by rounding; its logarithm once made d0 near 0."""
    rng = np.random.default_rng(0)
    cells = [shares_cell(rng.binomial(100, p, 3), 100) for p in np.linspace(0.05, 0.3, 30)]
    tied = [*cells[:-2], shares_cell([7, 7, 7], 100), shares_cell([11, 11, 11], 100)]
    widths = [
        np.mean([b.recipe.high - b.recipe.low for b in compute_family(c, scale=Scale.PROPORTION, confidence=0.99)[:28]])
        for c in (cells, tied)
    ]
    assert widths[1] < 1.3 * widths[0]


def test_a_few_images_do_not_cost_a_share_degrees_of_freedom():
    found = compute_two_intervals(shares_cell([10], 20), scale=Scale.PROPORTION, confidence=0.9995).models
    exact = stats.binomtest(10, 20).proportion_ci(0.9995, method="exact")
    assert exact.low < found.low < found.high < exact.high


def test_groups_widen_both_intervals():
    rng = np.random.default_rng(1)
    hits = np.repeat(rng.random((3, 20)) < 0.3, 5, axis=1).astype(np.float64)
    labels, groups = np.zeros(100, dtype=np.int64), np.arange(100) // 5
    plain = mean_cell(hits, labels)
    grouped = Cell(values=plain.values, influence=plain.influence, labels=labels, num_observations=100, groups=groups)
    for scale in Scale:
        narrow, wide = (compute_two_intervals(c, scale=scale, confidence=0.95) for c in (plain, grouped))
        for one, other in ((narrow.models, wide.models), (narrow.recipe, wide.recipe)):
            assert other.low < one.low
            assert one.high < other.high


@pytest.mark.parametrize("scale", [Scale.DIFFERENCE, Scale.UNBOUNDED])
def test_p_is_the_level_whose_interval_for_the_recipe_touches_zero(scale):
    cells = [
        mean_cell(np.clip(c.values[:, None] + c.influence, -2, 2) / 2, c.labels)
        for c in draw_cells(8, scale=0.2, seed=2)
    ]
    p_values = compute_recipe_p_values(cells, scale=scale)
    assert p_values.min() < 0.5
    for index, p in enumerate(p_values):
        inside = compute_family(cells, scale=scale, confidence=1 - p * 0.999)[index].recipe
        outside = compute_family(cells, scale=scale, confidence=1 - p * 1.001)[index].recipe if p < 0.999 else None
        assert inside.low <= 0 <= inside.high
        assert outside is None or outside.low > 0 or outside.high < 0


@pytest.mark.parametrize("num_images", [3, 5, 20])
def test_a_higher_confidence_contains_the_interval_of_a_lower_one(num_images):
    """One image differs of few: the correction for skewness outgrew the half-width, so that a p-value was 0."""
    labels = np.zeros(num_images, dtype=np.int64)
    cells = [mean_cell(np.where(np.arange(num_images) < k, -1.0, 0.0) * np.ones((3, 1)), labels) for k in (1, 2)]
    found = [
        compute_family(cells, scale=Scale.DIFFERENCE, confidence=1 - alpha) for alpha in np.logspace(0, -15, 60)[1:]
    ]
    for narrow, wide in pairwise(found):
        for one, other in zip(narrow, wide, strict=True):
            assert other.models.low <= one.models.low + 1e-9
            assert one.models.high <= other.models.high + 1e-9
            assert other.recipe.low <= one.recipe.low + 1e-9
            assert one.recipe.high <= other.recipe.high + 1e-9
    assert compute_recipe_p_values(cells, scale=Scale.DIFFERENCE).min() > 1e-4


def test_p_of_a_difference_of_nothing_is_one():
    cells = [mean_cell(np.zeros((2, 10)), np.zeros(10, dtype=np.int64)) for _ in range(3)]
    assert compute_recipe_p_values(cells, scale=Scale.DIFFERENCE) == pytest.approx([1.0] * 3)


def test_one_cell_per_class_that_is_present():
    labels = np.array([4, 1, 1, 4])
    cells = class_cells(np.array([[1.0, 0.0, 1.0, 0.0]]), labels)
    assert [float(cell.values[0]) for cell in cells] == [0.5, 0.5]
    assert [cell.labels.tolist() for cell in cells] == [[1, 1], [4, 4]]


def test_families_that_do_not_fit_are_refused():
    with pytest.raises(UserInputError, match="the same seeds"):
        compute_family([shares_cell([1], 5), shares_cell([1, 2], 5)], scale=Scale.PROPORTION, confidence=0.95)
    with pytest.raises(UserInputError, match="at least two images"):
        compute_two_intervals(shares_cell([1], 1), scale=Scale.UNBOUNDED, confidence=0.95)
    with pytest.raises(UserInputError, match="at least two seeds"):
        compute_recipe_p_values([shares_cell([1], 5)], scale=Scale.DIFFERENCE)
    assert compute_family([], scale=Scale.PROPORTION, confidence=0.95) == ()
