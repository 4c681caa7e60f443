"""Effects of interventions: targets, collateral, predictions, the recommendation."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from analysis.comparison.values import ComparisonRow, Verdict
from analysis.interventions.effects import (
    PairedShares,
    TargetRule,
    find_collateral,
    judge_prediction,
    judge_target,
    mark_target,
)
from analysis.interventions.recommendation import find_lead, order_by_gain, recommend, share_noninferior_levels
from analysis.interventions.values import InterventionEffect, Outcome, Prediction, StatedIntervention, TargetEffect
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.families import Scale
from analysis.statistics.interval import Interval
from search_spaces.designs import make_factorial_runs
from search_spaces.errors import UserInputError
from tests.analysis.comparison.test_tables import ROW
from tests.analysis.interventions.stated_values import TARGET, effect_of, make_target_effect, stated_of
from tests.built_values import arm_of, interval_around
from trainables.seeds import numpy_generator

NAMES = ("cat", "dog", "ship")
RULE = TargetRule(alpha=0.05, num_targets=2, num_looks=1, margin=0.01)


def make_arm(name: str, confused: float, lost: float = 0.0, num_seeds: int = 4, size: int = 300) -> ArmPredictions:
    """Return predictions that call a share of the cats dogs and a share of the ships cats, the same images in every arm."""
    labels = np.repeat([0, 1, 2], size).astype(np.int64)
    hardness = numpy_generator(0, "hardness").random(len(labels))
    predicted = np.tile(labels, (num_seeds, 1))
    for seed in range(num_seeds):
        noisy = (hardness + numpy_generator(seed, name).normal(0, 0.02, len(labels))) % 1
        predicted[seed, (labels == 0) & (noisy < confused)] = 1
        predicted[seed, (labels == 2) & (noisy < lost)] = 0
    return arm_of(labels, predicted, name)


def test_the_target_is_the_share_of_its_classes_in_its_cells() -> None:
    treatment, control = make_arm("a", 0.1), make_arm("b", 0.3)
    found = judge_target(mark_target(treatment, control, TARGET, NAMES), RULE, Scale.DIFFERENCE)
    cats = control.labels == 0
    assert found.control == pytest.approx((control.predicted[:, cats] == 1).mean())
    assert found.treatment == pytest.approx((treatment.predicted[:, cats] == 1).mean())
    assert found.effect.estimate == pytest.approx(found.treatment - found.control)
    assert found.effect.low < found.effect.estimate < found.effect.high < 0
    assert found.verdict is Verdict.BETTER
    assert (found.num_seeds, found.num_images, found.confidence) == (4, 300, 0.975)


def test_a_rise_is_worse_and_swapped_arms_mirror_the_effect() -> None:
    better = judge_target(mark_target(make_arm("a", 0.1), make_arm("b", 0.3), TARGET, NAMES), RULE, Scale.DIFFERENCE)
    worse = judge_target(mark_target(make_arm("b", 0.3), make_arm("a", 0.1), TARGET, NAMES), RULE, Scale.DIFFERENCE)
    assert worse.verdict is Verdict.WORSE
    assert (worse.effect.low, worse.effect.high) == pytest.approx((-better.effect.high, -better.effect.low))


def test_the_change_of_a_gap_stays_within_what_is_possible() -> None:
    labels, generator = np.zeros(20, dtype=np.int64), numpy_generator(0, "gaps")
    gaps = [generator.integers(-1, 2, (2, 20)).astype(float) + shift for shift in (0.0, np.array([[-1.0], [1.0]]))]
    shares = PairedShares(treatment=gaps[0], control=gaps[1], labels=labels)
    found = judge_target(shares, RULE, Scale.UNBOUNDED)
    assert (found.effect.low, found.effect.high) == (-2, 2)
    assert found.verdict is Verdict.UNDECIDED


def test_arms_with_other_seeds_do_not_pair() -> None:
    with pytest.raises(UserInputError, match="same seeds"):
        mark_target(make_arm("a", 0.1), make_arm("b", 0.3, num_seeds=3), TARGET, NAMES)


def test_collateral_is_the_largest_loss_outside_the_target() -> None:
    loss = find_collateral(make_arm("a", 0.1, lost=0.2), make_arm("b", 0.3), ("cat", "dog"), NAMES, 0.95)
    assert loss is not None
    assert loss.class_name == "ship"
    assert loss.effect.high < 0
    assert loss.num_certain == 1
    assert find_collateral(make_arm("a", 0.1), make_arm("b", 0.3), NAMES, NAMES, 0.95) is None


def test_a_certain_loss_is_not_hidden_by_a_class_of_few_images() -> None:
    """Of 1,500 images, 6 pp are lost for certain; of 8, more are lost by chance."""
    labels = np.repeat([0, 1, 2, 3], [300, 300, 1500, 8])
    generator = numpy_generator(0, "collateral")

    def draw(name: str, accuracies: Sequence[float]) -> ArmPredictions:
        right = generator.random((4, len(labels))) < np.array(accuracies)[labels]
        predicted = np.where(right, labels, 0)
        # The rare class loses one image of eight in half of the runs, which is more than 6 pp.
        predicted[:, -8:] = np.where((np.arange(4) < (2 if name == "new" else 0))[:, None] & (np.arange(8) < 2), 0, 3)
        return arm_of(labels, predicted, name)

    new, old = draw("new", [0.8, 0.8, 0.89, 1.0]), draw("old", [0.8, 0.8, 0.95, 1.0])
    loss = find_collateral(new, old, ("a", "b"), ("a", "b", "common", "rare"), 0.95)
    assert loss is not None
    assert (loss.class_name, loss.num_certain) == ("common", 1)
    assert loss.effect.high < 0


@pytest.mark.parametrize(
    ("predicted", "measured", "outcome"),
    [
        (None, make_target_effect(-0.1), Outcome.NONE),
        (-0.1, make_target_effect(-0.11), Outcome.HELD),
        (-0.1, make_target_effect(-0.2), Outcome.REFUTED),
        (-0.1, make_target_effect(-0.01), Outcome.REFUTED),
        (-0.03, make_target_effect(0.03, verdict=Verdict.WORSE), Outcome.REFUTED),
        (-0.02, make_target_effect(-0.01, verdict=Verdict.UNDECIDED), Outcome.UNDECIDED),
        (-0.1, None, Outcome.UNDECIDED),
    ],
)
def test_predictions_hold_or_are_refuted(
    predicted: float | None, measured: TargetEffect | None, outcome: Outcome
) -> None:
    effect = None if predicted is None else interval_around(predicted, 0.03)
    assert judge_prediction(Prediction(effect=effect, basis="test"), measured) is outcome


def make_effect(arm: str, macro_f1: float, verdict: Verdict, target: TargetEffect) -> InterventionEffect:
    level = {"p_noninferior": float(macro_f1 < 0.005), "noninferior_level": 0.01}
    return effect_of(stated_of(arm), interval_around(macro_f1, 0.01), verdict, target, **level)


def test_the_best_macro_f1_is_recommended_and_a_target_counts_only_without_loss() -> None:
    reached, open_target = make_target_effect(-0.1), make_target_effect(-0.1, verdict=Verdict.UNDECIDED)
    better = make_effect("better", 0.02, Verdict.BETTER, open_target)
    on_target = make_effect("on_target", 0.03, Verdict.UNDECIDED, reached)
    losing = make_effect("losing", -0.02, Verdict.WORSE, reached)
    open_one = make_effect("open", 0.03, Verdict.UNDECIDED, open_target)
    assert recommend([losing, on_target, better, open_one], 0.005, "studies/digits").arm == "better"
    assert recommend([losing, on_target, open_one], 0.005, "studies/digits").arm == "on_target"
    nothing = recommend([losing, open_one], 0.005, "studies/digits")
    assert nothing.arm == ""
    assert nothing.reason.startswith("Nothing helped")
    unmeasured = replace(better, macro_f1=None, macro_f1_verdict=None)
    assert recommend([unmeasured], 0.005, "studies/digits").arm == ""


def test_a_target_counts_only_where_a_loss_of_macro_f1_is_excluded_at_its_level() -> None:
    on_target = make_effect("on_target", 0.0, Verdict.UNDECIDED, make_target_effect(-0.1))
    excluded = replace(on_target, p_noninferior=0.004, noninferior_level=0.0125)
    found = recommend([excluded], 0.005, "studies/digits")
    # The interval of the row, at a lower level, contains a loss of the margin.
    assert on_target.macro_f1 is not None
    assert on_target.macro_f1.low < -0.005
    assert found.arm == "on_target"
    assert "macro-F1 does not fall by 0.5 pp (p 0.004, at most 0.013)" in found.reason
    assert recommend([replace(excluded, p_noninferior=0.02)], 0.005, "studies/digits").arm == ""
    assert recommend([replace(excluded, p_noninferior=None)], 0.005, "studies/digits").arm == ""
    open_target = make_target_effect(-0.1, verdict=Verdict.UNDECIDED)
    assert recommend([replace(excluded, target=open_target)], 0.005, "studies/digits").arm == ""


def state_three(*effects: Interval | None, seen: int | None = None) -> list[StatedIntervention]:
    first = make_effect("a", 0.0, Verdict.UNDECIDED, make_target_effect(-0.1)).stated
    return [
        replace(first, arm="abc"[i], prediction=Prediction(effect=effect, basis=""), is_seen=i == seen)
        for i, effect in enumerate(effects)
    ]


def test_the_largest_certain_prediction_leads_and_has_half_of_alpha() -> None:
    falls, more = (Interval(estimate=e, low=e - 0.05, high=e + 0.05) for e in (-0.1, -0.2))
    unsure = Interval(estimate=-0.3, low=-0.7, high=0.1)
    assert find_lead(state_three(falls, more, unsure)) == "b"
    assert find_lead(state_three(falls, more, unsure, seen=1)) == "a"
    assert find_lead(state_three(None, unsure, None)) == ""
    led = share_noninferior_levels(state_three(falls, more, unsure), 0.024)
    assert led == pytest.approx({"a": 0.004, "b": 0.016, "c": 0.004})
    equal = share_noninferior_levels(state_three(None, unsure, None), 0.024, num_looks=2)
    assert equal == pytest.approx(dict.fromkeys("abc", 0.004))
    # Whichever can err: their levels, and the claims of the others with alpha / 2m each, are alpha at most.
    for levels, alpha in ((led, 0.024), ({arm: 2 * level for arm, level in equal.items()}, 0.024)):
        for erring in ("", "a", "b", "ab", "bc", "abc"):
            assert sum(levels[arm] for arm in erring) + (3 - len(erring)) * alpha / 6 <= alpha + 1e-12
    assert share_noninferior_levels(state_three(None)[:1], 0.025) == {"a": 0.025}


def test_targets_that_are_reached_ask_for_more_seeds_where_macro_f1_is_open() -> None:
    reached = make_target_effect(-0.1)
    first, second = (make_effect(name, -0.001, Verdict.UNDECIDED, reached) for name in ("first", "second"))
    other = make_effect("other", 0.0, Verdict.UNDECIDED, make_target_effect(0.0, verdict=Verdict.UNDECIDED))
    found = recommend([first, other, second], 0.005, "studies/digits")
    assert found.arm == ""
    assert found.reason.startswith("Nothing is recommended yet: first and second are BETTER on the target")
    assert "study intervene studies/digits --again --only first --only second --seeds 8" in found.reason
    assert "may decide it" in found.reason, (
        "twice the seeds exclude a loss only with a chance, which the launch computes"
    )
    spaced = recommend([first], 0.005, "my studies/digits")
    assert "study intervene 'my studies/digits' --again --only first" in spaced.reason
    longer = replace(first, num_seeds=20)
    assert "with 20 seeds a loss" in recommend([longer], 0.005, "studies/digits").reason
    weighted = replace(first, stated=replace(first.stated, changes={"class_weight_strength": 0.3}))
    repeated = recommend([weighted], 0.005, "studies/digits", "cat:big dog").reason
    command = "study intervene studies/digits --again --target 'cat:big dog' --only first --strength 0.3 --seeds 8"
    assert f"`{command}`" in repeated
    both = recommend([first, second], 0.005, "studies/digits", runs=make_factorial_runs(["first", "second"]))
    assert "--only first --only second --design factorial --seeds 8" in both.reason
    losing = make_effect("losing", -0.02, Verdict.WORSE, reached)
    assert recommend([losing, other], 0.005, "studies/digits").reason.startswith("Nothing helped")
    factorial = recommend([first, other], 0.005, "studies/digits", runs=make_factorial_runs(["first", "other"]))
    assert factorial.reason.startswith("Nothing is recommended yet: first is BETTER")


def make_interaction(first: str, second: str, verdict: Verdict) -> ComparisonRow:
    return replace(ROW, treatment=f"{first} x {second}", control="no interaction", verdict=verdict)


def test_a_factorial_design_recommends_the_run_of_all_that_help_together() -> None:
    reached = make_target_effect(-0.1)
    effects = [
        make_effect("a", 0.01, Verdict.BETTER, reached),
        make_effect("b", 0.03, Verdict.BETTER, reached),
        make_effect("c", -0.03, Verdict.WORSE, reached),
    ]
    runs = make_factorial_runs(["a", "b", "c"])
    assert recommend(effects, 0.005, "studies/digits", runs=runs).arm == "run-ab"
    found = recommend(effects, 0.005, "studies/digits", rows=[make_interaction("a", "b", Verdict.WORSE)], runs=runs)
    assert (found.arm, found.interventions) == ("run-b", ("b",))
    assert "A is left out, since its interaction with b is WORSE" in found.reason
    assert recommend(effects[2:], 0.005, "studies/digits", runs=runs).arm == ""


def test_a_fraction_without_the_best_run_recommends_the_next_one() -> None:
    names = list("abcde")
    runs = make_factorial_runs(names)
    effects = [
        make_effect(name, 0.05 - 0.01 * place, Verdict.BETTER, make_target_effect(-0.1))
        for place, name in enumerate(names)
    ]
    found = recommend(effects[:3], 0.005, "studies/digits", runs=runs)
    assert set(found.interventions) == {"a", "b"}
    assert "No run of the design has c with them" in found.reason


def test_interventions_are_ordered_by_the_certain_gain_of_a_device_second() -> None:
    def state(arm: str, low: float, high: float) -> StatedIntervention:
        effect = Interval(estimate=(low + high) / 2, low=low, high=high)
        return stated_of(arm, prediction=Prediction(effect=effect, basis=""))

    unknown = [stated_of(arm) for arm in ("slow", "fast")]
    given = [
        *unknown,
        state("unsure", -0.5, 0.1),
        state("rises", 0.1, 0.2),
        state("training", -0.3, -0.2),
        state("head", -0.3, -0.2),
    ]
    seconds = {"slow": 9.0, "fast": 1.0, "unsure": 5.0, "rises": 0.5, "training": 100.0, "head": 2.0}
    order = [one.arm for one in order_by_gain(given, seconds)]
    assert order == ["head", "training", "unsure", "rises", "fast", "slow"]
    assert find_lead(order_by_gain(given, seconds)) == "head", "of equal predictions, that which costs less leads"
    assert [one.arm for one in order_by_gain(unknown, dict.fromkeys(seconds, 0.0))] == ["slow", "fast"]
