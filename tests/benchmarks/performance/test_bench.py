"""The page of ratios: a number measured again replaces its rows alone; where Ray is missing, the rest is measured."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from benchmarks.performance import bench, training_ratios
from benchmarks.ratios import Ratio
from search_spaces.settings import PRESET_KEYS

ROOT = Path(__file__).parents[3]


def make_ratio(number: str, value: float) -> Ratio:
    return Ratio(number, f"this / that of {number}", ">= 2", (value,))


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The values that the benches measure, for the tests to change; files go to a folder of the test."""
    values = dict.fromkeys(("P1", "P1-long", "P2"), 3.0)
    measures = {n: SimpleNamespace(measure=lambda _, n=n: [make_ratio(n, values[n])], package="") for n in values}
    monkeypatch.setattr(bench, "BENCHES", measures)
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
def test_all_are_measured_except_the_one_that_is_measured_by_name_only() -> None:
    status, rows = run()
    assert status == 0
    assert " 3 " in rows["P1"]
    assert [n for n, row in rows.items() if "not measured here" in row] == ["P1-long"]
    _, rows = run("P1-long")
    assert " met " in rows["P1-long"]


def test_a_number_measured_again_replaces_its_row_alone_and_a_missed_goal_is_shown(measured: dict[str, float]) -> None:
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


@pytest.mark.usefixtures("measured")
def test_a_number_that_this_machine_cannot_measure_is_refused_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(bench.BENCHES, "P1-long", bench.Bench("paired_study", "measure_long_study"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    with pytest.raises(typer.Exit) as ended:
        bench.main(["P1-long"], "cpu")
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err.splitlines() == [
        "P1-long keeps each side on a core of its own, but this process may use one; measure P1 here"
    ]


def test_additions_to_the_default_augmentation_have_rows_without_a_verdict() -> None:
    turns = [{"": 2.0 + i, "hue": 3.0 + i, "step": 100.0} for i in range(3)]
    default, hue = training_ratios._tabulate_augmentation(turns, "resnet18 at 32 px")
    assert (default.verdict, default.median) == ("met", 0.03)
    assert hue.values == pytest.approx((0.01,) * 3)
    assert hue.row()[0::5] == ("P3", "—")


def test_every_augmentation_is_in_a_row_of_its_own_or_in_the_default_set() -> None:
    default = {"flip_probability", "rotation_degrees", "brightness_fraction", "cutmix_probability"}
    of_others = {"crop_max_ratio", "crop_padding_mode", "mixup_alpha"}
    additions = {key for changes in training_ratios.ADDITIONS.values() for key in changes}
    assert additions - {"augmentation"} | {"crop_padding"} == PRESET_KEYS - default - of_others
    assert "pad-and-crop" in training_ratios.ADDITIONS


WITHOUT_RAY = """
import pkgutil, sys
for name in ("ray", "optuna", "pytorch_grad_cam", "cleanlab", "plotly", "matplotlib", "jinja2"):
    sys.modules[name] = None
from importlib import import_module
from pathlib import Path
import torch
import search_spaces, trainables
from benchmarks.performance import bench
from benchmarks.ratios import Ratio
from search_spaces.settings import PRESET_KEYS
for package in (search_spaces, trainables):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        try:
            import_module(module.name)
        except ModuleNotFoundError as error:
            print(module.name, "needs", error.name.partition(".")[0])
for number in ("P2", "P3", "P4", "P5", "P10", "P12", "P13", "P14", "P15", "P17"):
    entry = bench.BENCHES[number]
    getattr(import_module(f"benchmarks.performance.{entry.module}"), entry.function)
for file in Path("tests").rglob("test_*.py"):
    if "@pytest.mark.gpu" in file.read_text() and file.name != "test_bench.py":
        print("gpu tests:", import_module(".".join(file.with_suffix("").parts)).__name__)
bench.Bench.measure = lambda entry, device: [Ratio(entry.function, "this / that", ">= 1", (2.0,))]
bench.KEPT, bench.RESULTS = Path(sys.argv[1], "results.json"), {"cpu": Path(sys.argv[1], "RESULTS.md")}
bench.main([], "cpu")
"""


def test_trials_gpu_tests_and_gpu_rows_need_neither_ray_nor_optuna(tmp_path: Path) -> None:
    """Of what trains, only the adapter needs Ray, the distributions Optuna, and TensorBoard's figures matplotlib."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert "Traceback" not in run.stderr or "Exit" in run.stderr.splitlines()[-1], run.stderr
    lines = run.stdout.splitlines()
    needed = [line for line in lines if " needs " in line]
    assert needed == ["search_spaces.distributions needs optuna", "trainables.tune_adapter needs ray"]
    assert sum(line.startswith("gpu tests:") for line in lines) >= 3
    left_out = {line.split()[0] for line in lines if "is not installed" in line}
    assert left_out == {"P1", "P6", "P8", "P9", "P11", "P16", "P18", "P19"}
    assert sum(" met" in line for line in lines) == 11
    rows = (tmp_path / "RESULTS.md").read_text().splitlines()
    assert sum(" met " in row for row in rows) == 11
