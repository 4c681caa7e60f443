"""Tuning curves: best score over device time, bands where trials are independent, and changes of the lead."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from analysis.search.render import describe_tuning, plot_tuning_curves
from analysis.search.search_findings import compute_tuning_curves
from analysis.search.values import TuningCurve, find_lead_changes
from study.results.search_results import has_independent_trials
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.analysis.findings_factory import make_findings
from tests.study.simulated import FIXED, drive, make_spec
from trainables.records.record import TrialRecord, TrialState


@pytest.fixture(scope="module")
def records() -> tuple[TrialRecord, ...]:
    book = MemoryBook()
    drive(SearchDirector(book, make_spec(pruning="none"), FIXED))
    return book.of_stage("search")


def compute(records: Sequence[TrialRecord], *, is_independent: bool = True) -> tuple[TuningCurve, ...]:
    return compute_tuning_curves(records, is_independent=is_independent)


def test_curve_rises_ends_below_the_best_and_covers_the_arm_s_device_time(records: tuple[TrialRecord, ...]) -> None:
    curves = compute(records)
    assert [c.arm for c in curves] == ["resnet18", "resnet50"]
    for curve in curves:
        own = [r for r in records if r.config.arm == curve.arm]
        full = [r.last_macro_f1 or 0.0 for r in own if r.state is TrialState.COMPLETE]
        expected = [p.expected for p in curve.points]
        assert all(a <= b + 1e-12 for a, b in itertools.pairwise(expected))
        assert min(full) <= expected[0]
        assert expected[-1] <= max(full)
        assert all(p.low <= p.expected + 1e-12 and p.low <= p.high for p in curve.points)
        assert curve.points[-1].device_seconds == pytest.approx(sum(r.device_seconds for r in own))
        assert curve.observed[-1] == (pytest.approx(curve.points[-1].device_seconds), max(full))
    assert compute(records) == curves


def test_trials_that_depend_on_each_other_have_the_observed_curve_alone(records: tuple[TrialRecord, ...]) -> None:
    adaptive, independent = (compute(records, is_independent=value) for value in (False, True))
    assert all(curve.points == () for curve in adaptive)
    assert [curve.observed for curve in adaptive] == [curve.observed for curve in independent]


@pytest.mark.parametrize(
    ("search", "has_bands"),
    [
        ({"sampler": "random", "pruning": "none"}, True),
        ({"sampler": "random"}, False),
        ({"pruning": "none"}, False),
        ({}, False),
    ],
)
def test_only_random_search_without_early_stopping_has_bands(search: dict[str, object], has_bands: bool) -> None:
    assert has_independent_trials(make_spec(**search)) == has_bands


def test_equal_full_trials_give_the_expected_maximum_of_draws(records: tuple[TrialRecord, ...]) -> None:
    """With trials of one cost, the curve after n of them is the expected maximum of n draws."""
    template = next(r for r in records if r.state is TrialState.COMPLETE)
    scores = [0.1, 0.2, 0.3, 0.4]
    own = []
    for number, score in enumerate(scores):
        last = template.epochs[-1].model_copy(update={"macro_f1": score})
        own.append(
            template.model_copy(
                update={
                    "trial_id": f"{number:05d}",
                    "epochs": (*template.epochs[:-1], last),
                    "device_seconds": 10.0,
                    "ended_order": number,
                }
            )
        )
    (curve,) = compute(own)
    by_time = {p.device_seconds: p.expected for p in curve.points}
    for n in (1, 2, 3, 4):
        exact = np.mean([max(draw) for draw in itertools.product(scores, repeat=n)])
        assert by_time[10.0 * n] == pytest.approx(exact, abs=0.008)
    assert curve.observed == ((10.0, 0.1), (20.0, 0.2), (30.0, 0.3), (40.0, 0.4))


def test_arm_with_too_few_full_trials_has_no_curve(records: tuple[TrialRecord, ...]) -> None:
    few = [r for r in records if r.config.arm == "resnet18" or r.state is not TrialState.COMPLETE]
    assert [c.arm for c in compute(few)] == ["resnet18"]


def make_steps(arm: str, *best: float) -> TuningCurve:
    """Return an observed curve with one trial every 10 device-seconds."""
    return TuningCurve(arm=arm, points=(), observed=tuple((10.0 * i, b) for i, b in enumerate(best, start=1)))


def test_change_of_the_lead_is_found_in_the_observed_curves_and_described() -> None:
    quick, slow = make_steps("quick", 0.5, 0.5, 0.6, 0.6), make_steps("slow", 0.3, 0.5, 0.6, 0.7, 0.8)
    assert find_lead_changes([slow, quick]) == ((10.0, "quick"), (40.0, "slow"))
    assert "at equal device time: quick, then slow from" in describe_tuning((quick, slow))
    assert describe_tuning((quick,)) == ""
    same = (quick, make_steps("low", 0.1, 0.2))
    assert "quick throughout. This is one search per arm" in describe_tuning(same)
    late = TuningCurve(arm="late", points=(), observed=((90.0, 0.9),))
    assert find_lead_changes([quick, late]) == ()


def test_figure_has_steps_per_arm_and_a_band_where_there_is_one() -> None:
    curves = make_findings().tuning_curves
    (axes,) = plot_tuning_curves(curves).axes
    assert (len(axes.collections), len(axes.lines)) == (3, 6)
    assert "resampled" in axes.get_title()
    (axes,) = plot_tuning_curves([replace(curve, points=()) for curve in curves]).axes
    assert (len(axes.collections), len(axes.lines)) == (0, 3)
    assert "resampled" not in axes.get_title()
