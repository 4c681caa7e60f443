"""The arm that is handed over: by the interval on the confirm split, else by both splits, else by its cost."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.comparison.arm_choice import choose_arm, expect_maximum
from analysis.comparison.values import ArmChoice, ChoiceRule
from analysis.statistics.arm_predictions import ArmPredictions

SEEDS = (1, 2, 3)


def predict(name: str, labels: np.ndarray, wrong: list[int], num_classes: int = 2) -> ArmPredictions:
    """Return an arm of three seeds that are wrong on the same images."""
    predicted = labels.copy()
    predicted[wrong] = (predicted[wrong] + 1) % num_classes
    ids = np.arange(len(labels))
    return ArmPredictions(
        name=name,
        seeds=SEEDS,
        labels=labels,
        sample_ids=ids,
        predicted=np.stack([predicted] * len(SEEDS)),
        num_classes=num_classes,
    )


def choose(
    confirm: Mapping[str, list[int]],
    search: Mapping[str, list[int]],
    *,
    candidates: Mapping[str, int] | None = None,
    seconds: Mapping[str, float] | None = None,
    num_images: tuple[int, int] = (100, 100),
) -> ArmChoice:
    parts = []
    for wrong, size in zip((confirm, search), num_images, strict=True):
        labels = np.arange(size) % 2
        parts.append({name: predict(name, labels, own) for name, own in wrong.items()})
    return choose_arm(
        *parts,
        margin=0.01,
        alpha=0.05,
        num_candidates=candidates or dict.fromkeys(confirm, 3),
        seconds=seconds or dict.fromkeys(confirm, 1.0),
    )


FEW, MANY = list(range(4)), list(range(40))


def test_a_decided_interval_on_confirm_wins_whatever_the_search_images_say() -> None:
    found = choose({"a": MANY, "b": FEW}, {"a": [], "b": MANY})
    assert (found.arm, found.leader, found.rule) == ("b", "b", ChoiceRule.DECIDED)
    assert found.effect is not None
    assert found.effect.low > 0
    assert found.pooled_macro_f1 == {}


def test_arms_that_are_tied_on_confirm_are_chosen_by_the_images_of_both_splits() -> None:
    found = choose({"a": [0, 1, 2], "b": [10, 11]}, {"a": FEW, "b": MANY})
    assert (found.leader, found.arm, found.rule) == ("b", "a", ChoiceRule.POOLED)
    assert found.pooled_macro_f1["a"] > found.pooled_macro_f1["b"]


def test_of_three_arms_that_which_is_decided_against_takes_no_part() -> None:
    """It would win on the images of both splits."""
    found = choose({"a": [0, 1], "b": [10], "c": MANY}, {"a": FEW, "b": MANY, "c": []}, num_images=(100, 1000))
    assert set(found.pooled_macro_f1) == {"a", "b"}
    assert found.arm == "a"


def test_equal_scores_on_every_image_go_to_the_cheaper_arm() -> None:
    wrong = {"dear": FEW, "cheap": FEW}
    found = choose(wrong, wrong, seconds={"dear": 10.0, "cheap": 1.0})
    assert (found.arm, found.rule) == ("cheap", ChoiceRule.CHEAPER)
    assert choose(wrong, wrong, seconds={"dear": 1.0, "cheap": 10.0}).arm == "dear"


def test_the_best_of_many_candidates_is_lowered_more_on_the_split_that_chose_it() -> None:
    confirm, search = {"a": [0], "b": [10]}, {"a": [0, 1, 2], "b": [10, 11, 12, 13]}
    assert choose(confirm, search).arm == "a"
    assert choose(confirm, search, candidates={"a": 100, "b": 1}).arm == "b"
    assert expect_maximum(1) == 0.0
    draws = np.random.default_rng(0).normal(size=(20_000, 10)).max(axis=1)
    assert expect_maximum(10) == pytest.approx(draws.mean(), abs=0.02)


def test_a_class_with_one_confirm_image_is_no_obstacle() -> None:
    labels, search = np.array([0] * 30 + [1]), np.arange(60) % 2
    sides = {name: predict(name, labels, wrong) for name, wrong in (("a", [30]), ("b", [0, 1]))}
    rest = {name: predict(name, search, wrong) for name, wrong in (("a", FEW), ("b", []))}
    found = choose_arm(
        sides, rest, margin=0.01, alpha=0.05, num_candidates={"a": 2, "b": 2}, seconds={"a": 1.0, "b": 1.0}
    )
    assert found.arm == "b"


@given(st.permutations(["a", "b", "c"]), st.lists(st.integers(0, 40), min_size=3, max_size=3))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_arms_chooses_nothing(order: list[str], counts: list[int]) -> None:
    wrong = {name: list(range(count)) for name, count in zip("abc", counts, strict=True)}
    seconds = {"a": 1.0, "b": 2.0, "c": 3.0}
    turned = {name: wrong[name] for name in order}
    assert choose(wrong, wrong, seconds=seconds).arm == choose(turned, turned, seconds=seconds).arm
