import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from analysis.comparison.exploratory import compute_class_differences
from analysis.comparison.other_intervals import (
    compute_bootstrap_differences,
    compute_crossed_bootstrap,
    draw_image_weights,
)
from analysis.comparison.paired_difference import (
    compare_arms,
    compute_difference,
    compute_seed_differences,
    compute_verdict,
)
from analysis.comparison.values import Question, Verdict
from analysis.confusions.class_scores import compute_macro_f1_intervals
from analysis.statistics.arm_predictions import average_arms, stack_predictions
from analysis.statistics.crossed_interval import compute_t_quantile
from analysis.statistics.interval import Interval
from search_spaces.designs import make_factorial_design
from search_spaces.errors import UserInputError
from search_spaces.space_tables import load_space
from tests.built_values import arm_of, predictions_of

NUM_CLASSES = 4
SETTINGS = {"margin": 0.005, "alpha": 0.05, "num_rows": 1, "cost_ratio": None}


def make_arm(name, labels, predicted, seeds=None):
    more = {} if seeds is None else {"seeds": seeds}
    return arm_of(labels, predicted, name, num_classes=NUM_CLASSES, **more)


def draw_arms(seed, num_seeds=5, num_images=400, shift=0.0, seed_sd=0.05):
    """Two arms on the same images with the same difficulty; the treatment's margin is `shift` higher."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % NUM_CLASSES
    difficulty = rng.normal(size=num_images)
    arms = []
    for name, mean in (("resnet50", 0.8 + shift), ("resnet18", 0.8)):
        margin = mean + difficulty + 0.3 * rng.normal(size=num_images)
        margin = margin + seed_sd * rng.normal(size=(num_seeds, 1))
        margin = margin + 0.5 * rng.normal(size=(num_seeds, num_images))
        guess = rng.integers(0, NUM_CLASSES, (num_seeds, num_images))
        arms.append(make_arm(name, labels, np.where(margin > 0, labels, guess)))
    return arms


def test_row_contains_the_measured_values():
    treatment, control = draw_arms(0, shift=0.4)
    row = compare_arms(treatment, control, margin=0.005, alpha=0.05, num_rows=2, cost_ratio=2.3)
    differences = [
        f1_score(treatment.labels, a, average="macro") - f1_score(control.labels, b, average="macro")
        for a, b in zip(treatment.predicted, control.predicted, strict=True)
    ]
    assert row.seed_differences == pytest.approx(differences, abs=1e-14)
    assert row.effect.estimate == pytest.approx(np.mean(differences), abs=1e-14)
    assert row.effect.low < row.effect.estimate < row.effect.high
    assert row.verdict is Verdict.BETTER
    assert row.settles == ""
    assert (row.treatment, row.control, row.num_seeds, row.num_images) == ("resnet50", "resnet18", 5, 400)
    assert row.confidence == 0.975
    assert row.cost_ratio == 2.3
    assert row.minimum_detectable_effect > row.effect.high - row.effect.estimate


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([-0.3, 0.0, 0.05, 0.3]), st.integers(2, 4))
def test_swapping_arms_mirrors_the_row_and_p_agrees_with_the_interval(seed, shift, num_seeds):
    treatment, control = draw_arms(seed, num_seeds=num_seeds, num_images=80, shift=shift)
    row, mirror = compare_arms(treatment, control, **SETTINGS), compare_arms(control, treatment, **SETTINGS)
    assert mirror.effect.low == -row.effect.high
    assert mirror.effect.high == -row.effect.low
    assert mirror.effect.estimate == -row.effect.estimate
    opposite = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    assert mirror.verdict is opposite.get(row.verdict, row.verdict)
    same = ("materiality", "settles", "standard_error", "p_value", "minimum_detectable_effect", "degrees_of_freedom")
    assert [getattr(mirror, name) for name in same] == [getattr(row, name) for name in same]
    assert (row.p_value < 1 - row.confidence) == (row.effect.low > 0 or row.effect.high < 0)
    assert (row.settles != "") == (row.verdict is Verdict.UNDECIDED)


def test_permuting_seeds_and_images_changes_nothing():
    arms = draw_arms(1)
    order = np.random.default_rng(2).permutation(len(arms[0].labels))
    shuffled = [
        dataclasses.replace(
            arm, labels=arm.labels[order], sample_ids=arm.sample_ids[order], predicted=arm.predicted[::-1][:, order]
        )
        for arm in arms
    ]
    row, other = compare_arms(*arms, **SETTINGS), compare_arms(*shuffled, **SETTINGS)
    assert other.effect.estimate == pytest.approx(row.effect.estimate, abs=1e-13)
    assert other.standard_error == pytest.approx(row.standard_error, rel=1e-9)
    assert other.degrees_of_freedom == pytest.approx(row.degrees_of_freedom, rel=1e-9)
    assert other.p_value == pytest.approx(row.p_value, rel=1e-9)


def test_identical_arms_are_not_shown_to_be_equivalent():
    """Any difference in images that the test set lacks is possible: the interval had no width, and was EQUIVALENT."""
    for num_seeds in (1, 5):
        treatment, _ = draw_arms(3, num_seeds=num_seeds)
        row = compare_arms(treatment, dataclasses.replace(treatment, name="copy"), **SETTINGS)
        quantile = compute_t_quantile(0.95, 399)
        pseudo = quantile**2 / 3
        assert row.effect.high == pytest.approx(quantile * np.sqrt(pseudo) / (400 + pseudo))
        assert (row.effect.estimate, row.effect.low) == (0.0, -row.effect.high)
        assert row.minimum_detectable_effect > row.effect.high
        assert row.p_value == 1.0
        assert (row.verdict, row.models_verdict) == (Verdict.UNDECIDED, Verdict.UNDECIDED)
        assert row.settles.startswith("the predictions differ on none of the 400 test images, and EQUIVALENT needs 5")
        wide = compare_arms(treatment, dataclasses.replace(treatment, name="copy"), **{**SETTINGS, "margin": 0.1})
        assert (wide.verdict, wide.effect) == (Verdict.UNDECIDED, row.effect)
    bootstrap = compute_crossed_bootstrap(
        treatment, dataclasses.replace(treatment, name="copy"), confidence=0.95, num_draws=20
    )
    assert (bootstrap.low, bootstrap.high) == (0.0, 0.0)


def test_more_rows_widen_the_interval():
    arms = draw_arms(4)
    widths = []
    for num_rows in (1, 3, 10):
        effect = compare_arms(*arms, margin=0.005, alpha=0.05, num_rows=num_rows, cost_ratio=None).effect
        widths.append(effect.high - effect.low)
    assert widths == sorted(set(widths))


@pytest.mark.parametrize(
    ("low", "high", "verdict", "materiality"),
    [
        (0.006, 0.02, Verdict.BETTER, "material"),
        (0.001, 0.004, Verdict.BETTER, "negligible"),
        (0.001, 0.02, Verdict.BETTER, ""),
        (-0.02, -0.006, Verdict.WORSE, "material"),
        (-0.004, -0.001, Verdict.WORSE, "negligible"),
        (-0.02, -0.001, Verdict.WORSE, ""),
        (-0.004, 0.003, Verdict.EQUIVALENT, ""),
        (0.0, 0.0, Verdict.EQUIVALENT, ""),
        (0.0, 0.005, Verdict.UNDECIDED, ""),
        (-0.005, 0.004, Verdict.UNDECIDED, ""),
        (-0.02, 0.02, Verdict.UNDECIDED, ""),
    ],
)
def test_verdict_follows_the_rule(low, high, verdict, materiality):
    assert compute_verdict(Interval(estimate=(low + high) / 2, low=low, high=high), 0.005) == (verdict, materiality)


def test_more_seeds_are_recommended_where_seeds_are_the_noise():
    """All images of a seed move together, so seeds cause the variance; the recommended number must suffice."""
    arms = draw_arms(11, num_seeds=5, num_images=4000, shift=0.12, seed_sd=0.15)
    row = compare_arms(*arms, **SETTINGS)
    assert row.verdict is Verdict.UNDECIDED
    assert "seeds would settle it (now 5)" in row.settles
    named = int(row.settles.split()[1])
    assert 5 < named < 1000
    # The same seeds again, as many as named, keep estimate and variances roughly: then the row is decided.
    copies = -(-named // 5)
    repeated = [make_arm(a.name, a.labels, np.tile(a.predicted, (copies, 1))) for a in arms]
    assert compare_arms(*repeated, **SETTINGS).verdict is not Verdict.UNDECIDED


def test_more_images_are_recommended_where_images_are_the_noise():
    """Seeds that agree on every image cannot decide the row."""
    one = draw_arms(6, num_seeds=1, num_images=200, shift=0.02)
    row = compare_arms(*[make_arm(a.name, a.labels, np.repeat(a.predicted, 4, axis=0)) for a in one], **SETTINGS)
    assert row.verdict is Verdict.UNDECIDED
    assert row.settles.startswith("more seeds cannot settle this; more test images are needed (about ")
    named = int(row.settles.split("(about ")[1].split(" with")[0].replace(",", ""))
    assert named > 200
    copies = -(-named // 200)
    tiled = [
        make_arm(a.name, np.tile(a.labels, copies), np.repeat(np.tile(a.predicted, copies), 4, axis=0)) for a in one
    ]
    assert compare_arms(*tiled, **SETTINGS).verdict is not Verdict.UNDECIDED


def test_bootstrap_draws_equal_scikit_learn():
    treatment, control = draw_arms(7, num_seeds=3, num_images=120)
    rng = np.random.default_rng(0)
    weights, seed_draws = draw_image_weights(treatment.labels, 50, rng), rng.integers(3, size=(50, 3))
    draws = compute_bootstrap_differences(treatment, control, weights, seed_draws)
    for b in range(50):
        differences = [
            f1_score(treatment.labels, treatment.predicted[s], average="macro", sample_weight=weights[b])
            - f1_score(control.labels, control.predicted[s], average="macro", sample_weight=weights[b])
            for s in seed_draws[b]
        ]
        assert draws[b] == pytest.approx(np.mean(differences), abs=1e-12)


def test_bootstrap_weights_are_multinomial_within_each_class():
    labels = np.repeat([0, 1, 3], [10, 25, 2])
    weights = draw_image_weights(labels, 2000, np.random.default_rng(1))
    assert weights.min() >= 0
    np.testing.assert_array_equal(weights, np.round(weights))
    for label, size in ((0, 10), (1, 25), (3, 2)):
        own = weights[:, labels == label]
        np.testing.assert_array_equal(own.sum(axis=1), size)
        assert own.mean() == 1.0
        assert own.var() == pytest.approx(1 - 1 / size, rel=0.08)


def test_bootstrap_agrees_with_the_interval_and_repeats():
    arms = draw_arms(8, num_seeds=10, num_images=1000)
    found = compute_difference(*arms, 0.95)  # type: ignore[call-arg]
    bootstrap = compute_crossed_bootstrap(*arms, confidence=0.95, random_seed=1, num_draws=1000)
    assert bootstrap.estimate == found.interval.estimate
    # Owen 2007: resampling both ways holds the seed x image noise three times, the protocol's interval once.
    owen = found.seed_variance * 9 / 10 + found.image_variance + found.seed_image_variance
    quantile = float(compute_t_quantile(0.95, found.degrees_of_freedom))
    deviation = (bootstrap.high - bootstrap.low) / 2 / quantile
    assert deviation == pytest.approx(owen**0.5, rel=0.06)
    assert deviation > found.standard_error
    again = compute_crossed_bootstrap(*arms, confidence=0.95, random_seed=1, num_draws=1000)
    other = compute_crossed_bootstrap(*arms, confidence=0.95, random_seed=2, num_draws=1000)
    assert again == bootstrap
    assert other.low != bootstrap.low


@pytest.mark.parametrize(("num_seeds", "seed_sd"), [(3, 0.0), (6, 0.1)])
def test_interval_covers_the_truth_without_being_too_wide(num_seeds, seed_sd):
    """Exchangeable arms: the true difference is 0. 400 repetitions: 95 % +- 2.2 % (2 sigma)."""
    intervals = [
        compute_difference(*draw_arms(1000 + i, num_seeds=num_seeds, num_images=200, seed_sd=seed_sd), 0.95).interval  # type: ignore[call-arg]
        for i in range(400)
    ]
    coverage = np.mean([i.low <= 0 <= i.high for i in intervals])
    assert 0.92 <= coverage <= 0.995
    errors = np.std([i.estimate for i in intervals])
    assert np.median([i.high - i.low for i in intervals]) < 2 * 2 * 1.96 * errors


def test_one_arms_interval_covers_its_macro_f1():
    large = [draw_arms(90_000 + i, num_images=20_000)[0] for i in range(20)]
    truth = np.mean([compute_macro_f1_intervals(arm, 0.95).estimate for arm in large])
    intervals = [compute_macro_f1_intervals(draw_arms(5000 + i, num_images=200)[0], 0.95).recipe for i in range(300)]
    coverage = np.mean([i.low <= truth <= i.high for i in intervals])
    assert 0.91 <= coverage <= 0.99


def make_predictions(ids, labels, seed=0, split="test", num_classes=NUM_CLASSES):
    logits = np.random.default_rng(seed).normal(size=(len(ids), num_classes)).astype(np.float32)
    return predictions_of(labels, logits, sample_ids=np.array(ids), split=split)


def test_stacking_pairs_by_sample_id_and_sorts_seeds():
    one = make_predictions([5, 3, 9], [0, 1, 2], seed=1)
    two = make_predictions([9, 5, 3], [2, 0, 1], seed=2)
    arm = stack_predictions("a", {7: two, 2: one})
    assert arm.seeds == (2, 7)
    np.testing.assert_array_equal(arm.sample_ids, [3, 5, 9])
    np.testing.assert_array_equal(arm.labels, [1, 0, 2])
    np.testing.assert_array_equal(arm.predicted, [one.predicted, two.predicted])
    assert arm.num_classes == NUM_CLASSES


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (make_predictions([1, 2, 4], [0, 1, 2]), "sample 3 is only in one of them"),
        (make_predictions([1, 2, 3, 8], [0, 1, 2, 0]), "sample 8 is only in one of them"),
        (make_predictions([1, 2, 3], [0, 3, 2]), "sample 2 is of class 1 in one and 3 in the other"),
        (make_predictions([1, 2, 3], [0, 1, 2], split="confirm"), "'test' and 'confirm'"),
        (make_predictions([1, 2, 3], [0, 1, 2], num_classes=5), "4 and 5"),
    ],
)
def test_seeds_that_do_not_share_images_are_refused(other, message):
    with pytest.raises(UserInputError, match=message):
        stack_predictions("a", {0: make_predictions([1, 2, 3], [0, 1, 2]), 1: other})


def test_no_predictions_are_refused():
    with pytest.raises(UserInputError, match="no predictions"):
        stack_predictions("a", {})


def test_arms_that_do_not_pair_are_refused():
    treatment, control = draw_arms(0, num_images=40)
    other_seeds = dataclasses.replace(control, seeds=(0, 1, 2, 3, 9))
    with pytest.raises(UserInputError, match="'resnet50' has seed 4 and 'resnet18' has not"):
        compute_difference(treatment, other_seeds, 0.95)
    other_ids = dataclasses.replace(control, sample_ids=control.sample_ids + 1)
    with pytest.raises(UserInputError, match="sample 0 is only in one"):
        compare_arms(treatment, other_ids, **SETTINGS)
    other_labels = dataclasses.replace(control, labels=np.where(np.arange(40) == 7, 0, control.labels))
    with pytest.raises(UserInputError, match="sample 7 is of class 3 in one and 0"):
        compare_arms(treatment, other_labels, **SETTINGS)


def test_row_of_one_seed_is_about_these_models_and_narrower_than_the_recipe():
    one = compare_arms(*draw_arms(0, num_seeds=1, shift=0.4), **SETTINGS)
    assert one.question is Question.MODELS
    assert (one.num_seeds, one.seed_variance, one.seed_image_variance) == (1, None, None)
    assert (one.effect, one.verdict) == (one.models_effect, one.models_verdict)
    assert one.verdict is Verdict.BETTER
    assert one.effect.estimate == compute_seed_differences(*draw_arms(0, num_seeds=1, shift=0.4))[0]
    undecided = compare_arms(*draw_arms(0, num_seeds=1), **SETTINGS)
    assert "test images would settle it for these models (now 400)" in undecided.settles
    several = compare_arms(*draw_arms(0, num_seeds=5, seed_sd=0.2), **SETTINGS)
    assert several.question is Question.RECIPE
    assert several.effect.low < several.models_effect.low < several.models_effect.high < several.effect.high


def test_interval_for_one_pair_of_models_covers_their_difference_on_new_images():
    """200 pairs of fixed models, whose true difference is that on the images from which the test images are drawn."""
    rng, covered = np.random.default_rng(1), []
    for seed in range(200):
        pool = draw_arms(seed, num_seeds=1, num_images=8000, shift=0.1)
        truth = compute_seed_differences(*pool)[0]
        chosen = rng.choice(2000, 100, replace=False)[:, None] * NUM_CLASSES + np.arange(NUM_CLASSES)
        sample = [make_arm(a.name, a.labels[chosen.ravel()], a.predicted[:, chosen.ravel()]) for a in pool]
        effect = compare_arms(*sample, **SETTINGS).effect
        covered.append(effect.low <= truth <= effect.high)
    assert 0.90 <= np.mean(covered) <= 0.99


def test_interval_stays_inside_the_possible_range():
    labels = np.arange(8) % NUM_CLASSES
    right = np.stack([labels, labels])
    half = np.stack([labels, (labels + 1) % NUM_CLASSES])
    row = compare_arms(make_arm("a", labels, half), make_arm("b", labels, right), **SETTINGS)
    assert (row.effect.low, row.effect.estimate, row.effect.high) == (-1.0, -0.5, 1.0)
    assert row.minimum_detectable_effect == 1.0
    arms = make_arm("a", labels, half), make_arm("b", labels, right)
    bootstrap = compute_crossed_bootstrap(*arms, confidence=0.95, num_draws=100)
    assert (bootstrap.low, bootstrap.high) == (-1.0, 1.0)


@pytest.mark.parametrize(("num_seeds", "num_control_seeds", "seed_sd"), [(3, 5, 0.1), (4, 2, 0.0)])
def test_arms_with_other_seeds_are_compared_without_pairs(num_seeds, num_control_seeds, seed_sd):
    """Welch's interval covers a true difference of 0; as each arm has its own noise of seeds, its variance is that of both."""
    covered = []
    for i in range(300):
        treatment, control = draw_arms(1000 + i, num_seeds=5, num_images=200, seed_sd=seed_sd)
        seeds = tuple(range(10, 10 + num_control_seeds))
        sides = (
            make_arm("a", treatment.labels, treatment.predicted[:num_seeds]),
            make_arm("b", control.labels, control.predicted[-num_control_seeds:], seeds),
        )
        row = compare_arms(*sides, **SETTINGS)
        covered.append(row.effect.low <= 0 <= row.effect.high)
    assert (row.question, row.num_seeds, row.num_control_seeds) == (Question.RECIPE, num_seeds, num_control_seeds)
    assert row.seed_differences == ()
    assert row.degrees_of_freedom >= min(num_seeds, num_control_seeds) - 1
    assert 0.93 <= np.mean(covered) <= 1.0


def test_a_model_against_several_is_a_row_about_these_models():
    treatment, control = draw_arms(3, num_seeds=5, shift=0.4)
    row = compare_arms(make_arm("one", treatment.labels, treatment.predicted[:1]), control, **SETTINGS)
    assert (row.question, row.seed_variance, row.verdict) == (Question.MODELS, None, Verdict.BETTER)
    assert (row.num_seeds, row.num_control_seeds) == (1, 5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"margin": 0.0}, "margin"),
        ({"margin": 1.5}, "margin"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"num_rows": 0}, "num_rows"),
        ({"cost_ratio": 0.0}, "cost_ratio"),
        ({"cost_ratio": float("inf")}, "cost_ratio"),
    ],
)
def test_settings_out_of_range_are_refused(changed, message):
    with pytest.raises(UserInputError, match=message):
        compare_arms(*draw_arms(0, num_images=40), **{**SETTINGS, **changed})


@pytest.mark.parametrize("seeds", [(0, 0), (1, 0)])
def test_an_arm_needs_different_seeds_in_order(seeds):
    with pytest.raises(UserInputError, match="increasing order"):
        make_arm("a", np.array([0, 1]), np.zeros((2, 2), dtype=np.int64), seeds=seeds)


@pytest.mark.parametrize("shift", [0.1, 0.15, 0.2, 0.25, 0.3])
def test_adjusted_p_agrees_with_the_verdict_of_any_table_and_look(shift):
    """P of .03 beside UNDECIDED was possible: the adjustment ignored the looks."""
    arms = draw_arms(5, shift=shift)
    for num_rows, num_looks in ((1, 1), (1, 3), (4, 3)):
        row = compare_arms(*arms, **{**SETTINGS, "num_rows": num_rows}, num_looks=num_looks)
        assert (row.p_adjusted < 0.05) == (row.effect.low > 0 or row.effect.high < 0)
        assert row.p_adjusted == pytest.approx(min(1.0, row.p_value * num_rows * num_looks))
        if 0.001 < row.p_adjusted < 1:
            edge = {**SETTINGS, "num_rows": num_rows, "alpha": row.p_adjusted * 1.2}
            assert compare_arms(*arms, **edge, num_looks=num_looks).effect.low > 0
            edge["alpha"] = row.p_adjusted / 1.2
            assert compare_arms(*arms, **edge, num_looks=num_looks).effect.low < 0


def test_interaction_of_a_two_by_two_design_equals_the_hand_computed_one():
    """(ab - b) - (a - 1), not half of it."""
    contrast = make_factorial_design({"x": 0, "y": 0}, {"x": 1, "y": 1}, load_space("transfer_learning")).contrasts[-1]
    arms = {name: draw_arms(i, num_seeds=3, shift=0.2 * i)[0] for i, name in enumerate(contrast.arms)}
    f1 = {
        name: np.mean([f1_score(arm.labels, p, average="macro") for p in arm.predicted]) for name, arm in arms.items()
    }
    by_hand = (f1["run-ab"] - f1["run-b"]) - (f1["run-a"] - f1["run-1"])
    treatment, control = (
        average_arms(name, [arms[arm] for arm in members], contrast.scale)
        for name, members in (("x", contrast.treatment_arms), ("y", contrast.control_arms))
    )
    row = compare_arms(treatment, control, **SETTINGS)
    assert row.effect.estimate == pytest.approx(by_hand, abs=1e-14)
    assert compute_crossed_bootstrap(treatment, control, confidence=0.95, num_draws=20).estimate == row.effect.estimate
    half = [dataclasses.replace(side, scale=1.0) for side in (treatment, control)]
    plain = compare_arms(*half, **SETTINGS)
    assert row.effect.high - row.effect.low == pytest.approx(2 * (plain.effect.high - plain.effect.low))
    classes = [compute_class_differences(*sides, list("abcd")) for sides in ((treatment, control), half)]  # type: ignore[call-arg]
    assert [c.effect.estimate for c in classes[0]] == pytest.approx([2 * c.effect.estimate for c in classes[1]])


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.1])
def test_the_p_value_of_a_loss_of_the_margin_is_that_of_the_lower_bound(shift):
    arms = draw_arms(5, shift=shift)
    row = compare_arms(*arms, **{**SETTINGS, "margin": 0.05})
    assert 1e-6 < row.p_noninferior < 1
    # The interval at a confidence of 1 - 2 p ends at minus the margin.
    if row.p_noninferior < 0.5:
        edge = compare_arms(*arms, **{**SETTINGS, "margin": 0.05, "alpha": 2 * row.p_noninferior})
        assert edge.effect.low == pytest.approx(-0.05, abs=1e-6)
    assert compare_arms(*arms, **{**SETTINGS, "margin": 0.1}).p_noninferior < row.p_noninferior
