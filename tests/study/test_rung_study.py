"""A study whose rungs are complete schedules, trained in this process: its records, outputs and replay."""

import json
from pathlib import Path

import pytest

from study.open_study import OpenStudy, load_study
from study.results.findings import load_findings
from study.results.optuna_export import build_search_studies
from study.state import paths
from study.state.record_book import open_trial_files
from study.views.study_size import measure_weights
from tests.study.command_line import run_cli
from trainables.records.record import TrialState
from trainables.storage.store import Store

SPEC = """
name = "rungs"
[data]
source = "planted"
num_images = 300
[model]
weights = "none"
[train]
image_size = 16
batch_size = 32
precision = "fp32"
[search]
factor = "interpolation"
num_trials = 6
max_epochs = 5
asha = { rungs = "complete", reduction_factor = 3 }
fixed = { backbone = "resnet18", class_weighting = "none", cutmix_probability = 0.0 }
[confirm]
top_k = 1
looks = [2]
[analyze]
num_panels = 0
num_audit_images = 20
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    folder = tmp_path_factory.mktemp("rung_study")
    (folder / "spec.toml").write_text(SPEC)
    result = run_cli("run", folder / "spec.toml", "--storage", folder, "--local")
    assert result.status == 0, result.output
    return load_study(Store(folder / "rungs"))


def test_full_trials_are_confirmed_and_rungs_are_not(study: OpenStudy) -> None:
    search = study.book.of_stage("search")
    rungs = [r for r in search if r.is_rung]
    full = {r.config.arm: r for r in search if not r.is_rung}
    assert len(rungs) == 6
    assert {len(r.epochs) for r in rungs} == {1}
    assert set(full) == {"bicubic", "bilinear"}
    assert all(len(r.epochs) == 5 and r.state is TrialState.COMPLETE for r in full.values())
    for record in study.book.of_stage("confirmation"):
        assert record.config.configuration_fingerprint == full[record.config.arm].config.configuration_fingerprint


def test_rungs_keep_their_predictions_and_no_weights(study: OpenStudy) -> None:
    for record in study.book.of_stage("search"):
        files = open_trial_files(study.store, record)
        assert "search" in record.predictions
        assert len(files.read_predictions("search", record.digests).labels) > 0
        assert record.weights_dropped is record.is_rung


def test_every_output_tells_rungs_from_full_trials(study: OpenStudy) -> None:
    findings = load_findings(study)
    assert [(arm.num_rungs, arm.num_completed, arm.num_pruned) for arm in findings.search] == [(3, 1, 0), (3, 1, 0)]
    assert [(f.epoch, f.num_reached, f.num_stopped, f.num_completed) for f in findings.rung_findings] == [
        (1, 3, 2, 1)
    ] * 2
    page = study.store.read_text(paths.REPORT_HTML)
    assert "a complete schedule of 1 epoch (a rung)" in page
    assert ">not promoted<" in page
    status = run_cli("status", study.store.root)
    assert "rungs" in status.output
    progress = json.loads(run_cli("status", study.store.root, "--json").output)["search"]
    assert (progress["num_planned"], progress["num_finished"]) == (8, 8)
    for optuna_study in build_search_studies(study).values():
        trials = optuna_study.get_trials()
        promoted = [t for t in trials if "promoted_from" in t.user_attrs]
        assert [t.state.name for t in promoted] == ["COMPLETE"] * len(promoted)
        assert {t.state.name for t in trials if "rung_of_epochs" in t.user_attrs} == {"PRUNED"}


def test_decisions_replay_and_both_lengths_reproduce(study: OpenStudy) -> None:
    replayed = run_cli("replay", study.store.root)
    assert replayed.status == 0, replayed.output
    search = study.book.of_stage("search")
    for record in (next(r for r in search if r.is_rung), next(r for r in search if not r.is_rung)):
        result = run_cli("reproduce", study.store.root, "--trial", record.trial_id)
        assert "MATCH" in result.output, result.output


def test_plan_counts_what_configurations_cost(study: OpenStudy) -> None:
    inspected = run_cli("plan", Path(study.store.root).parent / "spec.toml", "--seed-sd", "1", "--image-sd", "30")
    assert inspected.status == 0, inspected.output
    assert "full trials that equal device time buys" in inspected.output
    assert "size on disk when it ends: about 0.3 GB" in inspected.output
    assert "bicubic 45 MB in 1 + 2 trials; bilinear 45 MB in 1 + 2 trials" in inspected.output
    weights = [f for f in Path(study.store.root).rglob("best/*/weights*") if f.stat().st_size > 1e6]
    assert len(weights) == 6
    for arm, file in zip(study.spec.arms() * 3, weights, strict=True):
        assert measure_weights(study.spec, arm) == pytest.approx(file.stat().st_size, rel=0.01)
