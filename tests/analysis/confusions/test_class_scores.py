"""Contrasts between groups of classes: exact, with classes as the unit."""

import functools
import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from analysis.confusions.class_scores import (
    MAX_CELLS,
    MAX_IMAGES,
    compute_class_scores,
    compute_confusion,
    compute_excess,
    compute_group_contrasts,
    compute_macro_f1_intervals,
    find_confusion_examples,
    list_group_problems,
)
from analysis.confusions.values import ClassScore
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.interval import Interval
from search_spaces.errors import UserInputError
from tests.built_values import arm_of


def make_scores(values: dict[str, float]) -> list[ClassScore]:
    def interval(value: float) -> Interval:
        return Interval(estimate=value, low=value - 0.1, high=value + 0.1)

    return [
        ClassScore(class_name=name, precision=interval(v), recall=interval(v), f1=interval(v), num_images=9)
        for name, v in values.items()
    ]


VALUES = {"a": 0.9, "b": 0.85, "c": 0.8, "d": 0.5, "e": 0.62, "f": 0.55, "g": 0.83}


def test_p_is_scipy_s_exact_permutation_test() -> None:
    groups = {"rigid": ("a", "b", "c"), "soft": ("d", "e", "f", "g")}
    (found,) = compute_group_contrasts(make_scores(VALUES), groups)
    one, other = ([VALUES[c] for c in groups[g]] for g in groups)

    def statistic(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.abs(x.mean(axis=axis) - y.mean(axis=axis))

    exact = stats.permutation_test((one, other), statistic, n_resamples=np.inf, alternative="greater", vectorized=True)
    assert found.p_value == pytest.approx(exact.pvalue)
    assert found.difference == pytest.approx(np.mean(one) - np.mean(other))
    assert found.smallest_p == pytest.approx(1 / 35)
    assert found.num_classes == 7


def test_equal_groups_have_a_mirror_division() -> None:
    groups = {"x": ("a", "b", "c"), "y": ("d", "e", "f")}
    (found,) = compute_group_contrasts(make_scores(VALUES), groups)
    assert found.p_value == pytest.approx(2 / 20)
    assert found.smallest_p == pytest.approx(2 / 20)


def test_every_pair_of_groups_is_compared_and_no_groups_give_none() -> None:
    groups = {"x": ("a", "b"), "y": ("c", "d"), "z": ("e",)}
    assert [c.groups for c in compute_group_contrasts(make_scores(VALUES), groups)] == [
        ("x", "y"),
        ("x", "z"),
        ("y", "z"),
    ]
    assert compute_group_contrasts(make_scores(VALUES), {}) == ()


def test_unknown_and_shared_classes_are_named() -> None:
    with pytest.raises(UserInputError, match="group 'x' names the class 'q'"):
        compute_group_contrasts(make_scores(VALUES), {"x": ("q",)})
    (problem,) = list_group_problems({"x": ("a",), "y": ("a", "b")}, tuple(VALUES))
    assert problem == "the groups 'x' and 'y' must not share classes, but both have 'a'"


def test_groups_that_share_classes_have_no_contrast() -> None:
    groups = {"x": ("a", "b"), "y": ("a",), "z": ("c", "d")}
    assert [c.groups for c in compute_group_contrasts(make_scores(VALUES), groups)] == [("x", "z"), ("y", "z")]


NAMES = ("cat", "dog", "ship")


def make_arm(labels: list[int], *predicted: list[int], num_classes: int = 3) -> ArmPredictions:
    return arm_of(labels, predicted, sample_ids=np.arange(len(labels)) + 100, num_classes=num_classes)


def test_images_are_sorted_by_the_seeds_that_confuse_them() -> None:
    arm = make_arm([0, 0, 0, 1], [1, 1, 0, 1], [0, 1, 0, 1], [1, 1, 2, 1])
    first, second = find_confusion_examples(arm, NAMES)
    assert (first.true_class, first.predicted_class, first.num_images) == ("cat", "dog", 2)
    assert first.sample_ids == (101, 100)
    assert first.num_seeds == (3, 2)
    assert (second.true_class, second.predicted_class) == ("cat", "ship")
    assert (second.sample_ids, second.num_seeds) == ((102,), (1,))


def test_every_confused_image_is_counted_in_its_cell() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 400)
    predicted = generator.integers(0, 3, 400)
    found = find_confusion_examples(make_arm(labels.tolist(), predicted.tolist()), NAMES)
    counts = confusion_matrix(labels, predicted)
    assert {(cell.true_class, cell.predicted_class): cell.num_images for cell in found} == {
        (NAMES[i], NAMES[j]): counts[i, j] for i in range(3) for j in range(3) if i != j
    }
    assert all(len(cell.sample_ids) == len(cell.num_seeds) == MAX_IMAGES for cell in found)


def test_no_confusion_has_no_examples_and_many_are_cut() -> None:
    assert find_confusion_examples(make_arm([0, 1, 2], [0, 1, 2]), NAMES) == ()
    labels = np.repeat(np.arange(12), 11)
    predicted = np.concatenate([np.delete(np.arange(12), label) for label in range(12)])
    names = [str(number) for number in range(12)]
    found = find_confusion_examples(make_arm(labels.tolist(), predicted.tolist(), num_classes=12), names)
    assert len(found) == MAX_CELLS < 12 * 11


FOUR = ("cat", "dog", "frog", "ship")


def draw_arm(num_seeds=4, num_images=240, seed=0, seed_sd=0.0):
    """Cats and dogs are confused; ships are never predicted as frogs."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % 4
    accuracy = 0.7 + seed_sd * rng.normal(size=(num_seeds, 1))
    wrong = np.array([1, 0, 3, 0])[labels]
    predicted = np.where(rng.random((num_seeds, num_images)) < accuracy, labels, wrong)
    return make_judged(labels, predicted)


make_judged = functools.partial(arm_of, num_classes=4)


def test_counts_are_means_over_seeds_and_rates_lie_in_their_intervals():
    arm = draw_arm()
    found = compute_confusion(arm, FOUR, 0.95)
    expected = np.mean([confusion_matrix(arm.labels, p, labels=range(4)) for p in arm.predicted], axis=0)
    np.testing.assert_allclose(found.counts, expected)
    rates = np.array([[cell.estimate for cell in row] for row in found.rates])
    np.testing.assert_allclose(rates, expected / 60, atol=1e-12)
    np.testing.assert_allclose(rates.sum(axis=1), 1)
    for cell in itertools.chain(*found.rates):
        for interval in (cell.models, cell.recipe):
            assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
            assert interval.low < interval.high


def test_one_model_has_intervals_for_itself_alone():
    """Its recall is a binomial proportion, whose interval lies just inside that of Clopper and Pearson."""
    arm = draw_arm(num_seeds=1)
    for score in compute_class_scores(arm, FOUR, 0.95):
        assert score.recall.recipe is None
        exact = binomtest(round(60 * score.recall.estimate), 60).proportion_ci(0.95)
        assert (score.recall.models.low, score.recall.models.high) == pytest.approx((exact.low, exact.high), abs=0.015)
    assert compute_macro_f1_intervals(arm, 0.95).recipe is None


def test_empty_cells_have_a_positive_upper_bound():
    found = compute_confusion(draw_arm(), FOUR, 0.95)
    never = found.rates[3][2]
    assert (never.estimate, never.models.low) == (0.0, 0.0)
    assert never.models.high == pytest.approx(1 - 0.05 ** (1 / 60))
    assert never.recipe.high >= never.models.high


def test_permuting_seeds_and_images_changes_no_cell():
    arm = draw_arm(seed=2)
    order = np.random.default_rng(0).permutation(len(arm.labels))
    other = make_judged(arm.labels[order], arm.predicted[::-1][:, order])
    cells = zip(
        itertools.chain(*compute_confusion(arm, FOUR, 0.95).rates),
        itertools.chain(*compute_confusion(other, FOUR, 0.95).rates),
        strict=True,
    )
    for one, two in cells:
        for new, old in ((two.models, one.models), (two.recipe, one.recipe)):
            assert (new.low, new.high) == pytest.approx((old.low, old.high), abs=1e-9)


def test_seed_noise_widens_the_cells():
    def width(arm):
        cell = compute_confusion(arm, FOUR, 0.95).rates[0][0]
        return cell.recipe.high - cell.recipe.low

    calm = np.mean([width(draw_arm(num_images=2000, seed=s)) for s in range(5)])
    noisy = np.mean([width(draw_arm(num_images=2000, seed=s, seed_sd=0.1)) for s in range(5)])
    assert noisy > 2 * calm


def test_rate_intervals_cover_the_true_rate():
    """True recall is 0.7 in every class; 300 matrices, four diagonal cells each."""
    hits = []
    for i in range(75):
        rates = compute_confusion(draw_arm(num_images=160, seed=100 + i, seed_sd=0.03), FOUR, 0.95).rates
        hits += [rates[c][c].recipe.low <= 0.7 <= rates[c][c].recipe.high for c in range(4)]
    assert np.mean(hits) >= 0.92


def test_excess_is_what_margins_do_not_explain():
    counts = np.array([[6.0, 4.0, 0.0], [2.0, 7.0, 1.0], [3.0, 1.0, 6.0]])
    excess = compute_excess(counts)
    # Wrongly predicted as: 5, 5, 1. Row 0 errs at 0.4; by chance 5/6 of that falls on class 1.
    assert excess[0, 1] == pytest.approx(0.4 - 0.4 * 5 / 6)
    assert excess[1, 0] == pytest.approx(0.2 - 0.3 * 5 / 6)
    assert excess[2, 1] == pytest.approx(0.1 - 0.4 * 5 / 10)
    np.testing.assert_array_equal(np.diagonal(excess), 0)
    np.testing.assert_allclose(excess.sum(axis=1), 0, atol=1e-15)


def test_excess_is_zero_for_errors_by_chance_and_for_no_errors():
    np.testing.assert_allclose(compute_excess(np.full((3, 3), 5.0)), 0, atol=1e-15)
    np.testing.assert_array_equal(compute_excess(np.diag([1.0, 2.0, 3.0])), 0)
    np.testing.assert_array_equal(compute_excess(np.zeros((3, 3))), 0)


def test_class_scores_are_scikit_learns_and_lie_in_their_intervals():
    arm = draw_arm()
    scores = compute_class_scores(arm, FOUR, 0.95)
    assert tuple(s.class_name for s in scores) == FOUR
    assert [s.num_images for s in scores] == [60] * 4
    for field, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        expected = np.mean([score(arm.labels, p, average=None, zero_division=0) for p in arm.predicted], axis=0)
        intervals = [getattr(s, field) for s in scores]
        assert [i.estimate for i in intervals] == pytest.approx(expected)
        for interval in (found for i in intervals for found in (i.models, i.recipe)):
            assert 0 < interval.low < interval.estimate <= interval.high <= 1
            assert interval.estimate < interval.high or interval.estimate == 1
    diagonal = [compute_confusion(arm, FOUR, 0.95).rates[c][c] for c in range(4)]
    assert [s.recall.models for s in scores] == [cell.models for cell in diagonal]
    mean_f1 = np.mean([s.f1.estimate for s in scores])
    assert compute_macro_f1_intervals(arm, 0.95).estimate == pytest.approx(mean_f1)


def test_a_class_never_predicted_has_an_unknown_precision():
    labels = np.arange(40) % 4
    predicted = np.tile(np.where(labels == 2, 0, labels), (2, 1))
    frog = compute_class_scores(make_judged(labels, predicted), FOUR, 0.95)[2]
    for interval in (frog.precision.models, frog.precision.recipe):
        assert (interval.estimate, interval.low, interval.high) == (0, 0, 1)
    assert (frog.recall.estimate, frog.recall.recipe.low) == (0, 0)
    assert 0 < frog.recall.recipe.high < 1


def test_a_class_without_images_is_unknown_and_does_not_break_the_rest():
    labels = np.arange(60) % 3
    found = compute_confusion(make_judged(labels, np.stack([labels, labels])), FOUR, 0.95)
    assert all((i.estimate, i.low, i.high) == (0, 0, 1) for c in found.rates[3] for i in (c.models, c.recipe))
    assert found.rates[0][0].estimate == 1.0


def test_perfect_predictions_have_intervals_of_positive_width():
    labels = np.arange(80) % 4
    arm = make_judged(labels, np.stack([labels] * 3))
    found = compute_macro_f1_intervals(arm, 0.95)
    for interval in (found.models, found.recipe):
        assert interval.estimate == interval.high == 1.0
        assert 0.9 < interval.low < 1.0
    for score in compute_class_scores(arm, FOUR, 0.95):
        for interval in (score.f1.models, score.f1.recipe):
            assert interval.estimate == interval.high == 1.0
            assert 0.7 < interval.low < 1.0


def test_macro_f1_interval_stays_inside_0_1():
    labels = np.arange(24) % 4
    wrong = labels.copy()
    wrong[:4] = (labels[:4] + 1) % 4
    found = compute_macro_f1_intervals(make_judged(labels, np.stack([labels, wrong])), 0.99)
    for interval in (found.models, found.recipe):
        assert 0 <= interval.low < interval.estimate < interval.high <= 1.0


@pytest.mark.parametrize("compute", [compute_confusion, compute_class_scores])
def test_bad_input_is_refused(compute):
    arm = draw_arm()
    with pytest.raises(UserInputError, match="needs as many names, but got 3"):
        compute(arm, FOUR[:3], 0.95)
    with pytest.raises(UserInputError, match="confidence"):
        compute(arm, FOUR, 95)


def test_a_class_with_one_image_has_the_widest_interval_and_the_others_keep_theirs():
    arm = draw_arm()
    lone = np.where(np.arange(240) == 0, 3, np.arange(240) % 3)
    *others, alone = compute_class_scores(make_judged(lone, arm.predicted), FOUR, 0.95)
    assert (alone.recall.models.low, alone.recall.models.high) == (0.0, 1.0)
    assert all(score.recall.models.high - score.recall.models.low < 0.3 for score in others)
    found = compute_macro_f1_intervals(make_judged(lone, arm.predicted), 0.95)
    assert 0.0 <= found.models.low < found.models.estimate < found.models.high <= 1.0
