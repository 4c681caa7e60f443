"""Contrasts between groups of classes: exact, with classes as the unit."""

import numpy as np
import pytest
from scipy import stats

from analysis.confusions.class_scores import compute_group_contrasts, list_group_problems
from analysis.confusions.values import ClassScore
from analysis.statistics.interval import Interval
from search_spaces.errors import UserInputError


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
