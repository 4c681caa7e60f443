"""Predictions are recalibrated by what came of earlier ones, and their intervals cover what is measured next."""

import numpy as np
import pytest

from analysis.interventions import intervention
from analysis.interventions.intervention import Recalibration, load_recalibrations
from analysis.interventions.registry import load_interventions
from analysis.statistics.interval import Interval
from benchmarks.validation.validate_loops import fit_recalibration
from tests.docs.markdown import ROOT
from trainables.seeds import numpy_generator

ERROR = 0.03


def draw(generator: np.random.Generator, number: int, slope: float = 0.4) -> tuple[list[Interval], list[float]]:
    """Return predictions with their errors, and measured changes around a part of the true ones."""
    truth = -generator.uniform(0.02, 0.3, number)
    predicted = truth + generator.normal(0, ERROR, number)
    measured = slope * truth + generator.normal(0, 0.02, number)
    shown = [Interval(estimate=x, low=x - 1.96 * ERROR, high=x + 1.96 * ERROR) for x in predicted.tolist()]
    return shown, measured.tolist()


def test_recalibrated_intervals_cover_what_worlds_that_tuned_nothing_measure() -> None:
    generator, covered, raw = numpy_generator(0, "recalibration"), [], []
    for _ in range(200):
        line = fit_recalibration(*draw(generator, 10), "test")
        assert line is not None
        for predicted, measured in zip(*draw(generator, 5), strict=True):
            found = line.apply(predicted)
            covered.append(found.low <= measured <= found.high)
            raw.append(predicted.low <= measured <= predicted.high)
    assert 0.93 <= np.mean(covered) <= 0.99
    assert np.mean(raw) < 0.6


def test_the_line_is_the_ratio_through_the_origin_and_not_a_slope_with_an_intercept() -> None:
    """A slope of .38 with an intercept was called the part of the predicted change that came about, which was .16."""
    x = np.r_[np.full(10, -0.344) + np.linspace(-0.05, 0.05, 10), np.full(10, -0.183) + np.linspace(-0.05, 0.05, 10)]
    y = 0.0717 + 0.38 * x
    line = fit_recalibration([Interval(estimate=v, low=v, high=v) for v in x.tolist()], y.tolist(), "test")
    assert line is not None
    assert line.slope == pytest.approx(float(x @ y / (x @ x)))
    assert line.slope < 0.2
    assert np.polyfit(x, y, 1)[0] == pytest.approx(0.38)
    assert "ratio through the origin of 20 predictions" in line.describe()


def test_two_predictions_and_predictions_of_nothing_make_no_line() -> None:
    none = Interval(estimate=0.0, low=-0.1, high=0.1)
    assert fit_recalibration([none] * 5, [0.1] * 5, "test") is None
    assert fit_recalibration([Interval(estimate=-0.1, low=-0.2, high=0.0)] * 2, [0.1] * 2, "test") is None


def test_a_prediction_keeps_what_was_measured_and_says_what_it_was_recalibrated_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Recalibration(slope=0.5, slope_error=0.05, spread=0.03, number=10, source="a page, 2026-12-01")
    swap, change = load_interventions()["background_swap"], Interval(estimate=-0.2, low=-0.24, high=-0.16)
    monkeypatch.setattr(intervention, "load_recalibrations", lambda: {swap.name: line})
    found = swap.recalibrate(change, "the whole gap")
    assert found.before == change
    assert found.effect is not None
    assert found.effect.estimate == pytest.approx(-0.1)
    assert found.effect.high - found.effect.low > change.high - change.low
    assert "-20.0 pp [-24.0, -16.0], of which 0.50" in found.basis
    assert "a page, 2026-12-01" in found.basis
    monkeypatch.setattr(intervention, "load_recalibrations", dict)
    unknown = swap.recalibrate(change, "the whole gap")
    assert unknown.effect == change
    assert "no such prediction was followed" in unknown.basis


def test_the_constants_are_those_of_the_page() -> None:
    page = (ROOT / "benchmarks" / "LOOPS.md").read_text(encoding="utf-8")
    for name, line in load_recalibrations().items():
        assert f"| {name} | {line.describe()} |" in page, name
