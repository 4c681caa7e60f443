"""The gate: shares that sum to one, e-values, and the answers to looks at one comparison."""

import re

import numpy as np
import pytest

from analysis.comparison.gate import (
    HALF_OF_LOOKS,
    HALF_OF_PROJECT,
    bound_p_values,
    compute_e_values,
    compute_look_share,
    compute_share,
    judge_look,
)
from analysis.comparison.values import GateAnswer, GateLook, ProjectPlace, Question, Verdict
from analysis.statistics.arm_predictions import ArmPredictions
from tests.built_values import arm_of

NUM_CLASSES = 4


def draw_sides(gain: float, *, num_pairs: int = 5, num_images: int = 400) -> tuple[ArmPredictions, ArmPredictions]:
    """Return a new and an old arm: models that are right on images that are easy enough for them, the new ones more often."""
    generator = np.random.default_rng(1)
    labels = np.arange(num_images) % NUM_CLASSES
    ease = generator.standard_normal(num_images)
    sides = []
    for name, accuracy in (("new", 0.75 + gain), ("old", 0.75)):
        own = ease + 0.5 * generator.standard_normal((num_pairs, num_images))
        is_right = own > np.quantile(own, 1 - accuracy)
        sides.append(arm_of(labels, np.where(is_right, labels, (labels + 1) % NUM_CLASSES), name=name))
    return sides[0], sides[1]


def look(gain: float, *, not_worse: bool = False, margin: float = 0.02, alpha: float = 0.05, **sizes: int) -> GateLook:
    new, old = draw_sides(gain, **sizes)
    return judge_look(new, old, not_worse=not_worse, margin=margin, alpha=alpha)


def test_the_shares_of_all_looks_and_comparisons_sum_to_one() -> None:
    numbers = np.arange(1, 100_001)
    for half in (HALF_OF_LOOKS, HALF_OF_PROJECT):
        sums = np.cumsum(compute_share(numbers, half))
        assert sums[half - 1] == pytest.approx(0.5)
        assert 0.9998 < sums[-1] < 1
    assert compute_look_share(np.array([3, 4, 10])) == pytest.approx(compute_share(np.array([1, 2, 8]), 5))


@pytest.mark.parametrize("number", [1, 2, 10, 300])
def test_the_e_value_of_a_uniform_p_value_has_a_mean_of_at_most_one(number: int) -> None:
    place = ProjectPlace(rate=0.1, number=number)
    edges = np.append(0.0, bound_p_values(place, number))
    middles = (edges[1:] + edges[:-1]) / 2
    mean = sum(width * compute_e_values(place, p)[0] for width, p in zip(np.diff(edges), middles, strict=True))
    assert 0.6 < mean <= 1 + 1e-12
    assert compute_e_values(place, edges[-1] * 1.01)[0] == 0.0


def test_a_yes_needs_the_e_value_that_the_yes_before_it_leave() -> None:
    for num_found in range(9):
        place = ProjectPlace(rate=0.1, number=10, num_found=num_found)
        bound = bound_p_values(place, num_found + 1)[-1]
        for p_value, is_yes in ((0.999 * bound, True), (1.001 * bound, False)):
            e_value, needed = compute_e_values(place, p_value)
            assert (e_value >= needed) == is_yes
    alone = draw_sides(0.15)
    p_value = judge_look(*alone, not_worse=False, margin=0.02, alpha=0.05).p_value
    assert p_value < 0.05
    for number, answer in ((1, GateAnswer.YES), (10_000, GateAnswer.UNDECIDED)):
        place = ProjectPlace(rate=0.1, number=number)
        found = judge_look(*alone, not_worse=False, margin=0.02, alpha=0.05, place=place)
        assert (found.answer, found.p_value) == (answer, p_value)
    assert found.row.verdict is Verdict.BETTER
    assert "would decide it (now 5 and 400)" in found.settles


def test_an_earlier_look_counts() -> None:
    place = ProjectPlace(rate=0.1, number=1, smallest_p=1e-6)
    found = judge_look(*draw_sides(0.0), not_worse=False, margin=0.02, alpha=0.05, place=place)
    assert (found.answer, found.p_value) == (GateAnswer.YES, 1e-6)


@pytest.mark.parametrize(
    ("gain", "options", "answer", "verdict"),
    [
        (0.15, {}, GateAnswer.YES, Verdict.BETTER),
        (-0.15, {}, GateAnswer.NO, Verdict.WORSE),
        (0.0, {"margin": 0.2}, GateAnswer.NO, Verdict.EQUIVALENT),
        (0.0, {}, GateAnswer.UNDECIDED, Verdict.UNDECIDED),
        (0.0, {"margin": 0.2, "not_worse": True}, GateAnswer.YES, Verdict.EQUIVALENT),
        (-0.2, {"not_worse": True}, GateAnswer.NO, Verdict.WORSE),
        (-0.15, {"margin": 0.14, "not_worse": True}, GateAnswer.UNDECIDED, Verdict.WORSE),
    ],
)
def test_answers(gain: float, options: dict[str, float], answer: GateAnswer, verdict: Verdict) -> None:
    found = look(gain, **options)
    assert (found.answer, found.row.verdict) == (answer, verdict), found
    assert bool(found.settles) == (answer is GateAnswer.UNDECIDED)
    assert found.row.confidence == pytest.approx(1 - 2 * 0.05 * 5 / 56)


def test_a_yes_is_where_the_interval_of_the_look_lies_above_zero() -> None:
    for gain in np.linspace(0.02, 0.1, 9):
        found = look(gain)
        assert (found.answer is GateAnswer.YES) == (found.row.effect.low > 0)
        assert found.p_value == pytest.approx(look(gain, alpha=0.2).p_value, rel=1e-6)


def test_a_look_needs_three_pairs_of_seeds_and_one_is_about_these_models() -> None:
    one, two, three = (look(0.2, num_pairs=number) for number in (1, 2, 3))
    assert one.row.question is Question.MODELS
    assert (one.p_value, two.p_value) == (1.0, 1.0)
    assert two.answer is one.answer is GateAnswer.UNDECIDED
    assert two.settles == "a claim about fresh seeds needs at least 3 pairs of seeds (now 2)"
    assert three.answer is GateAnswer.YES


def test_what_would_decide_decides_if_the_difference_stays() -> None:
    """With so many pairs, or images, of the same kind: those that there are, several times."""
    found = look(0.05)
    pairs = int(re.findall(r"about (\d+) pairs of seeds would decide it \(now 5 and 400\)", found.settles)[0])
    assert 6 <= pairs <= 10
    sides = [arm_of(arm.labels, np.tile(arm.predicted, (2, 1)), name=arm.name) for arm in draw_sides(0.05)]
    assert judge_look(*sides, not_worse=False, margin=0.02, alpha=0.05).answer is GateAnswer.YES
    found = look(0.03, num_pairs=10)
    images = int(re.findall(r", or ([\d,]+) test images, would decide", found.settles)[0].replace(",", ""))
    assert 400 < images < 4000
    new, old = draw_sides(0.03, num_pairs=10)
    times = -(-images // 400)
    larger = [arm_of(np.tile(arm.labels, times), np.tile(arm.predicted, times), name=arm.name) for arm in (new, old)]
    assert judge_look(*larger, not_worse=False, margin=0.02, alpha=0.05).answer is GateAnswer.YES
    assert " pairs of seeds with " in look(0.0).settles, "neither alone would"


def test_predictions_that_hardly_differ_need_more_images() -> None:
    labels = np.arange(40) % NUM_CLASSES
    same = arm_of(labels, np.tile(labels, (4, 1)))
    found = judge_look(same, same, not_worse=False, margin=0.02, alpha=0.05)
    assert found.answer is GateAnswer.UNDECIDED
    assert found.settles.startswith("the predictions differ on none of the 40 test images")
