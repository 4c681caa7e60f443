"""Studies written by earlier commits (`make_golden.py`) still open, report, replay and resume."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from study.inputs.preparation import prepare
from study.open_study import load_study
from study.spec.defaults import DEFAULTS, FIRST_VERSION
from tests.study.command_line import run_cli
from trainables.storage.store import Store

STUDIES = sorted(path for path in (Path(__file__).parent / "commits").iterdir() if path.is_dir())
# Nothing of these was written by the first commit.
WITHOUT_VERSION = {"325b7a6"}


@pytest.fixture(params=STUDIES, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of one commit's studies."""
    return Path(shutil.copytree(request.param, tmp_path / request.param.name))


def test_a_finished_study_opens_reports_and_replays(golden: Path) -> None:
    status = json.loads(run_cli("status", golden / "finished", "--json").output)
    assert (status["state"], status["search"]["num_finished"]) == ("confirmed", 6)
    assert run_cli("report", golden / "finished").status == 0
    findings = json.loads((golden / "finished" / "findings" / "findings.json").read_text())
    (row,) = findings["rows"]
    page = (golden / "finished" / "report.html").read_text()
    assert f"{100 * row['effect']['estimate']:+.2f}" in page.replace("\N{MINUS SIGN}", "-")
    assert row["verdict"] in page
    replayed = run_cli("replay", golden / "finished")
    assert replayed.status == 0
    assert "6 suggestions" in replayed.output


def test_the_comparison_of_a_finished_study_comes_out_as_it_was(golden: Path) -> None:
    table = golden / "finished" / "findings" / "comparison.csv"
    before = pd.read_csv(table)
    table.unlink()
    assert run_cli("compare", golden / "finished").status == 0
    after = pd.read_csv(table)
    assert len(before.columns) > 10
    # Earlier p-values matched the degrees of freedom at one confidence only, and Holm's adjustment ignored the looks: corrected.
    corrected = ["p_value", "p_holm"]
    # Where few images differ, pseudo-observations widen the interval.
    wider = ["low_pp", "high_pp", "minimum_detectable_effect_pp", "standard_error_pp", "degrees_of_freedom"]
    same = before.columns.drop([*corrected, *wider], errors="ignore")
    pd.testing.assert_frame_equal(after[same], before[same])
    pd.testing.assert_frame_equal(after[wider[:4]], before[wider[:4]], rtol=0.05, atol=0.2)
    assert ((after["low_pp"] <= before["low_pp"]) & (before["high_pp"] <= after["high_pp"])).all()
    assert ((after["p_adjusted"] < 0.05) == before["verdict"].isin(["BETTER", "WORSE"])).all()


def test_what_needs_weights_names_the_file_that_is_missing(golden: Path) -> None:
    for command in ("analyze", "export"):
        outcome = run_cli(command, golden / "finished")
        assert outcome.status == 2
        assert outcome.errors.rstrip().endswith("best/weights.safetensors is missing")


@pytest.mark.ray_cluster
def test_a_study_killed_in_mid_search_resumes(golden: Path) -> None:
    """The oldest study goes on with Ray, the others in one process without it."""
    where = () if golden.name in WITHOUT_VERSION else ("--local",)
    refused = run_cli("resume", golden / "killed", "--search-only")
    assert refused.status == 2
    assert "--allow-changed" in refused.errors
    before = {path: path.read_text() for path in (golden / "killed").glob("trials/*/record.json")}
    resumed = run_cli("resume", golden / "killed", "--search-only", "--allow-changed", *where)
    assert resumed.status == 0, resumed.errors
    after = load_study(Store(golden / "killed"))
    assert all(record.state.is_finished for record in after.book)
    assert len(after.book.of_stage("search")) == 6
    ended = [path for path, text in before.items() if json.loads(text)["state"] != "RUNNING"]
    assert len(ended) == 2
    assert all(path.read_text() == before[path] for path in ended)
    replayed = run_cli("replay", golden / "killed")
    assert replayed.status == 0, replayed.output


def test_trials_of_a_resumed_study_get_the_settings_of_its_records(golden: Path) -> None:
    opened = load_study(Store(golden / "finished"))
    (first, *_) = opened.book.of_stage("search")
    now = replace(first.config, fixed=prepare(opened.spec).fixed)
    assert dict(now.fixed) == dict(first.config.fixed)
    assert now.fingerprint == first.fingerprint


def test_a_study_keeps_the_defaults_that_it_was_launched_with(golden: Path) -> None:
    spec = load_study(Store(golden / "finished")).spec
    recorded = "defaults_version" in (golden / "finished" / "spec.toml").read_text()
    assert recorded == (golden.name not in WITHOUT_VERSION)
    if not recorded:
        assert spec.defaults_version == FIRST_VERSION
    assert spec.train.momentum == DEFAULTS[spec.defaults_version]["train.momentum"]
    for name in ("num_ranking_seeds", "fresh_seeds", "diverged_runs"):
        assert getattr(spec.confirm, name) == DEFAULTS[spec.defaults_version][f"confirm.{name}"]
    if spec.defaults_version == FIRST_VERSION:
        assert (spec.confirm.fresh_seeds, spec.confirm.diverged_runs) == (False, "drop")
