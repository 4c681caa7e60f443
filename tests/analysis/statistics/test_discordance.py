"""Small test sets and accuracies near 100 %, where few images differ between two sides."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from analysis.comparison.other_intervals import compute_anytime_interval
from analysis.comparison.paired_difference import compare_arms
from analysis.comparison.power import PlannedTest, VarianceComponents, find_needed_seeds, forecast_looks
from analysis.comparison.values import Verdict
from analysis.statistics.arm_predictions import MIN_DISCORDANT, average_arms, measure_discordance
from analysis.statistics.variances import NO_GUARD, Guard, guard_image_variance
from tests.built_values import arm_of

SETTINGS = {"margin": 0.005, "alpha": 0.05, "num_rows": 1, "cost_ratio": None}


def draw_arms(generator, labels, num_seeds, accuracies):
    """Return arms whose errors share the difficulty of the images, and have a part of their own in each seed."""
    difficulty, num_classes = generator.normal(0, 2, len(labels)), int(labels.max()) + 1
    arms = []
    for accuracy in accuracies:
        own, noise = generator.normal(0, 0.5, len(labels)), generator.normal(0, 1, (num_seeds, len(labels)))
        right = difficulty + own + noise < special.ndtri(accuracy) * np.sqrt(5.25)
        wrong = (labels + 1 + generator.integers(0, num_classes - 1, right.shape)) % num_classes
        arms.append(arm_of(labels, np.where(right, labels, wrong)))
    return arms


def err(labels: np.ndarray, images: list[int]) -> np.ndarray:
    predicted = labels.copy()
    predicted[images] = (predicted[images] + 1) % (labels.max() + 1)
    return predicted


@pytest.mark.parametrize(
    ("num_images", "num_seeds", "accuracies"), [(40, 1, (0.98, 0.96)), (40, 3, (0.995, 0.98)), (100, 1, (0.995, 0.98))]
)
def test_a_difference_above_the_margin_is_seldom_equivalent(num_images, num_seeds, accuracies):
    """True differences of 1.5 and 2 pp, margin .5 pp: 20, 19 and 14 % were EQUIVALENT. 10 of 400 are allowed."""
    generator, labels = np.random.default_rng(0), np.arange(num_images) % 2
    rows = [compare_arms(*draw_arms(generator, labels, num_seeds, accuracies), **SETTINGS) for _ in range(400)]
    assert sum(row.verdict is Verdict.EQUIVALENT for row in rows) <= 10
    assert all(row.effect.low < row.effect.high for row in rows)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_a_difference_within_a_rare_class_is_seldom_equivalent(num_seeds):
    """A class of 4 images among 8,004 makes a true difference of 4 pp, and often none of its images differs.

    Without pseudo-observations, or with those as large as the root mean square move of a random image, 38 to 42 % of 400 rows
    were EQUIVALENT.
    """
    generator, labels = np.random.default_rng(0), np.repeat(np.arange(5), (2000, 2000, 2000, 2000, 4))

    def draw(difficulty, accuracy_of_rare):
        hardest = difficulty + generator.normal(0, 0.002, (num_seeds, len(labels)))
        wrong = hardest > np.where(labels < 4, 0.995, accuracy_of_rare)
        return arm_of(labels, np.where(wrong, (labels + 1) % 4, labels))

    rows = []
    for _ in range(100):
        difficulty = generator.random(len(labels))
        rows.append(compare_arms(draw(difficulty, 0.7), draw(difficulty, 0.9), **SETTINGS))
    assert sum(row.verdict is Verdict.EQUIVALENT for row in rows) <= 5


@pytest.mark.parametrize("sizes", [(100, 100, 100, 100, 4), (200, 200, 200, 3, 3), (20, 20, 20)])
def test_equal_arms_seldom_differ_with_small_classes(sizes):
    """28 of 400 would be 7 %: the upper end of what 5 % gives."""
    generator, labels = np.random.default_rng(1), np.repeat(np.arange(len(sizes)), sizes)
    rows = [compare_arms(*draw_arms(generator, labels, 1, (0.9, 0.9)), **SETTINGS) for _ in range(400)]
    assert sum(row.verdict in (Verdict.BETTER, Verdict.WORSE) for row in rows) <= 28


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_four_images_in_one_direction_do_not_decide_and_p_mde_and_error_agree(num_seeds):
    """The exact McNemar test of four images has p .125; the row had .047 and was BETTER."""
    labels = np.arange(60) % 3
    for number in (3, 4, 6, 9):
        wrong = np.tile(err(labels, list(range(number))), (num_seeds, 1))
        sides = arm_of(labels, np.tile(labels, (num_seeds, 1))), arm_of(labels, wrong, "b")
        row = compare_arms(*sides, **SETTINGS)
        half_width = row.effect.high - row.effect.estimate
        assert (row.verdict is Verdict.BETTER) == (number > 4) == (row.p_value < 0.05)
        assert row.standard_error * stats.t.ppf(0.975, row.degrees_of_freedom) == pytest.approx(half_width)
        assert row.minimum_detectable_effect > half_width
        edge = compare_arms(*sides, **{**SETTINGS, "alpha": row.p_value})
        assert edge.effect.low == pytest.approx(0.0, abs=1e-9)


def test_guard_is_the_larger_variance_and_follows_scale_and_classes():
    assert guard_image_variance(0.3, NO_GUARD, 2.0) == 0.3
    # Half of the images differ in either direction: the pseudo-observations would make the variance smaller.
    assert guard_image_variance(1.0 / 50, Guard(50), 2.0) == 1.0 / 50
    assert guard_image_variance(0.1 / 50, Guard(50), 2.0) > 0.1 / 50
    labels = np.arange(2000) % 10
    side = arm_of(labels, labels)
    assert measure_discordance(side, side).guard == Guard(pytest.approx(2000), 1.0)
    double = average_arms("x", (side, side), 2.0)
    assert measure_discordance(double, double).guard.reach == 2.0
    few = np.repeat(np.arange(5), (200, 200, 200, 3, 3))
    size = measure_discordance(arm_of(few, few), arm_of(few, few)).guard.size
    # Between five times the smallest class and the number of images.
    assert 5 * 3 < size < 606 / 10


def test_a_row_of_many_differing_images_is_hardly_wider():
    generator, labels = np.random.default_rng(2), np.arange(2000) % 10
    row = compare_arms(*draw_arms(generator, labels, 3, (0.8, 0.8)), **SETTINGS)
    models = row.models_effect.high - row.models_effect.low
    plain = 2 * stats.t.ppf(0.975, 1999) * row.image_variance**0.5
    assert 1.0 <= models / plain < 1.01


def test_groups_count_as_groups_and_move_the_difference_as_far_as_their_images_do():
    labels, groups = np.arange(80) % 2, np.repeat(np.arange(20), 4)
    right, wrong = arm_of(labels, labels, groups=groups), arm_of(labels, err(labels, [0, 1, 4]), "b", groups=groups)
    found = measure_discordance(right, wrong)
    assert (found.number, found.units) == (2, "20 groups of test images")
    assert found.guard == Guard(pytest.approx(20), pytest.approx(np.sqrt((0.5**2 + 0.25**2) / 2)))
    assert measure_discordance(right, right).guard.reach == 1.0


def test_equivalent_needs_several_images_in_every_kind_of_row():
    labels = np.arange(4000) % 2
    for number in (MIN_DISCORDANT - 2, MIN_DISCORDANT + 1):
        half = number // 2
        predicted = [err(labels, list(range(half))), err(labels, list(range(100, 100 + number - half)))]
        sides = [arm_of(labels, np.tile(p, (10, 1)), str(i)) for i, p in enumerate(predicted)]
        row = compare_arms(*sides, **{**SETTINGS, "margin": 0.01})
        assert -0.01 < row.effect.low < row.effect.high < 0.01
        assert (row.verdict is Verdict.EQUIVALENT) == (number >= MIN_DISCORDANT)
        assert ("more test images are needed" in row.settles) == (number < MIN_DISCORDANT)
        anytime = compute_anytime_interval(sides[0], sides[1], 0.95)
        assert anytime.low < row.effect.low


def test_a_plan_promises_what_the_row_will_report():
    """Without any variance, 40 images were said to decide .5 pp with two seeds."""
    nothing = VarianceComponents.from_estimates(0.0, 0.0, 0.0, num_seeds=3, num_images=20)
    test = PlannedTest(looks=(5,), num_images=40, margin=0.005, alpha=0.05, num_rows=1)
    labels = np.arange(40) % 2
    side = arm_of(labels, np.tile(labels, (5, 1)))
    for planned in (test, replace(test, is_anytime=True)):
        (look,) = forecast_looks(nothing, planned)
        assert look.power[0] == 0.0
        if not planned.is_anytime:
            assert look.half_width == pytest.approx(compare_arms(side, side, **SETTINGS).effect.high)
    assert find_needed_seeds(nothing, test) is None
    assert find_needed_seeds(nothing, replace(test, num_images=4000)) is None
    for variance, power in ((2e-4, 0.3), (3e-3, 1.0)):
        # 2 and 30 of 10,000 images are expected to differ.
        known = VarianceComponents(seeds=0.0, images=variance, seeds_x_images=0.0)
        found = forecast_looks(known, replace(test, num_images=10_000))[0].power[0]
        assert found > 0.9 if power == 1.0 else found < power
