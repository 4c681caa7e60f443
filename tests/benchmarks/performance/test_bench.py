"""The page of ratios: what is measured again replaces its row and leaves the others."""

import json
from pathlib import Path

import pytest
import typer

from benchmarks.performance import bench
from benchmarks.performance.ratios import Ratio


def make_ratio(number: str, value: float) -> Ratio:
    return Ratio(number=number, what=f"this / that of {number}", goal=2.0, is_at_most=False, values=(value,))


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the benches measure, to be changed by the tests; files go to a folder of the test."""
    values = dict.fromkeys(("P1", "P1-long", "P2"), 3.0)
    monkeypatch.setattr(bench, "BENCHES", {n: lambda _, n=n: [make_ratio(n, values[n])] for n in values})
    monkeypatch.setattr(bench, "KEPT", tmp_path / "results.json")
    monkeypatch.setattr(bench, "RESULTS", {"cpu": tmp_path / "RESULTS.md"})
    return values


def run(*only: str) -> tuple[int, dict[str, str]]:
    """Return the exit status and each number's row of the page."""
    with pytest.raises(typer.Exit) as ended:
        bench.main(list(only), "cpu")
    lines = bench.RESULTS["cpu"].read_text().splitlines()
    return ended.value.exit_code, {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| P")}


@pytest.mark.usefixtures("measured")
def test_all_are_measured_but_the_one_that_is_asked_for_by_name() -> None:
    status, rows = run()
    assert status == 0
    assert " 3 " in rows["P1"]
    assert [n for n, row in rows.items() if "not measured here" in row] == ["P1-long", "P12"]
    _, rows = run("P1-long")
    assert " met " in rows["P1-long"]


def test_a_number_measured_again_replaces_its_row_alone_and_a_miss_is_told(measured: dict[str, float]) -> None:
    run()
    measured["P2"] = 1.5
    status, rows = run("P2")
    assert status == 1
    assert " 1.5 " in rows["P2"]
    assert "MISSED" in rows["P2"]
    assert " met " in rows["P1"]
    assert set(json.loads(bench.KEPT.read_text())["cpu"]) == {"P1", "P2"}


@pytest.mark.usefixtures("measured")
def test_an_unknown_number_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        bench.main(["P13"], "cpu")
    assert ended.value.exit_code == 2
    assert "there is no P13; there are P1, P1-long, P2" in capsys.readouterr().err
