import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, precision_score

from analysis.statistics.crossed_interval import (
    CrossedEstimate,
    compute_crossed_interval,
    compute_half_width,
    compute_p_value,
    compute_t_quantile,
)
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import (
    compute_f1_influence,
    compute_macro_f1,
    compute_macro_f1_influence,
    compute_precision_influence,
)
from search_spaces.errors import UserInputError

NUM_CLASSES = 4


def draw_models(num_seeds=3, num_images=36, seed=0):
    """Labels (N,) and predictions (S, N) of mediocre models; the last class is never predicted by seed 0."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % NUM_CLASSES
    predicted = np.where(
        rng.random((num_seeds, num_images)) < 0.6, labels, rng.integers(0, NUM_CLASSES, (num_seeds, num_images))
    )
    predicted[0] = np.where(predicted[0] == NUM_CLASSES - 1, 0, predicted[0])
    return labels, predicted


def differentiate(statistic, labels, predicted):
    """Derivative by each image's share of the weight, by central differences; statistic(labels, predicted, weights)."""
    num_images, step = len(labels), 1e-4
    slopes = []
    for i in range(num_images):
        weights = np.ones((2, num_images))
        weights[:, i] += step, -step
        up, down = (statistic(labels, predicted, w) for w in weights)
        slopes.append((up - down) / (2 * step) * num_images)
    return np.array(slopes)


def per_class(score, class_index):
    return lambda y, p, w: score(y, p, labels=[class_index], average=None, sample_weight=w, zero_division=0)[0]


def macro(y, p, w):
    return f1_score(y, p, labels=list(range(NUM_CLASSES)), average="macro", sample_weight=w, zero_division=0)


@pytest.mark.parametrize(
    ("compute", "statistic"),
    [
        (lambda y, p: compute_macro_f1_influence(y, p, NUM_CLASSES), macro),
        (lambda y, p: compute_f1_influence(y, p, 1), per_class(f1_score, 1)),
        (lambda y, p: compute_precision_influence(y, p, 1), per_class(precision_score, 1)),
        (lambda y, p: compute_precision_influence(y, p, 3), per_class(precision_score, 3)),
    ],
    ids=["macro-F1", "F1", "precision", "precision of a class never predicted"],
)
def test_influence_is_the_derivative_of_the_weighted_statistic(compute, statistic):
    labels, predicted = draw_models()
    influence = compute(labels, predicted)
    assert influence.shape == predicted.shape
    np.testing.assert_allclose(influence.sum(axis=1), 0, atol=1e-9)
    for s in (0, 2):
        np.testing.assert_allclose(influence[s], differentiate(statistic, labels, predicted[s]), atol=1e-5)


def test_influence_equals_the_formula_of_the_protocol():
    labels, predicted = draw_models(num_seeds=1)
    guess, num_images = predicted[0], len(labels)
    psi = np.zeros(num_images)
    for c in range(NUM_CLASSES):
        true, positive = labels == c, guess == c
        size = true.sum() + positive.sum()
        f1 = 2 * (true & positive).sum() / size
        psi += (2.0 * (true & positive) - f1 * (true * 1.0 + positive)) / size
    np.testing.assert_allclose(
        compute_macro_f1_influence(labels, predicted, NUM_CLASSES)[0], psi * num_images / NUM_CLASSES, atol=1e-12
    )


def crossed(labels, predicted, confidence=0.95):
    values = compute_macro_f1(labels, predicted, NUM_CLASSES)
    influence = compute_macro_f1_influence(labels, predicted, NUM_CLASSES)
    return compute_crossed_interval(values, influence, labels, NUM_CLASSES, confidence)


def test_components_equal_the_formulas_of_the_protocol():
    labels, predicted = draw_models(num_seeds=5, seed=3)
    values = compute_macro_f1(labels, predicted, NUM_CLASSES)
    psi = compute_macro_f1_influence(labels, predicted, NUM_CLASSES)
    s, n = psi.shape
    z = psi.mean(axis=0)
    groups = [labels == c for c in range(NUM_CLASSES)]
    v_s = values.var(ddof=1) / s
    v_i = sum(g.sum() * z[g].var(ddof=1) for g in groups) / n**2
    r = psi - z
    for g in groups:
        r[:, g] -= r[:, g].mean(axis=1, keepdims=True)
    v_si = (r**2).sum() / ((s - 1) * (n - NUM_CLASSES)) / (s * n)
    only_images = max(v_i - v_si, 0)
    parts = stats.t.ppf(0.975, s - 1) ** 2 * v_s, stats.t.ppf(0.975, n - 1) ** 2 * only_images
    half_width = math.sqrt(max(sum(parts), stats.t.ppf(0.975, n - 1) ** 2 * v_i))

    found = crossed(labels, predicted)
    assert found.seed_variance == pytest.approx(v_s, rel=1e-10)
    assert found.image_variance == pytest.approx(v_i, rel=1e-10)
    assert found.seed_image_variance == pytest.approx(v_si, rel=1e-10)
    assert found.standard_error == pytest.approx(math.sqrt(max(v_s + only_images, v_i)), rel=1e-10)
    assert stats.t.ppf(0.975, found.degrees_of_freedom) == pytest.approx(half_width / found.standard_error, rel=1e-7)
    assert found.interval.low == pytest.approx(values.mean() - half_width, rel=1e-9)
    assert found.interval.high == pytest.approx(values.mean() + half_width, rel=1e-9)


def test_permuting_seeds_or_images_changes_nothing():
    labels, predicted = draw_models(num_seeds=4, seed=5)
    rng = np.random.default_rng(0)
    images = rng.permutation(len(labels))
    base = crossed(labels, predicted)
    for other in (crossed(labels, predicted[[2, 0, 3, 1]]), crossed(labels[images], predicted[:, images])):
        assert other.interval.low == pytest.approx(base.interval.low, abs=1e-13)
        assert other.interval.high == pytest.approx(base.interval.high, abs=1e-13)
        assert other.degrees_of_freedom == pytest.approx(base.degrees_of_freedom, rel=1e-9)


def test_more_confidence_is_wider_and_standard_error_is_bounded_by_its_parts():
    labels, predicted = draw_models(num_seeds=4, seed=6)
    low, high = crossed(labels, predicted, 0.8), crossed(labels, predicted, 0.99)
    assert high.interval.low < low.interval.low < low.interval.estimate < low.interval.high < high.interval.high
    squared = low.standard_error**2
    assert max(low.seed_variance, low.image_variance) <= squared * (1 + 1e-12)
    assert squared <= (low.seed_variance + low.image_variance) * (1 + 1e-12)
    assert low.degrees_of_freedom >= 3


def test_nothing_varies_means_a_point_and_no_nan():
    found = compute_crossed_interval(np.zeros(3), np.zeros((3, 8)), np.arange(8) % 2, 2, 0.95)
    assert (found.interval.low, found.interval.estimate, found.interval.high) == (0.0, 0.0, 0.0)
    assert found.standard_error == 0.0
    assert found.degrees_of_freedom == 2.0


def test_half_width_works_over_arrays_as_over_numbers():
    v_s = np.array([1.0, 2.0, 0.0])
    settings = {"image_freedom": 99, "alpha": 0.05}
    widths = compute_half_width(v_s, 0.5, 0.25, seed_freedom=np.array([2, 4, 8]), **settings)
    for i, freedom in enumerate((2, 4, 8)):
        assert widths[i] == compute_half_width(v_s[i], 0.5, 0.25, seed_freedom=freedom, **settings)


def make_estimate(effect, v_s, v_i=0.0, v_si=0.0, num_seeds=3, num_units=2000, confidence=0.95):
    return CrossedEstimate(
        interval=Interval(estimate=effect, low=-1.0, high=1.0),
        seed_variance=v_s,
        image_variance=v_i,
        seed_image_variance=v_si,
        seed_freedom=num_seeds - 1,
        num_units=num_units,
        image_freedom=num_units - 1,
        confidence=confidence,
    )


@pytest.mark.parametrize("num_seeds", [2, 3, 10])
@pytest.mark.parametrize("v_s", [0.0, 0.01, 1 / 3, 1.0, 30.0])
def test_p_at_the_level_whose_interval_touches_zero_is_this_level(num_seeds, v_s):
    for alpha in (0.9, 0.3, 0.05, 0.01, 0.003, 1e-6):
        widths = {"seed_freedom": num_seeds - 1, "image_freedom": 1999, "alpha": alpha}
        touching = float(compute_half_width(v_s, 1.0, 0.4, **widths))
        found = make_estimate(touching, v_s, 1.0, 0.4, num_seeds=num_seeds)
        assert compute_p_value(found) == pytest.approx(alpha, rel=1e-8)
        assert compute_p_value(make_estimate(-touching, v_s, 1.0, 0.4, num_seeds=num_seeds)) == compute_p_value(found)


def test_p_ends_at_one_and_at_zero():
    assert compute_p_value(make_estimate(0.0, 1.0)) == 1.0
    assert compute_p_value(make_estimate(0.0, 0.0)) == 1.0
    assert compute_p_value(make_estimate(0.1, 0.0)) == 0.0
    assert compute_p_value(make_estimate(100.0, 0.0, 1.0)) == 0.0
    assert compute_p_value(make_estimate(1e-12, 1.0, 1.0)) == pytest.approx(1.0, abs=1e-9)


def test_degrees_of_freedom_give_the_half_width_back():
    assert make_estimate(0.0, 1.0, num_seeds=4).degrees_of_freedom == pytest.approx(3, rel=1e-6)
    assert make_estimate(0.0, 0.0, 1.0, num_units=50).degrees_of_freedom == pytest.approx(49, rel=1e-6)
    mixed = make_estimate(0.0, 1.0, 1.0)
    assert 2 < mixed.degrees_of_freedom < 1999
    assert stats.t.ppf(0.975, mixed.degrees_of_freedom) == pytest.approx(mixed.half_width / mixed.standard_error)
    assert make_estimate(0.0, 0.0).degrees_of_freedom == 2


def test_t_quantile_equals_scipy():
    for df in (1, 2.5, 9, 400):
        assert compute_t_quantile(0.95, df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-9)


def test_one_seed_has_an_estimate_but_no_interval():
    labels, predicted = draw_models(num_seeds=1)
    assert compute_macro_f1(labels, predicted, NUM_CLASSES).mean() == pytest.approx(
        macro(labels, predicted[0], None), abs=1e-15
    )
    with pytest.raises(UserInputError, match="one seed only: an interval needs at least two seeds; the estimate is 0"):
        crossed(labels, predicted)


@pytest.mark.parametrize(
    ("labels", "shape", "confidence", "message"),
    [
        ([1], (2, 1), 0.95, "at least two images, but there is one image"),
        ([0, 0, 5, 5], (2, 4), 0.95, r"must lie in \[0, 4\)"),
        ([0, 0, 1, 1], (2, 4), 1.0, "0 < confidence < 1"),
        ([0, 0, 1, 1], (2, 5), 0.95, "influence"),
        ([], (2, 0), 0.95, "needs seeds and images"),
    ],
)
def test_input_without_an_interval_is_refused(labels, shape, confidence, message):
    with pytest.raises(UserInputError, match=message):
        compute_crossed_interval(
            np.zeros(2), np.zeros(shape), np.array(labels, dtype=np.int64), NUM_CLASSES, confidence
        )
