"""Variances that rows with one control share, and the rows that are judged by them."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.arms.arm_evidence import ArmEvidence
from analysis.comparison.rows import RowRule, complete_row, compute_rows
from analysis.comparison.values import Verdict
from analysis.statistics.moderated_variances import LENT_SHARE, MIN_ROWS, SQUARED_CORRELATION, share_variances
from benchmarks.validation.intervention_level import ROUND_ALPHA, NoisyRound, run_noisy_round
from search_spaces.designs import contrast_with_first
from tests.analysis.comparison.test_rows import NAMES, make_evidence
from trainables.seeds import numpy_generator

ARMS = ("a", "b", "c", "d", "e")
RULE = RowRule(seeds=tuple(range(8)), looks=(3,), intervals="moderated", margin=0.005, alpha=0.05, num_rows=len(ARMS))
CONTRASTS = contrast_with_first(["control", *ARMS])


def draw(num_rows: int, num_seeds: int = 3) -> list[np.ndarray]:
    scores = numpy_generator(0, "rows").standard_normal((num_rows + 1, num_seeds))
    return list(scores[1:] - scores[0])


def test_few_rows_share_nothing_and_rows_that_never_vary_have_nothing_to_share() -> None:
    assert share_variances(draw(MIN_ROWS - 1)) is None
    assert share_variances([np.zeros(3)] * 5) is None


def test_a_row_has_at_least_its_own_variance_and_its_own_degrees_of_freedom() -> None:
    rows = draw(7)
    found = share_variances(rows)
    assert found is not None
    for own, one in zip(rows, found, strict=True):
        assert one.seed_variance >= np.var(own, ddof=1) / 3
    most = 7 * 2 / (1 + 6 * SQUARED_CORRELATION)
    assert 2 < found[0].degrees_of_freedom <= 2 + LENT_SHARE * (most - 2)
    mirrored = share_variances([-row for row in rows[::-1]])
    assert mirrored is not None
    assert [one.seed_variance for one in mirrored] == pytest.approx([one.seed_variance for one in found[::-1]])
    # Rows with one variance say all that they can: that of the mean variance.
    same = share_variances([np.roll(rows[0], shift) for shift in (0, 1, 2)] * 2)
    assert same is not None
    assert same[0].degrees_of_freedom == pytest.approx(2 + LENT_SHARE * (6 * 2 / (1 + 5 * SQUARED_CORRELATION) - 2))
    assert same[0].seed_variance >= np.var(rows[0], ddof=1) / 3


@pytest.mark.parametrize("noise", [{}, {"control_noise": 3.0}, {"arm_noise": 7.0}])
def test_rounds_without_an_effect_claim_one_at_most_as_often_as_they_may(noise: dict[str, float]) -> None:
    world = NoisyRound(num_arms=7, **noise)
    outcomes = [run_noisy_round(world, number) for number in range(1500)]
    claims = sum(one.shared for one in outcomes) / len(outcomes)
    error = (ROUND_ALPHA / len(outcomes)) ** 0.5
    assert claims <= ROUND_ALPHA + 2 * error
    widths = [np.median([getattr(one, name) for one in outcomes]) for name in ("shared_width", "alone_width")]
    assert widths[0] < 0.75 * widths[1]


def test_a_row_with_far_more_noise_than_the_others_stands_alone() -> None:
    rows = draw(6, num_seeds=5)
    rows[2] = 20 * rows[2]
    found = share_variances(rows)
    assert found is not None
    assert found[2].degrees_of_freedom == 4
    assert found[2].seed_variance == pytest.approx(np.var(rows[2], ddof=1) / 5)
    without = share_variances(rows[:2] + rows[3:])
    assert without is not None
    assert found[0].degrees_of_freedom > 4
    assert found[0].seed_variance == pytest.approx(without[0].seed_variance)


def make_round(num_seeds: int = 3, **changes: ArmEvidence) -> dict[str, ArmEvidence]:
    """Return evidence of a control and five arms, the last of which is worse by half a standard deviation."""
    evidence = {"control": make_evidence(0.0, num_seeds)["control"]}
    for number, name in enumerate(ARMS):
        shift = -0.5 if name == "e" else 0.02 * number
        evidence[name] = replace(make_evidence(shift, num_seeds)["treatment"], arm=name)
    return evidence | changes


def test_moderated_rows_are_narrower_than_rows_that_stand_alone() -> None:
    evidence = make_round()
    rows = compute_rows([(contrast, evidence) for contrast in CONTRASTS], RULE)
    widths = []
    for contrast, row in zip(CONTRASTS, rows, strict=True):
        alone = compute_rows([(contrast, evidence)], RULE)[0]
        assert row is not None
        assert alone is not None
        assert (row.intervals, alone.intervals) == ("moderated", "planned")
        assert row.effect.estimate == alone.effect.estimate
        widths.append((row.effect.high - row.effect.low, alone.effect.high - alone.effect.low))
        assert row.models_effect == alone.models_effect
        assert row.p_adjusted is not None
        assert (row.p_adjusted < 0.05) == (row.verdict in (Verdict.BETTER, Verdict.WORSE))
    shared, own = np.median(widths, axis=0)
    assert shared < 0.9 * own
    assert rows[-1] is not None
    assert rows[-1].verdict is Verdict.WORSE
    completed = complete_row(rows[0], CONTRASTS[0], evidence, RULE, NAMES, plan_changed=False)  # type: ignore[arg-type]
    assert completed.bootstrap is None


def test_rows_are_judged_together_when_all_are_complete_and_what_diverged_stands_alone() -> None:
    late = replace(make_evidence(0.0, 2)["treatment"], arm="b")
    evidence = make_round(b=late)
    assert compute_rows([(contrast, evidence) for contrast in CONTRASTS], RULE) == [None] * len(ARMS)
    broken = replace(make_evidence(0.0, 3, diverged=(1,))["treatment"], arm="b")
    evidence = make_round(b=broken)
    rows = compute_rows([(contrast, evidence) for contrast in CONTRASTS], RULE)
    assert [row.intervals for row in rows if row] == ["moderated", "planned", "moderated", "moderated", "moderated"]


def test_a_later_look_judges_the_rows_that_are_open() -> None:
    rule = replace(RULE, looks=(3, 5))
    evidence = make_round(5)
    rows = compute_rows([(contrast, evidence) for contrast in CONTRASTS], rule)
    looks = {row.treatment: (row.look, row.num_seeds) for row in rows if row is not None}
    assert looks["a"] == (2, 5)
    assert len(looks) == len(ARMS)
