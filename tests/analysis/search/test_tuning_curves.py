"""Tuning curves: expected best score over device time, and changes of the lead."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from analysis.findings.search_findings import TuningCurve, TuningPoint
from analysis.report.search_figures import plot_tuning_curves
from analysis.report.sentences import describe_tuning
from analysis.search.tuning_curves import compute_tuning_curves, find_lead_changes
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.analysis.findings_factory import make_findings
from tests.study.simulated import FIXED, drive, make_spec
from trainables.records.record import TrialRecord, TrialState


@pytest.fixture(scope="module")
def records() -> tuple[TrialRecord, ...]:
    book = MemoryBook()
    drive(SearchDirector(book, make_spec(), FIXED))
    return book.of_stage("search")


def test_curve_rises_ends_below_the_best_and_covers_the_arm_s_device_time(records: tuple[TrialRecord, ...]) -> None:
    curves = compute_tuning_curves(records, 6)
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
    assert compute_tuning_curves(records, 6) == curves


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
    (curve,) = compute_tuning_curves(own, 6)
    by_time = {p.device_seconds: p.expected for p in curve.points}
    for n in (1, 2, 3, 4):
        exact = np.mean([max(draw) for draw in itertools.product(scores, repeat=n)])
        assert by_time[10.0 * n] == pytest.approx(exact, abs=0.008)
    assert curve.observed == ((10.0, 0.1), (20.0, 0.2), (30.0, 0.3), (40.0, 0.4))


def test_arm_with_too_few_full_trials_has_no_curve(records: tuple[TrialRecord, ...]) -> None:
    few = [r for r in records if r.config.arm == "resnet18" or r.state is not TrialState.COMPLETE]
    assert [c.arm for c in compute_tuning_curves(few, 6)] == ["resnet18"]


def make_line(arm: str, start: float, end: float) -> TuningCurve:
    points = tuple(
        TuningPoint(device_seconds=10.0 * i, expected=value, low=value, high=value)
        for i, value in enumerate(np.linspace(start, end, 11))
    )
    return TuningCurve(arm=arm, points=points, observed=((50.0, start),))


def test_change_of_the_lead_is_found_and_described() -> None:
    curves = (make_line("quick", 0.5, 0.6), make_line("slow", 0.3, 0.7))
    (start, first), (change, second) = find_lead_changes(curves)
    assert (start, first, second) == (0.0, "quick", "slow")
    assert change == pytest.approx(200 / 3, abs=100 / 39 + 0.01)
    findings = replace(make_findings(), tuning_curves=curves)
    assert "equal device time: quick, then slow from" in describe_tuning(findings)
    assert describe_tuning(replace(findings, tuning_curves=curves[:1])) == ""
    same = replace(findings, tuning_curves=(curves[0], make_line("low", 0.1, 0.2)))
    assert describe_tuning(same).endswith("quick throughout.")


def test_figure_has_a_band_and_steps_per_arm() -> None:
    figure = plot_tuning_curves(make_findings().tuning_curves)
    (axes,) = figure.axes
    assert len(axes.collections) == 3
    assert len(axes.lines) == 6
