"""Forecasts of what a planned comparison decides: calibrated, monotone, and the same decision rule as the comparison's."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis.comparison import power as planning
from analysis.comparison.other_intervals import compute_anytime_interval
from analysis.comparison.paired_difference import POWER, compute_difference
from analysis.comparison.power import DECIDES_MARGIN, PlannedTest, VarianceComponents, forecast_looks
from benchmarks.validation.plan_simulation import PlannedWorld, measure_forecast
from benchmarks.validation.statistics_simulation import World
from search_spaces.errors import UserInputError
from trainables.seeds import numpy_generator

KNOWN = VarianceComponents(seeds=0.006**2, images=0.3**2, seeds_x_images=0.2**2)
TEST = PlannedTest(looks=(3,), num_images=4000, margin=0.01, alpha=0.05, num_rows=1)


def test_four_of_five_half_widths_fall_inside_the_range_that_another_study_gave() -> None:
    for earlier, planned in ((3, 5), (10, 3)):
        world = PlannedWorld(
            earlier=World(seed_sd=0.05, num_seeds=earlier, shifts=(0.0, 0.0), num_images=500),
            planned=World(seed_sd=0.05, num_seeds=planned, shifts=(0.0, 0.0), num_images=1000),
        )
        found = [measure_forecast(world, number) for number in range(60)]
        assert 0.65 <= np.mean([forecast.low <= width <= forecast.high for forecast, width in found]) <= 0.95


def test_components_and_their_forecast_give_back_the_measured_half_width() -> None:
    control, treatment = World(seed_sd=0.05, num_seeds=10, shifts=(0.0, 0.0)).draw(numpy_generator(1, "plan"))
    found = compute_difference(treatment, control, 0.95)
    components = VarianceComponents.from_estimates(
        found.seed_variance, found.image_variance, found.seed_image_variance, num_seeds=10, num_images=2000
    )
    known = replace(components, num_measured_seeds=None, num_measured_images=None)
    (look,) = forecast_looks(known, replace(TEST, looks=(10,), num_images=2000))
    width = (found.interval.high - found.interval.low) / 2
    assert look.low < width < look.high
    assert look.half_width == pytest.approx(width, rel=0.1)
    (uncertain,) = forecast_looks(
        replace(components, num_measured_seeds=3), replace(TEST, looks=(10,), num_images=2000)
    )
    assert uncertain.high - uncertain.low > 2 * (look.high - look.low)


def test_three_seeds_cannot_decide_one_point_and_the_stated_seeds_and_images_can() -> None:
    assert not forecast_looks(KNOWN, TEST)[0].meets(DECIDES_MARGIN)
    images = planning.find_needed_images(KNOWN, replace(TEST, looks=(10,)))
    assert images is not None
    enough, too_few = (replace(TEST, looks=(10,), num_images=n) for n in (images, images // 2))
    assert forecast_looks(KNOWN, enough)[0].meets(DECIDES_MARGIN)
    assert not forecast_looks(KNOWN, too_few)[0].meets(DECIDES_MARGIN)
    many = replace(TEST, num_images=50_000)
    seeds = planning.find_needed_seeds(KNOWN, many)
    assert seeds is not None
    assert forecast_looks(KNOWN, replace(many, looks=(seeds + 1,)))[0].meets(DECIDES_MARGIN)
    assert not forecast_looks(KNOWN, replace(many, looks=(seeds - 2,)))[0].meets(DECIDES_MARGIN)
    assert planning.find_needed_seeds(KNOWN, TEST) is None
    assert planning.find_needed_images(KNOWN, TEST) is None
    margin = planning.find_decidable_margin(KNOWN, TEST)
    assert margin is not None
    assert forecast_looks(KNOWN, replace(TEST, margin=margin))[0].meets(DECIDES_MARGIN)


def test_the_stated_seeds_and_images_decide_twice_the_margin_as_often_as_not() -> None:
    goal, few = planning.DECIDES_TWICE_BY_HALF, replace(TEST, num_images=2000)
    assert not forecast_looks(KNOWN, few)[0].meets(goal)
    seeds, images = (find(KNOWN, few, goal) for find in (planning.find_needed_seeds, planning.find_needed_images))
    assert seeds is not None
    assert images is not None
    for enough in (replace(few, looks=(seeds + 1,)), replace(few, num_images=images)):
        assert forecast_looks(KNOWN, enough)[0].meets(goal)
        assert not forecast_looks(KNOWN, enough)[0].meets(DECIDES_MARGIN)
    for too_few in (replace(few, looks=(seeds - 1,)), replace(few, num_images=images * 9 // 10)):
        assert not forecast_looks(KNOWN, too_few)[0].meets(goal)


def test_power_grows_over_the_looks_and_more_rows_and_looks_widen_the_interval() -> None:
    looks = forecast_looks(KNOWN, replace(TEST, looks=(3, 6, 10)))
    assert all(a <= b for one, other in itertools.pairwise(looks) for a, b in zip(one.power, other.power, strict=True))
    assert looks[0].half_width > forecast_looks(KNOWN, TEST)[0].half_width
    assert forecast_looks(KNOWN, replace(TEST, num_rows=3))[0].half_width > forecast_looks(KNOWN, TEST)[0].half_width


def test_an_anytime_plan_has_the_half_widths_of_the_anytime_interval() -> None:
    pair = World(seed_sd=0.05, num_seeds=10, shifts=(0.0, 0.0)).draw(numpy_generator(2, "plan"))
    found = compute_difference(*pair, 0.95)  # type: ignore[call-arg]
    interval = compute_anytime_interval(*pair, 0.95)  # type: ignore[call-arg]
    components = VarianceComponents.from_estimates(
        found.seed_variance, found.image_variance, found.seed_image_variance, num_seeds=10, num_images=2000
    )
    test = replace(TEST, looks=(10,), num_images=2000, is_anytime=True)
    (look,) = forecast_looks(replace(components, num_measured_seeds=None), test)
    assert look.half_width == pytest.approx((interval.high - interval.low) / 2, rel=0.1)


@pytest.mark.parametrize(
    ("looks", "images", "message"), [((6, 3), 100, r"got \[6, 3\]"), ((3,), 1, "test images, but got 1")]
)
def test_a_test_that_cannot_be_is_refused(looks: tuple[int, ...], images: int, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        replace(TEST, looks=looks, num_images=images)


def test_a_loss_of_the_margin_is_excluded_as_often_as_a_noncentral_t_says() -> None:
    """Without noise between images, the estimate over its error is a noncentral t."""
    known = VarianceComponents(seeds=0.005**2, images=0.0, seeds_x_images=0.0)
    test = replace(TEST, looks=(6,), num_images=10**7, alpha=0.02)
    chance, needed = planning.forecast_noninferiority(known, test)
    quantile, shift = stats.t.ppf(0.99, 5), 0.01 / (0.005 / np.sqrt(6))
    assert chance == pytest.approx(stats.nct.sf(quantile, 5, shift), abs=0.02)
    assert needed is not None
    powers = [planning.forecast_noninferiority(known, replace(test, looks=(n,)))[0] for n in (needed - 1, needed + 1)]
    assert powers[0] < POWER + 0.02
    assert powers[1] > POWER - 0.02
    shared, fewer = planning.forecast_noninferiority(known, replace(test, looks=(5,), num_sharing=7))
    assert shared > planning.forecast_noninferiority(known, replace(test, looks=(5,)))[0]
    assert fewer is not None
    assert fewer <= needed
    assert planning.forecast_noninferiority(replace(known, seeds=10.0), test)[1] is None
