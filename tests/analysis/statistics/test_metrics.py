import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import confusion_matrix, f1_score, precision_score

from analysis.statistics import metrics
from search_spaces.errors import UserInputError


@st.composite
def classified(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    num_classes = draw(st.integers(2, 5))
    num_images = draw(st.integers(1, 30))
    classes = hnp.arrays(np.int64, num_images, elements=st.integers(0, num_classes - 1))
    return draw(classes), draw(classes), num_classes


@settings(max_examples=60, deadline=None)
@given(classified())
def test_metrics_equal_scikit_learn_also_for_absent_classes(case):
    labels, predicted, num_classes = case
    counts = metrics.compute_confusion_counts(labels, predicted, num_classes)
    names = list(range(num_classes))
    np.testing.assert_array_equal(counts, confusion_matrix(labels, predicted, labels=names))
    for compute, reference in (
        (metrics.compute_f1_from_confusion, f1_score),
        (metrics.compute_precision_from_confusion, precision_score),
    ):
        expected = reference(labels, predicted, labels=names, average=None, zero_division=0)
        np.testing.assert_allclose(compute(counts), expected, atol=1e-15)
    macro = f1_score(labels, predicted, labels=names, average="macro", zero_division=0)
    assert metrics.compute_macro_f1(labels, predicted, num_classes) == pytest.approx(macro, abs=1e-15)


def test_leading_axes_are_kept_and_do_not_mix():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 50), rng.integers(0, 4, (3, 2, 50))
    counts = metrics.compute_confusion_counts(labels, predicted, 4)
    assert counts.shape == (3, 2, 4, 4)
    assert counts.dtype == np.int64
    for i in np.ndindex(3, 2):
        np.testing.assert_array_equal(counts[i], metrics.compute_confusion_counts(labels, predicted[i], 4))
    assert metrics.compute_macro_f1(labels, predicted, 4).shape == (3, 2)


@settings(max_examples=30, deadline=None)
@given(classified(), st.integers(0, 2**31))
def test_weighted_macro_f1_equals_scikit_learn_with_sample_weight(case, seed):
    labels, predicted, num_classes = case
    weights = np.random.default_rng(seed).uniform(0.1, 2.0, (2, len(labels)))
    models = np.stack([predicted, labels, np.roll(predicted, 1)])
    ours = metrics.compute_weighted_macro_f1(labels, models, weights, num_classes)
    assert ours.shape == (2, 3)
    for b in range(2):
        for m in range(3):
            theirs = f1_score(
                labels,
                models[m],
                labels=list(range(num_classes)),
                average="macro",
                sample_weight=weights[b],
                zero_division=0,
            )
            assert ours[b, m] == pytest.approx(theirs, abs=1e-12)


def test_unit_weights_give_the_unweighted_score():
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(0, 6, 200), rng.integers(0, 6, (4, 200))
    weighted = metrics.compute_weighted_macro_f1(labels, predicted, np.ones((1, 200), dtype=np.float32), 6)
    np.testing.assert_array_equal(weighted[0], metrics.compute_macro_f1(labels, predicted, 6))


@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        ([0, 1, 3], [0, 1, 2], "labels must lie in"),
        ([0, 1, 2], [0, 1, -1], "predicted classes must lie in"),
        ([0, 1, 2], [0, 1], "need the same N"),
    ],
)
def test_bad_classes_and_shapes_are_refused(labels, predicted, message):
    with pytest.raises(UserInputError, match=message):
        metrics.compute_confusion_counts(np.array(labels), np.array(predicted), 3)
