"""Planned looks, anytime-valid looks, and differences class by class."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy import stats

from analysis.arms.arm_evidence import ArmEvidence
from analysis.comparison.exploratory import compute_class_differences
from analysis.comparison.other_intervals import EFFECT_SCALE, compute_anytime_interval, compute_sequence_half_width
from analysis.comparison.paired_difference import compute_difference
from analysis.comparison.render import describe_verdict
from analysis.comparison.rows import (
    DIVERGENCE_SHARE,
    NOT_OVER_ALL_RUNS,
    TOO_FEW_FINISHED,
    RowRule,
    complete_row,
    compute_rows,
)
from analysis.comparison.tables import build_csv, build_markdown, build_table_rows, format_row
from analysis.comparison.values import Verdict
from analysis.statistics.arm_predictions import measure_discordance
from analysis.statistics.crossed_interval import compute_t_quantile
from analysis.statistics.variances import guard_image_variance
from benchmarks.validation.statistics_simulation import NUM_CLASSES, World, first_seeds
from search_spaces.config import TrialConfig
from search_spaces.designs import Contrast, contrast_with_first
from tests.built_values import predictions_of, record_of
from trainables.records.record import TrialRecord, TrialState
from trainables.training.predictions import Predictions

NAMES = tuple(f"class {i}" for i in range(NUM_CLASSES))
RULE = RowRule(seeds=tuple(range(8)), looks=(3, 5, 8), intervals="planned", margin=0.005, alpha=0.05, num_rows=1)

(CONTRAST,) = contrast_with_first(["control", "treatment"])
(MIRROR,) = contrast_with_first(["treatment", "control"])


def make_evidence(
    shift: float,
    num_seeds: int = 8,
    failed: tuple[int, ...] = (),
    diverged: tuple[int, ...] = (),
    *,
    num_images: int = 1000,
    random_seed: int = 3,
) -> dict[str, ArmEvidence]:
    """Return two simulated arms whose treatment is shifted; it diverged with some seeds, and predicts class 0 there."""
    world = World(seed_sd=0.02, num_seeds=8, shifts=(0.0, shift), num_images=num_images)
    arms = world.draw(np.random.default_rng(random_seed))
    evidence = {}
    for name, arm in zip(("control", "treatment"), arms, strict=True):
        seeds = [s for s in range(num_seeds) if s not in failed]
        evidence[name] = ArmEvidence(
            arm=name,
            source=make_record(name, 0),
            runs=[make_record(name, s, diverged=name == "treatment" and s in diverged) for s in seeds],
            predictions=[
                predictions_of(
                    arm.labels, np.eye(NUM_CLASSES)[(name != "treatment" or s not in diverged) * arm.predicted[s]]
                )
                for s in seeds
            ],
            failed_seeds=frozenset(failed),
        )
    return evidence


def make_record(arm: str, seed: int, *, diverged: bool = False) -> TrialRecord:
    config = TrialConfig(arm=arm, seed=seed, hyperparameters={}, fixed={})
    ended = {"state": TrialState.FAILED, "diverged": True, "last_finite_epoch": seed} if diverged else {}
    return record_of(config, trial_id=f"{seed:05d}", stage="confirmation", device_seconds=2.0, **ended)


def replace_diverged(record: TrialRecord, seeds: set[int]) -> TrialRecord:
    return make_record(record.config.arm, record.config.seed, diverged=record.config.seed in seeds)


def spoil(predictions: Predictions) -> Predictions:
    """Return predictions of class 0 for every image."""
    return replace(predictions, logits=np.eye(NUM_CLASSES, dtype=np.float32)[0 * predictions.labels])


def judge(evidence: dict[str, ArmEvidence], rule: RowRule = RULE):  # type: ignore[no-untyped-def]
    return compute_rows([(CONTRAST, evidence)], rule)[0]


def test_row_is_that_of_the_first_look_that_decides_it() -> None:
    row = judge(make_evidence(0.5))
    assert (row.verdict, row.look, row.num_looks, row.num_seeds) == (Verdict.BETTER, 1, 3, 3)
    assert row.confidence == pytest.approx(1 - 0.05 / 3)


def test_undecided_row_is_that_of_the_last_complete_look() -> None:
    for num_seeds, look in ((3, 1), (4, 1), (5, 2), (8, 3)):
        row = judge(make_evidence(0.0, num_seeds))
        assert (row.verdict, row.look) == (Verdict.UNDECIDED, look)
    assert judge(make_evidence(0.0, 2)) is None


def test_seed_that_failed_in_one_arm_is_left_out_of_both() -> None:
    evidence = make_evidence(0.0, 5)
    evidence["control"] = make_evidence(0.0, 5, failed=(1,))["control"]
    row = judge(evidence)
    assert (row.look, row.num_seeds) == (2, 4)


def test_an_arm_that_diverges_is_not_better_by_its_good_runs_alone() -> None:
    """Dropping seeds 2 and 6 would judge the treatment by the six runs that did not diverge."""
    rule = replace(RULE, looks=(8,))
    plain, evidence = judge(make_evidence(0.5), rule), make_evidence(0.5, diverged=(2, 6))
    row = judge(evidence, rule)
    without = judge(make_evidence(0.5, failed=(2, 6)), replace(rule, alpha=(1 - DIVERGENCE_SHARE) * rule.alpha))
    assert without.verdict is Verdict.BETTER
    assert (row.effect, row.num_seeds, row.models_effect) == (without.effect, 6, without.models_effect)
    assert row.all_runs_effect.low < 0 < without.effect.low
    assert (row.verdict, row.materiality, row.settles) == (Verdict.UNDECIDED, "", NOT_OVER_ALL_RUNS)
    assert row.p_adjusted >= 0.05 > without.p_adjusted
    # A loss of the margin is not excluded by the good runs alone, but by them against a control that diverges more often.
    assert row.p_noninferior > 0.05 > without.p_noninferior
    assert compute_rows([(MIRROR, evidence)], rule)[0].p_noninferior > 0.5
    control, treatment = sorted(row.divergence, key=lambda arm: arm.arm)
    assert (treatment.num_diverged, treatment.num_runs, treatment.epochs) == (2, 8, (2, 6))
    # Clopper and Pearson: beta quantiles.
    expected = (stats.beta.ppf(0.025, 2, 7), stats.beta.ppf(0.975, 3, 6))
    assert (treatment.rate.low, treatment.rate.high) == pytest.approx(expected)
    assert (control.num_diverged, control.rate.low) == (0, 0.0)
    assert (plain.divergence, plain.all_runs_effect) == ((), None)
    completed = complete_row(row, CONTRAST, evidence, rule, NAMES, plan_changed=False)
    assert completed.bootstrap.estimate == row.effect.estimate
    mirror = compute_rows([(MIRROR, evidence)], rule)[0]
    assert (mirror.verdict, mirror.p_adjusted) == (Verdict.UNDECIDED, row.p_adjusted)


def test_the_arm_that_diverged_less_keeps_its_verdict_and_its_p_value() -> None:
    rule = replace(RULE, looks=(8,))
    row, without = (judge(make_evidence(-0.5, **given), rule) for given in ({"diverged": (2,)}, {"failed": (2,)}))
    assert (row.verdict, row.is_decided_by_divergence) == (Verdict.WORSE, False)
    assert row.p_adjusted == pytest.approx(without.p_adjusted / (1 - DIVERGENCE_SHARE))


def test_equivalent_arms_are_not_equivalent_where_one_diverges() -> None:
    rule = replace(RULE, looks=(8,), margin=0.1)
    assert judge(make_evidence(0.0), rule).verdict is Verdict.EQUIVALENT
    assert judge(make_evidence(0.0, diverged=(1,)), rule).verdict is Verdict.UNDECIDED


def test_a_row_without_two_finished_pairs_is_undecided() -> None:
    row = judge(make_evidence(-0.5, 3, diverged=(0, 1)))
    assert (row.verdict, row.settles, row.num_seeds) == (Verdict.UNDECIDED, TOO_FEW_FINISHED, 3)
    assert row.effect == row.all_runs_effect
    assert (row.p_value, row.p_adjusted) == (None, 1.0)


def test_an_arm_that_diverges_far_more_often_is_worse() -> None:
    """10 of 10 runs that diverged were UNDECIDED, "only more seeds can settle it"."""
    rule = replace(RULE, looks=(8,))
    for diverged, verdict in ((8, "WORSE"), (7, "WORSE"), (4, "UNDECIDED"), (2, "UNDECIDED")):
        evidence = make_evidence(0.0, diverged=tuple(range(diverged)))
        row = judge(evidence, rule)
        assert (row.verdict, row.is_decided_by_divergence) == (Verdict(verdict), verdict == "WORSE")
        assert (row.p_adjusted < 0.05) == (verdict == "WORSE")
        assert ("the verdict comes from the runs that diverged" in format_row(row)) == (verdict == "WORSE")
        assert ("over all runs" in describe_verdict(build_table_rows([row])[0])) == (verdict == "WORSE")
        mirror = compute_rows([(MIRROR, evidence)], rule)[0]
        assert mirror.verdict == {"WORSE": "BETTER"}.get(verdict, verdict)
        assert (mirror.p_adjusted, mirror.settles) == (row.p_adjusted, row.settles)
    evidence = make_evidence(0.5, diverged=tuple(range(6)))
    row = judge(evidence, rule)
    assert (row.verdict, row.effect.estimate > 0, row.is_decided_by_divergence) == (Verdict.WORSE, True, True)
    assert row.confidence == pytest.approx(0.96)


def test_the_numbers_that_diverge_count_in_every_look_row_and_kind_of_interval() -> None:
    evidence = make_evidence(0.0, diverged=tuple(range(8)))
    row = judge(evidence, replace(RULE, looks=(3, 5, 8), num_rows=2))
    assert (row.verdict, row.look) == (Verdict.WORSE, 3)
    assert row.confidence == pytest.approx(1 - 0.8 * 0.05 / 6)
    assert judge(evidence, replace(RULE, looks=(3, 5), num_rows=2)).verdict is Verdict.UNDECIDED
    row = judge(evidence, replace(RULE, intervals="anytime"))
    assert (row.verdict, row.p_adjusted) == (Verdict.WORSE, None)
    copies = {f"{name} {i}": replace(evidence[name], arm=f"{name} {i}") for name in evidence for i in range(2)}
    sides = {"treatment_arms": ("treatment 0", "treatment 1"), "control_arms": ("control 0", "control 1")}
    both = compute_rows([(Contrast(treatment="high", control="low", **sides), copies)], replace(RULE, looks=(3,)))[0]
    # 6 of 6 against none of 6.
    assert (both.verdict, both.num_seeds) == (Verdict.WORSE, 3)


def test_what_settles_a_row_with_runs_that_diverged_is_so() -> None:
    rule = replace(RULE, looks=(8,))
    row = judge(make_evidence(0.0, diverged=(0, 1, 2, 3, 4)), rule)
    found = re.fullmatch(
        r"about (\d+) seeds would settle it by the runs that diverge \(now 8\), if their shares stay", row.settles
    )
    assert (row.verdict, found is not None) == (Verdict.UNDECIDED, True), row.settles

    def p_value(seeds: int) -> float:
        diverged = round(5 * seeds / 8)
        return stats.fisher_exact([[diverged, seeds - diverged], [0, seeds]])[1]

    assert p_value(int(found[1])) < DIVERGENCE_SHARE * 0.05 <= p_value(int(found[1]) - 1)
    both = make_evidence(0.0, diverged=(3,))
    both["control"] = replace(both["control"], runs=[replace_diverged(r, {4}) for r in both["control"].runs])
    assert judge(both, rule).settles.endswith("; only seeds with which every run finishes count")


def test_arms_that_diverge_equally_often_seldom_differ() -> None:
    """60 rows each of 5 and 8 seeds that diverge with a probability of .5: 3 of 120 are expected at most."""
    generator, wrong = np.random.default_rng(0), 0
    for number in range(120):
        evidence = make_evidence(0.0, num_images=100, random_seed=number)
        for name, arm in evidence.items():
            lost = set(np.flatnonzero(generator.random(8) < 0.5).tolist())
            evidence[name] = replace(
                arm,
                runs=[replace_diverged(r, lost) for r in arm.runs],
                predictions=[spoil(p) if s in lost else p for s, p in enumerate(arm.predictions)],
            )
        row = judge(evidence, replace(RULE, looks=(5 if number % 2 else 8,)))
        wrong += row.verdict in (Verdict.BETTER, Verdict.WORSE)
    assert wrong <= 5


def test_anytime_looks_have_the_whole_alpha_and_wider_intervals() -> None:
    evidence = make_evidence(0.0)
    row = judge(evidence, replace(RULE, intervals="anytime"))
    assert row.confidence == pytest.approx(0.95)
    assert (row.intervals, row.num_looks, row.look) == ("anytime", 3, 3)
    plain = compute_difference(evidence["treatment"].stacked(), evidence["control"].stacked(), 0.95).interval
    assert row.effect.low < plain.low < plain.high < row.effect.high
    assert row.settles
    fixed_sample = ("p_value", "p_adjusted", "standard_error", "degrees_of_freedom", "minimum_detectable_effect")
    assert [getattr(row, name) for name in fixed_sample] == [None] * 5


def test_anytime_row_with_too_few_seeds_is_undecided_and_loads_again() -> None:
    """Failed seeds can leave fewer than the interval needs; the table could not be printed, nor the row read again."""
    evidence = make_evidence(0.5, 4, failed=(0, 1))
    rule = replace(RULE, looks=(4,), intervals="anytime")
    row = judge(evidence, rule)
    assert (row.verdict, row.num_seeds) == (Verdict.UNDECIDED, 2)
    assert row.settles == "an interval that holds at every look needs at least 4 seeds (now 2)"
    completed = complete_row(row, CONTRAST, evidence, rule, NAMES, plan_changed=False)
    assert completed.bootstrap is None
    adapter = TypeAdapter(type(row))
    assert adapter.validate_json(adapter.dump_json(completed)) == completed
    assert format_row(completed).startswith("treatment vs control | ")
    assert "n/a" in build_markdown([completed])
    assert build_csv([completed])


def test_row_is_completed_by_a_cross_check_and_classes_on_its_own_seeds() -> None:
    evidence = make_evidence(0.5)
    row = complete_row(judge(evidence), CONTRAST, evidence, RULE, NAMES, plan_changed=False)
    assert row.bootstrap is not None
    assert row.bootstrap.estimate == row.effect.estimate
    assert [c.class_name for c in row.class_differences] == list(NAMES)


@pytest.mark.parametrize("num_values", [4, 6, 10, 50])
def test_the_edge_of_the_sequence_is_where_the_martingale_reaches_its_bound(num_values: int) -> None:
    values = np.random.default_rng(num_values).normal(0.3, 2.0, num_values)
    deviation = float(values.std(ddof=1))
    half = compute_sequence_half_width(num_values, deviation, 0.05)

    def log_density(mean: float) -> float:
        """Log of the right Haar mixture over the scale, numerically."""
        grid = np.exp(np.linspace(-8, 8, 4001))
        terms = stats.norm.logpdf(values[:, None], mean, grid).sum(axis=0)
        return float(np.log(np.trapezoid(np.exp(terms - terms.max()) / grid, grid)) + terms.max())

    edge = float(values.mean()) - half
    effects = np.linspace(-8 * EFFECT_SCALE, 8 * EFFECT_SCALE, 801)
    grid = np.exp(np.linspace(-6, 6, 1201))
    terms = stats.norm.logpdf(values[:, None, None], edge + effects[:, None] * grid, grid).sum(axis=0)
    inner = np.trapezoid(np.exp(terms - terms.max()) / grid, grid, axis=1)
    mixture = np.log(np.trapezoid(inner * stats.norm.pdf(effects, 0, EFFECT_SCALE), effects)) + terms.max()
    assert math.exp(mixture - log_density(edge)) == pytest.approx(1 / 0.05, rel=0.02)


def test_sequence_is_infinite_with_too_few_values_and_narrows_with_more() -> None:
    widths = [compute_sequence_half_width(n, 1.0, 0.025) for n in (2, 4, 8, 16, 64)]
    assert math.isinf(widths[0])
    assert widths == sorted(widths, reverse=True)
    one, other = World(seed_sd=0.02, num_seeds=2, shifts=(0.0, 0.0), num_images=200).draw(np.random.default_rng(0))
    interval = compute_anytime_interval(one, other, 0.95)
    assert (interval.low, interval.high) == (-1.0, 1.0)


def test_only_the_class_that_was_degraded_is_flagged() -> None:
    control, _ = World(seed_sd=0.0, num_seeds=5, shifts=(0.0, 0.0), num_images=2000).draw(np.random.default_rng(1))
    predicted = control.predicted.copy()
    right = (control.predicted == control.labels).all(axis=0)
    spoilt = np.flatnonzero((control.labels == 3) & right)[:60]
    predicted[:, spoilt] = 4
    treatment = replace(control, predicted=predicted)
    found = compute_class_differences(treatment, control, NAMES)
    assert {c.class_name for c in found if c.is_flagged} == {"class 3", "class 4"}
    adjusted = stats.false_discovery_control([c.p_value for c in found], method="bh")
    assert [c.p_adjusted for c in found] == pytest.approx(list(adjusted))
    assert found[0].effect.estimate == 0
    assert first_seeds(control, 2).predicted.shape[0] == 2


def test_side_of_several_arms_is_their_average_in_every_part_of_the_row() -> None:
    evidence = make_evidence(0.5)
    copies = {f"{name} {i}": evidence[name] for name in evidence for i in range(2)}
    same = Contrast(
        treatment="high",
        control="low",
        treatment_arms=("treatment 0", "treatment 1"),
        control_arms=("control 0", "control 1"),
    )
    row, plain = compute_rows([(same, copies)], RULE)[0], judge(evidence)
    assert row is not None
    assert (row.treatment, row.control, row.look) == ("high", "low", plain.look)
    assert row.effect == plain.effect
    assert row.cost_ratio == plain.cost_ratio
    assert (
        complete_row(row, same, copies, RULE, NAMES, plan_changed=False).bootstrap
        == complete_row(plain, CONTRAST, evidence, RULE, NAMES, plan_changed=False).bootstrap
    )
    mixed = replace(same, control_arms=("control 0", "treatment 1"))
    half = compute_rows([(mixed, copies)], replace(RULE, looks=(8,)))[0]
    whole = compute_rows([(same, copies)], replace(RULE, looks=(8,)))[0]
    assert half is not None
    assert whole is not None
    assert half.effect.estimate == pytest.approx(whole.effect.estimate / 2)
    completed = complete_row(half, mixed, copies, replace(RULE, looks=(8,)), NAMES, plan_changed=False)
    assert completed.bootstrap is not None
    assert completed.bootstrap.estimate == pytest.approx(half.effect.estimate)
    assert sum(c.effect.estimate for c in completed.class_differences) / len(NAMES) == pytest.approx(
        half.effect.estimate
    )


def test_an_anytime_row_names_the_seeds_at_which_its_own_interval_decides() -> None:
    evidence = make_evidence(0.06)
    rule = replace(RULE, intervals="anytime")
    row, plain = judge(evidence, rule), judge(evidence, RULE)
    assert row.verdict is Verdict.UNDECIDED
    assert row.image_variance is not None
    assert row.seed_image_variance is not None
    found = re.fullmatch(r"about (\d+) seeds would settle it \(now \d+\), if the difference stays", row.settles)
    assert found, row.settles
    needed, seeds = int(found[1]), row.num_seeds
    deviation = float(np.std(row.seed_differences, ddof=1))
    guard = measure_discordance(evidence["treatment"].stacked(), evidence["control"].stacked()).guard

    def half_width(number: int) -> float:
        images = row.image_variance - row.seed_image_variance * (1 - seeds / number)
        quantile = float(compute_t_quantile(1 - (1 - row.confidence) / 2, row.num_images - 1))
        images = float(guard_image_variance(images, guard, quantile))
        return compute_sequence_half_width(number, deviation, (1 - row.confidence) / 2) + quantile * images**0.5

    effect = abs(row.effect.estimate)
    wanted = max(effect, row.margin - effect)
    assert half_width(needed) < wanted <= half_width(needed - 1)
    assert row.settles != plain.settles
