"""The baselines of a study: measured before the search, judged on the test split after the plan, and exported."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from sklearn.metrics import f1_score

from analysis.baselines.values import LINEAR_PROBE
from analysis.comparison.paired_difference import compare_arms
from analysis.comparison.values import ChoiceRule, Verdict
from study.baselines.measuring import read_test_predictions
from study.confirmation.evidence import load_evidence, require_plan
from study.confirmation.plan import count_test_reads
from study.inputs.preparation import prepare
from study.open_study import load_study, open_to_drive, read_baselines
from study.results.comparison import choose_handover, compute_comparison, compute_handover
from study.results.stored_findings import load_findings
from study.state import paths
from tests.built_values import arm_of
from tests.made_once import random_weights
from tests.study.command_line import run_cli
from tests.study.small_study import write_small_study
from trainables.models.backbones import prepare_inputs
from trainables.storage.store import Store

SEARCH = {
    **{"factor": "tuning", "num_trials": 4, "max_trials_per_arm": 3},
    "ranges": {"tuning": ["full", "probe"], "cutmix_probability": [0.1, 0.5]},
    "fixed": {"backbone": "resnet18", "class_weighting": "none", "interpolation": "bicubic"},
}


def write_spec(folder: Path, weights: str = "none") -> None:
    write_small_study(folder / "spec.toml", "beat-it", model={"weights": weights}, search=SEARCH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study whose "pretrained" weights are a random network's."""
    folder = tmp_path_factory.mktemp("baselines")
    write_spec(folder, str(random_weights() / "resnet18.pt"))
    outcome = run_cli("run", folder / "spec.toml", "--storage", folder, "--local", width=200)
    assert outcome.status == 0, outcome
    (folder / "printed.txt").write_text(outcome.output)
    return folder


def test_baselines_are_shown_measured_first_and_part_of_the_findings(folder: Path) -> None:
    study, printed = load_study(Store(folder / "beat-it")), (folder / "printed.txt").read_text()
    assert printed.index("linear probe on resnet18") < printed.index("search: ")
    assert " is handed over: " in printed
    found = load_findings(study).baselines
    assert found is not None
    with open_to_drive(Store(folder / "beat-it")) as opened:
        assert found == compute_comparison(opened).baselines
    probe = found.probe
    assert probe is not None
    assert probe.num_images == probe.num_train == len(prepare(study.spec).splits.train)
    assert found.majority.test_macro_f1 is not None
    assert found.row is not None
    assert (found.row.control, found.row.num_looks, found.row.treatment) == (LINEAR_PROBE, 1, found.winner)
    assert found.row.confidence == pytest.approx(0.95)
    status = run_cli("status", folder / "beat-it", width=200)
    assert "linear probe on resnet18" in status.output
    assert json.loads(run_cli("status", folder / "beat-it", "--json").output)["baselines"]["chosen"] == "resnet18"
    assert study.store.read_text(paths.BASELINES_CSV).count("\n") == 3
    assert "linear probe" in study.store.read_text(paths.REPORT_HTML)


def test_the_test_split_is_read_once_for_trials_and_probe(folder: Path) -> None:
    study = load_study(Store(folder / "beat-it"))
    assert count_test_reads(study.store) == 1
    note = json.loads(study.store.read_text(f"{paths.TEST_READS}/0001.json"))
    assert LINEAR_PROBE in note["runs"]
    (predictions,) = read_test_predictions(study)
    evidence = load_evidence(study, require_plan(study))
    assert np.array_equal(predictions.sample_ids, evidence["full"].predictions[0].sample_ids)


def test_the_confirm_split_chooses_what_is_handed_over_and_the_test_split_does_not(folder: Path) -> None:
    study = load_study(Store(folder / "beat-it"))
    plan, stored = require_plan(study), read_baselines(study)
    assert stored is not None
    means = {
        arm: np.mean([r.confirm_macro_f1 for r in study.book.of_stage("confirmation") if r.config.arm == arm])
        for arm in plan.chosen
    }
    found = choose_handover(study, plan, stored.findings)
    choice = found.choice
    assert choice is not None
    assert choice.confirm_macro_f1 == pytest.approx(means)
    assert choice.leader == max(means, key=lambda arm: means[arm])
    assert (choice.rule is ChoiceRule.DECIDED) == (not choice.pooled_macro_f1)
    assert stored.findings.probe is not None
    is_better = stored.findings.probe.confirm_macro_f1 > means[choice.arm]
    assert found.handed_over == (LINEAR_PROBE if is_better else choice.arm)


def test_plain_torchvision_loads_the_exported_probe_and_predicts_as_the_study_did(folder: Path) -> None:
    exported = run_cli("export", folder / "beat-it", "--to", folder / "export", width=300)
    assert exported.status == 0, exported
    assert "handed over: " in exported.output
    marks = {p.parent.name: json.loads(p.read_text())["handed_over"] for p in (folder / "export").glob("*/study.json")}
    assert sum(marks.values()) == 1
    assert set(marks) == {"full", "probe", LINEAR_PROBE}
    study = load_study(Store(folder / "beat-it"))
    stored, (predictions,), prepared = read_baselines(study), read_test_predictions(study), prepare(study.spec)
    assert stored is not None
    assert stored.config is not None
    model = torchvision.models.resnet18(num_classes=predictions.logits.shape[1]).eval()
    model.load_state_dict(load_file(folder / "export" / LINEAR_PROBE / "model.safetensors"))
    images = torch.from_numpy(np.array(prepared.data.images[predictions.sample_ids]))
    with torch.inference_mode():
        logits = model(prepare_inputs(images, stored.config)).numpy()
    np.testing.assert_allclose(logits, predictions.logits, rtol=1e-3, atol=1e-3)
    assert stored.findings.probe is not None
    confirm = prepared.splits.confirm
    with torch.inference_mode():
        logits = model(prepare_inputs(torch.from_numpy(np.array(prepared.data.images[confirm])), stored.config)).numpy()
    macro_f1 = f1_score(prepared.data.labels[confirm], logits.argmax(axis=1), average="macro", zero_division=0)
    assert macro_f1 == pytest.approx(stored.findings.probe.confirm_macro_f1, abs=0.02)


def test_a_trial_of_a_probe_is_reproduced_bit_for_bit(folder: Path) -> None:
    study = load_study(Store(folder / "beat-it"))
    record = next(r for r in study.book.of_stage("search") if r.config.arm == "probe")
    reproduced = run_cli("reproduce", folder / "beat-it", "--trial", record.trial_id)
    assert reproduced.status == 0, reproduced
    assert "MATCH" in reproduced.output


def test_an_arm_of_probes_has_no_more_trials_than_allowed_and_mixes_nothing(folder: Path) -> None:
    study = load_study(Store(folder / "beat-it"))
    trials = study.book.of_stage("search")
    assert len(trials) == 4
    assert max(sum(r.config.arm == arm for r in trials) for arm in ("full", "probe")) <= 3
    probes = [r for r in trials if r.config.arm == "probe"]
    assert {r.config.number("cutmix_probability") for r in probes} == {0.0}
    assert all(r.config.number("cutmix_probability") >= 0.1 for r in trials if r.config.arm == "full")
    scores = next(arm for arm in load_findings(study).arms if arm.arm == "probe")
    mean = np.mean([r.device_seconds for r in study.book.of_stage("confirmation") if r.config.arm == "probe"])
    assert scores.device_seconds > mean, "a part of the time of the features"


def test_without_weights_there_is_the_majority_class_and_the_reason(tmp_path: Path) -> None:
    write_spec(tmp_path)
    outcome = run_cli("launch", tmp_path / "spec.toml", "--storage", tmp_path, "--local", width=300)
    assert outcome.status == 0, outcome
    assert "majority class" in outcome.output
    assert "model.weights is none" in outcome.output
    assert "the arm 'probe' relies on features of an untrained backbone" in outcome.output
    study = load_study(Store(tmp_path / "beat-it"))
    stored = read_baselines(study)
    assert stored is not None
    assert (stored.findings.probes, stored.config) == ((), None)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("search.allocation=pooled", "make tuning the factor, or set cutmix_probability to 0"),
        ("train.mixup_probability=0.5", "mixup_probability = 0.5 cannot mix"),
        ("train.processes=2", "trains in one process"),
        ("search.num_trials=9", "search.num_trials is 9, but 2 arms of at most 3 trials"),
    ],
)
def test_what_features_cannot_have_is_refused(setting: str, message: str, tmp_path: Path) -> None:
    write_spec(tmp_path)
    options = ["--set", setting, "--set", "resources.cpu=2"]
    refused = run_cli("launch", tmp_path / "spec.toml", "--storage", tmp_path, "--local", *options, width=300)
    assert refused.status == 2
    assert message in refused.errors


@pytest.mark.parametrize("seed_sd", [0.0, 0.05])
def test_the_row_against_a_fixed_probe_keeps_its_error(seed_sd: float) -> None:
    """Simulated nulls: seeds of the winner are as accurate as the probe on average over seeds and images."""
    generator = np.random.default_rng(0)
    num_draws, num_images, seeds = 400, 300, (1, 2, 3, 4)
    labels = np.repeat(np.arange(3), num_images // 3)
    wrong = 0
    for _ in range(num_draws):

        def predict(accuracy: float) -> np.ndarray:
            is_right = generator.random(num_images) < accuracy
            return np.where(is_right, labels, (labels + generator.integers(1, 3, num_images)) % 3)

        own = np.stack([predict(0.7 + seed_sd * generator.standard_normal()) for _ in seeds])
        probe = np.tile(predict(0.7), (len(seeds), 1))
        sides = [arm_of(labels, found, name) for name, found in (("winner", own), (LINEAR_PROBE, probe))]
        row = compare_arms(*sides, margin=0.01, alpha=0.05, num_rows=1, cost_ratio=None)
        wrong += row.verdict in {Verdict.BETTER, Verdict.WORSE}
    # The 99.9 % quantile of a binomial at alpha.
    assert wrong <= 35


def test_a_run_of_the_winner_that_diverged_counts_against_it(folder: Path) -> None:
    study = load_study(Store(folder / "beat-it"))
    plan = require_plan(study)
    evidence = load_evidence(study, plan)
    whole = compute_handover(study, plan, evidence)
    assert whole is not None
    assert whole.row is not None
    own = evidence[whole.winner]
    predictions = own.predictions[0]
    wrong = np.eye(predictions.logits.shape[1], dtype=np.float32)[
        (predictions.labels + 1) % predictions.logits.shape[1]
    ]
    lost = dataclasses.replace(
        own,
        runs=[own.runs[0].updated(diverged=True), *own.runs[1:]],
        predictions=[dataclasses.replace(predictions, logits=wrong), *own.predictions[1:]],
    )
    found = compute_handover(study, plan, {**evidence, whole.winner: lost})
    assert found is not None
    assert found.row is not None
    assert found.row.num_seeds == whole.row.num_seeds
    assert found.row.effect.estimate < whole.row.effect.estimate
