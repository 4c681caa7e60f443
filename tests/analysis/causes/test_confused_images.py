"""Matched references: near in the expected margin, none used twice, and contrasts are adjusted for the margin."""

import numpy as np
import pytest

from analysis.causes.confused_images import CALIPER, MatchedMargins, expect_margins, match_references
from analysis.statistics.families import Scale, compute_two_intervals


def test_matches_lie_within_the_caliper_and_none_is_used_twice() -> None:
    rng = np.random.default_rng(0)
    confused, candidates = rng.normal(-1, 1, 30), rng.normal(-2, 1, 80)
    found = match_references(confused, candidates, deviation=1.0, most=80)
    assert len(set(found.references.tolist())) == len(found.references) > len(found.confused)
    n = len(found.confused)
    assert found.weights[:n] == pytest.approx(np.full(n, 1 / n))
    assert found.weights[n:].sum() == pytest.approx(-1)
    difference = found.weights @ np.concatenate([confused[found.confused], candidates[found.references]])
    assert abs(difference) <= CALIPER
    far = match_references(confused, candidates - 20, deviation=1.0, most=80)
    assert len(far.confused) == len(far.references) == 0
    assert len(match_references(confused, np.empty(0), deviation=0.0, most=80).confused) == 0


def test_no_more_references_than_wanted_beyond_one_for_each() -> None:
    margins = np.linspace(-1, 0, 50)
    assert len(match_references(margins, np.repeat(margins, 4), deviation=1.0, most=40).references) == 50
    assert len(match_references(margins, np.repeat(margins, 4), deviation=1.0, most=100).references) == 100
    assert len(match_references(margins, np.repeat(margins, 4), deviation=1.0, most=400).references) == 150


def test_expected_margins_regress_to_the_mean_of_their_group() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(-3, 1, 4000)
    selecting, measured = true + rng.normal(0, 1, 4000), true + rng.normal(0, 1, 4000)
    expected = expect_margins(selecting, measured)
    assert expected == pytest.approx(-3 + 0.5 * (selecting + 3), abs=0.2)
    assert expect_margins(np.array([-1.0]), np.array([-2.0])).tolist() == [-2.0]


def test_margins_that_differ_leave_no_effect_where_all_effects_follow_from_the_margin() -> None:
    """Noise on the measuring seeds is in margin and effect; without an instrument the slope would be wrong."""
    rng = np.random.default_rng(2)
    covered, differences = [], []
    for _ in range(200):
        true = np.concatenate([rng.normal(-1, 1, 60), rng.normal(-1.5, 1, 60)])
        instrument = true + rng.normal(0, 1, 120)
        noise = rng.normal(0, 1, (3, 120))
        matched = MatchedMargins(margins=true + noise, instrument=instrument, weights=np.repeat([1 / 60, -1 / 60], 60))
        differences.append(matched.difference)
        effects = -0.3 * true - noise + rng.normal(0, 0.3, (3, 120))
        cell = matched.contrast(effects)
        found = compute_two_intervals(cell, scale=Scale.UNBOUNDED, confidence=0.95).models
        covered.append(found.low < 0.0 < found.high)
    assert np.mean(covered) > 0.9
    assert np.mean(differences) == pytest.approx(0.5, abs=0.05)
