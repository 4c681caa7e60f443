"""The choice of images: the reasons hold, the choice is deterministic, no image appears twice."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.heat_maps.panels import MOST_CONFUSED, choose_panel_images
from search_spaces.errors import UserInputError
from tests.built_values import predictions_of
from trainables.seeds import numpy_generator
from trainables.training.predictions import Predictions


def predict(labels: list[int], predicted: list[int], *, scale: float = 4.0, num_classes: int = 3) -> Predictions:
    logits = np.zeros((len(labels), num_classes), dtype=np.float32)
    logits[np.arange(len(labels)), predicted] = scale
    return predictions_of(labels, logits, sample_ids=np.arange(len(labels)) * 10)


def random_arms(seed: int, num_images: int, num_arms: int, num_seeds: int) -> dict[str, list[Predictions]]:
    generator = numpy_generator(seed, "panels test")
    labels = generator.integers(0, 4, num_images)
    ids = generator.permutation(10 * num_images)[:num_images]
    skill = generator.normal(0, 1.5, (num_images, 1)) * np.eye(4)[labels]

    def draw() -> Predictions:
        return predictions_of(labels, skill + generator.normal(0, 1, (num_images, 4)), sample_ids=ids)

    return {f"arm{a}": [draw() for _ in range(num_seeds)] for a in range(num_arms)}


def correct_share(seeds: list[Predictions]) -> NDArray[np.float64]:
    return np.mean([s.predicted == s.labels for s in seeds], axis=0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_images=st.integers(1, 40),
    num_arms=st.integers(1, 3),
    num_seeds=st.integers(1, 4),
    num_panels=st.integers(0, 12),
)
def test_reasons_hold_and_nothing_repeats(
    seed: int, num_images: int, num_arms: int, num_seeds: int, num_panels: int
) -> None:
    arms = random_arms(seed, num_images, num_arms, num_seeds)
    chosen = choose_panel_images(arms, num_panels)
    ids = [sample_id for sample_id, _ in chosen]
    assert len(ids) == len(set(ids)) <= num_panels
    sorted_ids = list(next(iter(arms.values()))[0].sample_ids)
    shares = {name: correct_share(seeds) for name, seeds in arms.items()}
    for sample_id, reason in chosen:
        here = {name: share[sorted_ids.index(sample_id)] for name, share in shares.items()}
        if reason == MOST_CONFUSED:
            assert min(here.values()) < 1
        elif reason.startswith("only "):
            name = reason.split()[1]
            assert here.pop(name) > 0.5
            assert all(share < 0.5 for share in here.values())
        elif reason.endswith("correct"):
            assert all(share > 0.5 for share in here.values())
        else:
            assert reason.endswith("wrong")
            assert all(share < 0.5 for share in here.values())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), num_panels=st.integers(1, 10))
def test_order_of_seeds_changes_nothing(seed: int, num_panels: int) -> None:
    arms = random_arms(seed, 30, 2, 3)
    again = {name: list(reversed(seeds)) for name, seeds in arms.items()}
    assert choose_panel_images(arms, num_panels) == choose_panel_images(again, num_panels)


def test_the_reasons_alternate() -> None:
    labels = [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    small = [0, 2, 1, 1, 2, 0, 2, 2, 0, 2]
    large = [0, 2, 1, 1, 1, 0, 2, 0, 2, 2]
    arms = {"small": [predict(labels, small)] * 2, "large": [predict(labels, large)] * 2}
    reasons = Counter(reason for _, reason in choose_panel_images(arms, 5))
    expected = {"both correct", "both wrong", "only small correct", "only large correct", MOST_CONFUSED}
    assert reasons == Counter(expected)
    grouped = [reason for _, reason in choose_panel_images(arms, 9)]
    assert grouped == sorted(grouped, key=grouped.index)
    assert len(choose_panel_images(arms, 9)) == 9
    assert len(choose_panel_images(arms, 100)) == 10


def test_the_most_confused_pair_is_the_one_with_the_most_confusions() -> None:
    labels = [0, 0, 1, 1, 2, 2]
    predicted = [1, 0, 0, 0, 2, 0]
    chosen = choose_panel_images({"one": [predict(labels, predicted)]}, 6)
    pair = {sample_id for sample_id, reason in chosen if reason == MOST_CONFUSED}
    assert pair <= {0, 20, 30}
    assert pair
    assert {reason for _, reason in chosen} == {MOST_CONFUSED, "wrong", "correct"}


def test_agreement_comes_before_confidence_and_ties_go_to_the_lower_id() -> None:
    labels = [0, 0, 0, 0]
    sure = predict(labels, [0, 0, 0, 1], scale=9.0)
    unsure = predict(labels, [0, 0, 0, 0], scale=1.0)
    # Image 30 is right in two seeds of three; the others in all, equally surely.
    chosen = choose_panel_images({"one": [sure, unsure, unsure]}, 4)
    correct = [sample_id for sample_id, reason in chosen if reason == "correct"]
    assert correct == [0, 10, 20]
    assert (30, MOST_CONFUSED) in chosen


def test_a_perfect_arm_has_only_correct_images() -> None:
    labels = [0, 1, 2]
    chosen = choose_panel_images({"a": [predict(labels, labels)], "b": [predict(labels, labels)]}, 8)
    assert chosen == ((0, "both correct"), (10, "both correct"), (20, "both correct"))
    assert choose_panel_images({"a": [predict(labels, labels)]}, 0) == ()


def test_other_images_missing_arms_and_negative_numbers_are_refused() -> None:
    one, other = predict([0, 1, 2], [0, 1, 2]), predict([0, 1, 1], [0, 1, 1])
    with pytest.raises(UserInputError, match="'b' has predictions on others"):
        choose_panel_images({"a": [one], "b": [other]}, 2)
    with pytest.raises(UserInputError, match="confirm first"):
        choose_panel_images({}, 2)
    with pytest.raises(UserInputError, match="'b'"):
        choose_panel_images({"a": [one], "b": []}, 2)
    with pytest.raises(UserInputError, match="num_panels must be 0 or more, but got -1"):
        choose_panel_images({"a": [one]}, -1)
