"""A whole small study on a local Ray: from a spec to report, status and reproduction; then the same with faults."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
from tensorboard.plugins.hparams import plugin_data_pb2

from study.cluster.connection import Cluster
from study.open_study import load_study
from study.results.findings import is_concluded
from study.results.report import FOLDER
from study.state import paths
from study.state.record_book import RecordBook
from study.state.sealed_files import read_sealed_toml, write_sealed_toml
from tests.faults.payloads import place_payloads
from tests.faults.storage import damage_files
from tests.study.command_line import Outcome, run_cli
from tests.study.small_study import write_small_study
from trainables.records.record import TrialState
from trainables.storage.store import Store
from trainables.training.epoch_metrics import PARTS

# Beside other work on two cores, the study of the fixture takes up to five minutes.
pytestmark = [pytest.mark.ray_cluster, pytest.mark.timeout(600)]

# 1.5 million parameters (ResNet18 has 11.2 million): most tests here copy the weights of the study.
SMALLER = "torchvision:mobilenet_v3_small"
SPEC: dict[str, Any] = {
    "seed": 3,
    "data": {"num_images": 500, "search_fraction": 0.2, "confirm_fraction": 0.2, "test_fraction": 0.3},
    "train": {"image_size": 32, "rotation_degrees": 5.0},
    "search": {
        **{"factor": None, "num_trials": 5, "max_epochs": 2, "asha": {"first_rung": 0.5, "reduction_factor": 2.0}},
        "ranges": {"backbone": ["resnet18", SMALLER]},
        "fixed": {"interpolation": "bicubic", "label_smoothing": 0.0, "class_weighting": "none"},
    },
    "confirm": {"margin": 0.05},
    "analyze": {"num_panels": 2, "num_audit_images": 40},
    # Each process of Ray takes seconds of both cores to start; trials of several at once are those of two nodes.
    "resources": {"max_concurrent": 1},
}


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that was run to its report."""
    root = tmp_path_factory.mktemp("studies")
    write_small_study(root / "spec.toml", "small", **SPEC)
    with mock.patch.object(Cluster, "capacity", autospec=True, side_effect=Cluster.capacity) as capacity:
        outcome = run_cli("run", root / "spec.toml", "--storage", root, "--profile")
    assert capacity.call_count == 2, "the cluster is checked once for each of the two arms"
    assert outcome.status == 0, outcome
    assert any(row in outcome.output for row in (f"{SMALLER} vs resnet18", f"resnet18 vs {SMALLER}"))
    assert "Time of an epoch by part" in outcome.output
    return root / "small"


def test_every_epoch_records_where_its_time_went(study_folder: Path) -> None:
    records = list(RecordBook(Store(study_folder)))
    epochs = [dict(epoch.part_seconds) for record in records for epoch in record.epochs]
    assert epochs
    assert all(set(PARTS) - {"start"} <= set(parts) for parts in epochs)
    assert all(min(parts.values()) >= 0 for parts in epochs)
    assert all("start" in dict(record.epochs[0].part_seconds) for record in records)


def test_layout_on_disk_is_the_documented_one(study_folder: Path) -> None:
    store = Store(study_folder)
    tables = (paths.COMPARISON_CSV, paths.ARMS_CSV, paths.SIDE_METRICS_CSV)
    reports = (paths.COMPARISON_MARKDOWN, paths.COMPARISON_LATEX, paths.REPORT_HTML, paths.REPORT_MARKDOWN)
    for name in (paths.SPEC, paths.PASSPORT, paths.PLAN, paths.FINDINGS, *tables, *reports):
        assert store.exists(name), name
    for record in RecordBook(store):
        folder = study_folder / paths.TrialPaths(stage=record.stage, trial_id=record.trial_id).folder
        assert list(folder.glob("events.out.tfevents.*"))
        assert not (folder / "checkpoint").exists()
        is_kept = record.state is TrialState.COMPLETE and not record.weights_dropped
        assert bool(list(folder.glob("best/*/weights.safetensors"))) == is_kept
    kept = [r.config.arm for r in RecordBook(store).of_stage("search") if r.digests and not r.weights_dropped]
    assert all(kept.count(arm) <= 1 for arm in set(kept)), "confirm.top_k is 1"


def test_search_and_confirmation_ran_as_planned(study_folder: Path) -> None:
    book = RecordBook(Store(study_folder))
    search, confirmation = book.of_stage("search"), book.of_stage("confirmation")
    assert len(search) == 5
    assert len(confirmation) == 4
    assert {r.state for r in confirmation} == {TrialState.COMPLETE}
    seeds = {arm: [r.config.seed for r in confirmation if r.config.arm == arm] for arm in ("resnet18", SMALLER)}
    assert seeds["resnet18"] == seeds[SMALLER]
    assert not set(seeds["resnet18"]) & {r.config.seed for r in search}
    assert not any(r.retry_causes for r in book)


def test_test_split_is_predicted_by_confirmation_trials_only_and_read_once(study_folder: Path) -> None:
    book = RecordBook(Store(study_folder))
    assert all("test" not in r.predictions for r in book.of_stage("search"))
    assert not list((study_folder / "trials").glob("*/best/*/test.npz"))
    assert all("test" in r.predictions for r in book.of_stage("confirmation"))
    assert json.loads((study_folder / paths.FINDINGS).read_text())["num_test_reads"] == 1


def test_findings_agree_with_the_stored_predictions(study_folder: Path) -> None:
    from sklearn.metrics import f1_score

    from trainables.records.trial_files import TrialFiles

    findings = json.loads((study_folder / paths.FINDINGS).read_text())
    for arm in findings["arms"]:
        scores = []
        for trial_id in arm["confirmation_ids"]:
            record = RecordBook(Store(study_folder)).get("confirmation", trial_id)
            stored = TrialFiles(Store(study_folder / "confirmation" / trial_id)).read_predictions(
                "test", record.digests
            )
            scores.append(f1_score(stored.labels, stored.predicted, average="macro"))
        assert arm["test_macro_f1"]["recipe"]["estimate"] == pytest.approx(sum(scores) / len(scores), abs=1e-12)
    (row,) = findings["rows"]
    by_arm = {a["arm"]: a["test_macro_f1"]["recipe"]["estimate"] for a in findings["arms"]}
    difference = by_arm[row["treatment"]] - by_arm[row["control"]]
    assert row["effect"]["estimate"] == pytest.approx(difference, abs=1e-12)


def test_report_is_one_file_that_names_arms_and_verdict(study_folder: Path) -> None:
    html = (study_folder / paths.REPORT_HTML).read_text()
    (row,) = json.loads((study_folder / paths.FINDINGS).read_text())["rows"]
    assert row["verdict"] in html
    assert "resnet18" in html
    assert SMALLER in html
    assert 'src="http' not in html


def test_status_and_list_agree_with_the_records(study_folder: Path) -> None:
    status = json.loads(run_cli("status", study_folder, "--json").output)
    assert status["state"] == "reported"
    assert status["search"]["num_finished"] == 5
    assert sum(arm["share"] for arm in status["search"]["arms"]) == pytest.approx(1)
    assert "small" in run_cli("list", "--storage", study_folder.parent).output
    assert "reported" in run_cli("status", study_folder).output


def test_compare_prints_the_same_row_again_without_reading_the_test(study_folder: Path) -> None:
    outcome = run_cli("compare", study_folder)
    assert outcome.status == 0
    assert any(row in outcome.output for row in (f"{SMALLER} vs resnet18 |", f"resnet18 vs {SMALLER} |"))
    assert len(list((study_folder / paths.TEST_READS).iterdir())) == 1


def test_tensorboard_events_hold_hyperparameters_scalars_and_a_figure(study_folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    book = RecordBook(Store(study_folder))
    sessions: set[str] = set()
    for record in book:
        folder = study_folder / paths.TrialPaths(stage=record.stage, trial_id=record.trial_id).folder
        events = EventAccumulator(str(folder), size_guidance={"images": 0})
        events.Reload()
        scores = [e.value for e in events.Scalars("macro_f1/search")]
        assert scores == pytest.approx([e.macro_f1 for e in record.epochs], abs=1e-6)
        assert {"learning_rate/head", "learning_rate/backbone", "loss/train"} <= set(events.Tags()["scalars"])
        sessions.add(session_of(events.summary_metadata["_hparams_/session_start_info"]))
        assert "batch/augmented" in events.Tags()["images"]
        if record.state is TrialState.COMPLETE:
            assert "confusion_matrix/search" in events.Tags()["images"]
    assert len(sessions) == len(list(book))
    of_study = EventAccumulator(str(study_folder / FOLDER), size_guidance={"images": 0})
    of_study.Reload()
    tags = of_study.Tags()
    assert {"winners/comparison", "winners/confusion_resnet18", f"winners/confusion_{SMALLER}"} <= set(tags["images"])
    texts = {name.removesuffix("/text_summary") for name in tags["tensors"]}
    assert texts == {"verdict/answers", "verdict/table"}
    answers = of_study.Tensors("verdict/answers/text_summary")[0].tensor_proto.string_val[0].decode()
    assert answers.startswith("**Which:** ")


def session_of(metadata: SummaryMetadata) -> str:
    content = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    return str(content.session_start_info.group_name)


def test_reproduce_reports_match_on_the_same_machine(study_folder: Path) -> None:
    outcome = run_cli("reproduce", study_folder)
    assert outcome.status == 0, outcome
    assert "MATCH" in outcome.output


def test_reproduce_of_an_altered_record_reports_different_and_names_the_epoch(
    study_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(study_folder, tmp_path / "altered")
    book = RecordBook(Store(tmp_path / "altered"))
    record = next(r for r in book.of_stage("search") if r.state is TrialState.COMPLETE)
    path = tmp_path / "altered" / "trials" / record.trial_id / "record.json"
    data = json.loads(path.read_text())
    data["config"]["hyperparameters"]["max_lr"] *= 0.5
    path.write_text(json.dumps(data))
    outcome = run_cli("reproduce", tmp_path / "altered", "--trial", record.trial_id)
    assert outcome.status == 1, outcome
    assert "DIFFERENT: epoch 1 is the first that differs" in outcome.output
    assert "was changed after the study wrote it" in outcome.output


def test_launching_again_is_refused_and_resuming_a_finished_study_runs_nothing(
    study_folder: Path, tmp_path: Path
) -> None:
    again = run_cli("run", study_folder.parent / "spec.toml", "--storage", study_folder.parent)
    assert again.status == 2
    kept = [*study_folder.rglob("record.json"), study_folder / paths.FINDINGS]
    before = {p: p.stat().st_mtime_ns for p in kept}
    resumed = run_cli("resume", study_folder)
    assert resumed.status == 0
    assert "is finished" in resumed.output
    assert {p: p.stat().st_mtime_ns for p in kept} == before
    shutil.copytree(study_folder, tmp_path / "incomplete")
    incomplete = load_study(Store(tmp_path / "incomplete"))
    assert is_concluded(incomplete)
    (tmp_path / "incomplete" / paths.FIGURES / "class_f1.png").unlink()
    assert not is_concluded(incomplete)


def test_study_that_stopped_in_the_middle_is_finished_by_resume(study_folder: Path, tmp_path: Path) -> None:
    """A driver that died leaves running trials, with a checkpoint or without; resume runs them and nothing else."""
    shutil.copytree(study_folder, tmp_path / "stopped")
    for name in ("findings", "report.html", "report.md", paths.PLAN):
        path = tmp_path / "stopped" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    store = Store(tmp_path / "stopped")
    book = RecordBook(store)
    last, confirming = book.of_stage("search")[-1], book.of_stage("confirmation")[-1]
    for record in (last, confirming):
        book.save(record.updated(state=TrialState.RUNNING, epochs=(), ended_order=None, ended="", reason=""))
    others = {p: p.read_bytes() for p in (tmp_path / "stopped" / "trials").rglob("record.json")}
    others.pop(tmp_path / "stopped" / "trials" / last.trial_id / "record.json")
    outcome: Outcome = run_cli("resume", tmp_path / "stopped", "--search-only", "--local")
    assert outcome.status == 0, outcome
    assert {p: p.read_bytes() for p in others} == others
    left = RecordBook(store).get("confirmation", confirming.trial_id)
    assert left.state is TrialState.RUNNING, "the next command trains it"
    again = RecordBook(store).get("search", last.trial_id)
    assert [e.macro_f1 for e in again.epochs][: len(last.epochs)] == [e.macro_f1 for e in last.epochs][
        : len(again.epochs)
    ]


def test_resume_with_other_data_is_refused(study_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(study_folder, tmp_path / "other")
    store = Store(tmp_path / "other")
    text = read_sealed_toml(store, paths.SPEC)
    write_sealed_toml(store, paths.SPEC, text.replace("num_images = 500", "num_images = 510"))
    outcome = run_cli("resume", tmp_path / "other")
    assert outcome.status == 2
    assert "other data" in outcome.errors


def test_missed_gate_is_exit_status_1(study_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(study_folder, tmp_path / "limited")
    store = Store(tmp_path / "limited")
    write_sealed_toml(store, paths.SPEC, read_sealed_toml(store, paths.SPEC) + "\n[minimum]\nmacro_f1 = 0.999\n")
    outcome = run_cli("compare", tmp_path / "limited")
    assert outcome.status == 1
    assert "minimum missed: resnet18" in outcome.errors


def test_study_opens_from_python(study_folder: Path) -> None:
    import torch

    import study

    opened = study.load(str(study_folder))
    records = opened.records()
    assert len(records) == 9
    assert records.loc[records.stage == "search", "device_seconds"].sum() > 0
    assert len(opened.epochs()) == records.num_epochs.sum()
    best = opened.best("resnet18")
    scores = records[(records.stage == "search") & (records.arm == "resnet18") & (records.state == "COMPLETE")]
    assert best.trial_id == scores.sort_values("macro_f1").trial_id.iloc[-1]
    with torch.no_grad():
        assert best.model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    (row,) = opened.comparison().itertuples()
    assert (row.treatment, row.control) == (SMALLER, "resnet18")
    assert len(opened.images()) == 2 * row.num_images


def test_resume_with_more_trials_runs_exactly_those(study_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(study_folder, tmp_path / "grown")
    before = {r.trial_id: r for r in RecordBook(Store(study_folder)).of_stage("search")}
    outcome = run_cli("resume", tmp_path / "grown", "--num-trials", "+1", "--search-only", "--local")
    assert outcome.status == 0, outcome
    after = {r.trial_id: r for r in RecordBook(Store(tmp_path / "grown")).of_stage("search")}
    assert len(after) == len(before) + 1
    for trial_id, record in before.items():
        # The new trial may take the place of the best one, whose weights are then deleted.
        changes = {"digests": record.digests, "weights_dropped": record.weights_dropped, "writer": record.writer}
        assert after[trial_id].updated(**changes) == record
    assert (tmp_path / "grown" / paths.SPEC).read_bytes() == (study_folder / paths.SPEC).read_bytes()
    for text in ("6", "+0", "many"):
        refused = run_cli("resume", tmp_path / "grown", "--num-trials", text, "--search-only")
        assert refused.status == 2
        assert "--num-trials" in refused.errors


def test_an_intervention_is_trained_and_compared_with_the_winner_trained_anew(
    study_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(study_folder, tmp_path / "small")
    outcome = run_cli("intervene", tmp_path / "small", "--only", "background_swap", "--local")
    assert outcome.status == 0, outcome
    assert "background_swap | ring gap of" in outcome.output
    found = json.loads((tmp_path / "small-intervene-1" / paths.FINDINGS).read_text())["interventions"]
    swap = next(effect for effect in found["effects"] if effect["stated"]["arm"] == "background_swap")
    assert swap["stated"]["prediction"]["effect"]["low"] < swap["stated"]["prediction"]["effect"]["high"]
    assert swap["target"]["num_seeds"] == 2
    assert swap["ring_gap"] is not None


def test_damage_and_payloads_in_every_file_are_reported_and_none_is_executed(
    study_folder: Path, tmp_path: Path
) -> None:
    damaged = damage_files(tmp_path, 60, str(study_folder))
    assert damaged.is_met, damaged
    placed = place_payloads(tmp_path, str(study_folder))
    assert placed.is_met, placed
