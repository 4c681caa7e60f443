"""A search is compared with its trainings as bare loops."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.performance import study_ratios


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What runs, in order: searches of 1030 and 1110 s, and bare loops of 1000 s."""
    ran: list[str] = []
    seconds = iter((1030.0, 1110.0))
    epochs = [SimpleNamespace(train_seconds=4.0, part_seconds=(("report", 3.0),))]
    records = [SimpleNamespace(config="a", epochs=epochs, device_seconds=0.0)]

    def search(_: int) -> tuple[float, list[Any]]:
        ran.append("search")
        return next(seconds), records

    def train(_: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> list[list[float]]:
        ran.append("bare loops of " + ", ".join(call[0] for call in calls))
        return [[2.0, 3.0, 7.0]]

    def measure(function: Callable[[], object]) -> float:
        function()
        return 1000.0

    monkeypatch.setattr(study_ratios, "_run_search", search)
    monkeypatch.setattr(study_ratios, "run_parallel", train)
    monkeypatch.setattr(study_ratios, "measure_seconds", measure)
    return ran


def test_a_short_search_runs_once(order: list[str]) -> None:
    (ratio,) = study_ratios.measure_study()
    assert order == ["search", "bare loops of a"]
    assert ratio.values == (1.03,)
    assert "bare loops 1000 s; once" in ratio.note


def test_the_fixed_cost_is_that_of_the_mean_search(order: list[str]) -> None:
    (ratio,) = study_ratios.measure_fixed_cost()
    assert order == ["search", "bare loops of a", "search"]
    assert ratio.values == (70.0,)
    assert "study 1030 and 1110 s, bare loops 1000 s; before and after the bare loops" in ratio.note
    assert "an epoch took 4.00 s in studies, 3.00 s in bare loops" in ratio.note
