"""A study whose seeds cut the test split into folds: training, verdict, probe, report, export, reproduction and resume."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file

from analysis.arms.arm_evidence import find_judges, take_judges
from analysis.baselines.values import LINEAR_PROBE
from search_spaces.config import list_folds
from search_spaces.errors import UserInputError
from study.baselines.measuring import read_test_predictions
from study.confirmation.evidence import list_unfinished_wholes, load_evidence, require_plan
from study.confirmation.plan import count_test_reads
from study.inputs.preparation import check_folds, prepare
from study.open_study import OpenStudy, load_study, read_baselines
from study.results import confirmed_models
from study.results.stored_findings import load_findings
from study.state import paths
from tests.made_once import random_weights
from tests.study.command_line import run_cli
from trainables.records.record import TrialRecord
from trainables.storage.store import Store
from trainables.training.evaluation import compute_mean_f1

SPEC = """
name = "folded"
[data]
source = "planted"
num_images = 240
test_fraction = 0.4
[model]
weights = "{weights}"
[train]
image_size = 16
batch_size = 32
precision = "fp32"
[search]
factor = "tuning"
num_trials = 2
max_epochs = 2
pruning = "none"
ranges = {{ tuning = ["full", "probe"] }}
fixed = {{ backbone = "resnet18", class_weighting = "none", interpolation = "bicubic", cutmix_probability = 0.0 }}
[confirm]
top_k = 1
looks = [2]
folds = 2
[analyze]
num_panels = 1
num_audit_images = 20
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    folder = tmp_path_factory.mktemp("folds")
    (folder / "spec.toml").write_text(SPEC.format(weights=random_weights() / "resnet18.pt"))
    outcome = run_cli("run", folder / "spec.toml", "--storage", folder, "--local", width=200)
    assert outcome.status == 0, outcome
    assert "interventions are chosen on one half of the test images" in outcome.output
    return load_study(Store(folder / "folded"))


def list_trials(study: OpenStudy, arm: str) -> list[TrialRecord]:
    return [r for r in study.book.of_stage("confirmation") if r.config.arm == arm]


def test_each_test_image_is_tested_once_per_seed_by_a_model_that_has_not_seen_it(study: OpenStudy) -> None:
    data, plan = prepare(study.spec).data, require_plan(study)
    used = np.sort(np.concatenate([data.splits.train, data.splits.search, data.splits.confirm, data.splits.test]))
    for arm, found in load_evidence(study, plan).items():
        assert found.seeds == plan.seeds
        assert [r.config.fold for r in found.runs] == 2 * list(list_folds(2))
        for predictions in found.predictions:
            assert np.array_equal(predictions.sample_ids, data.splits.test)
        for run, tested in zip(found.runs, found.folds, strict=True):
            own = data.of_trial(run.config).splits
            assert np.array_equal(own.test, tested)
            assert np.array_equal(np.union1d(own.train, tested), used)
            assert not np.isin(tested, own.train).any()
            shares = [np.bincount(data.labels[part]) / len(part) for part in (tested, data.splits.test)]
            assert np.abs(shares[0] - shares[1]).max() < 0.02
        assert not np.array_equal(found.folds[0], found.folds[2]), "each seed cuts anew"
        whole = [r for r in list_trials(study, arm) if r.config.fold == "0/2"]
        assert [r.config.seed for r in whole] == [plan.seeds[0]]
        assert np.array_equal(data.of_trial(whole[0].config).splits.train, used)
    first, second = load_evidence(study, plan).values()
    assert all(map(np.array_equal, first.folds, second.folds)), "the arms are paired by fold"
    assert count_test_reads(study.store) == 1


def test_no_score_of_images_that_were_trained_on_is_kept_or_chooses(study: OpenStudy) -> None:
    for arm in ("full", "probe"):
        trials = list_trials(study, arm)
        assert {r.predictions for r in trials if r.config.fold} == {("test",), ()}
        assert [r.confirm_macro_f1 is None for r in trials] == [bool(r.config.fold) for r in trials]
    found = load_findings(study).baselines
    assert found is not None
    ranking = {arm: [r for r in list_trials(study, arm) if not r.config.fold] for arm in ("full", "probe")}
    assert [len(trials) for trials in ranking.values()] == [1, 1]
    best = max(ranking, key=lambda arm: ranking[arm][0].confirm_macro_f1 or 0.0)
    assert found.choice is not None
    assert found.choice.leader == best
    assert found.choice.confirm_macro_f1[best] == pytest.approx(ranking[best][0].confirm_macro_f1)


def test_the_probe_is_fitted_anew_for_each_seed_and_fold(study: OpenStudy) -> None:
    found, one = load_findings(study).baselines, read_test_predictions(study)
    assert found is not None
    assert found.row is not None
    assert (len(one), found.row.num_seeds, found.row.num_images) == (2, 2, 96)
    assert np.array_equal(one[0].sample_ids, one[1].sample_ids)
    assert not np.array_equal(one[0].logits, one[1].logits)
    report = study.store.read_text(paths.REPORT_HTML)
    assert "The probe was fitted anew for each seed and fold" in report
    assert "Each test image was tested once per seed, by a model that had not seen it" in report


def test_each_test_image_is_audited_by_the_model_that_has_not_seen_it(
    study: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmed_models, "find_device", lambda: torch.device("cpu"))
    data = prepare(study.spec).data
    for found in take_judges(load_evidence(study, require_plan(study))).values():
        (pooled,) = found.predictions
        judges = find_judges(found, pooled.sample_ids)
        assert len(found.runs) == 2
        assert np.bincount(judges).tolist() == [len(part) for part in found.folds]
        logits = confirmed_models.make_logits(study.store, found.runs, len(data.class_names))
        shown = np.array(data.images[pooled.sample_ids])
        np.testing.assert_allclose(logits(shown, judges)[0], pooled.logits, rtol=1e-3, atol=5e-3)
        assert np.abs(logits(shown, 1 - judges)[0] - pooled.logits).max() > 5e-2
    arms = load_findings(study).arms
    assert all(arm.ring_audits and arm.exported is None for arm in arms)
    assert "each image is judged by the one that has not seen it" in study.store.read_text(paths.REPORT_HTML)


def test_the_model_of_all_images_is_exported_with_the_score_of_the_folds(study: OpenStudy, tmp_path: Path) -> None:
    outcome = run_cli("export", study.store.root, "--to", tmp_path / "export", width=200)
    assert outcome.status == 0, outcome
    for arm, found in load_evidence(study, require_plan(study)).items():
        described = json.loads((tmp_path / "export" / arm / "study.json").read_text())
        assert described["configuration"]["fold"] == "0/2"
        scores = next(a for a in load_findings(study).arms if a.arm == found.arm).test_macro_f1
        assert described["macro_f1"] == {"search": None, "confirm": None, "test": pytest.approx(scores.estimate)}
        assert "has trained on all images" in (tmp_path / "export" / arm / "README.md").read_text()
    probe = tmp_path / "export" / LINEAR_PROBE
    test = [compute_mean_f1(p.labels, p.predicted, p.logits.shape[1]) for p in read_test_predictions(study)]
    described = json.loads((probe / "study.json").read_text())
    assert described["macro_f1"] == {"search": None, "confirm": None, "test": pytest.approx(np.mean(test))}
    assert "It was fitted on all images" in (probe / "README.md").read_text()
    exported, baseline = load_file(probe / "model.safetensors"), read_baselines(study)
    assert baseline is not None
    kept = load((study.store.child(paths.BASELINE_FOLDER)).read_bytes(next(iter(baseline.digests))))
    changed = {name for name, value in exported.items() if not torch.equal(value, kept[name])}
    assert changed == {"fc.weight", "fc.bias"}, "the same backbone under another head"


@pytest.mark.parametrize("arm", ["full", "probe"])
def test_a_trial_of_a_fold_is_reproduced_bit_for_bit(study: OpenStudy, arm: str) -> None:
    record = next(r for r in list_trials(study, arm) if r.config.fold == "2/2")
    outcome = run_cli("reproduce", study.store.root, "--trial", f"confirmation/{record.trial_id}")
    assert outcome.status == 0, outcome
    assert "MATCH" in outcome.output


def test_what_is_missing_is_trained_by_a_resume(study: OpenStudy, tmp_path: Path) -> None:
    shutil.copytree(study.store.root, tmp_path / "folded")
    left = [r for r in list_trials(study, "probe") if r.config.fold == "0/2"]
    shutil.rmtree(tmp_path / "folded" / "confirmation" / left[0].trial_id)
    copied = load_study(Store(tmp_path / "folded"))
    assert list_unfinished_wholes(copied) == ("probe",)
    outcome = run_cli("resume", tmp_path / "folded", "--local", width=200)
    assert outcome.status == 0, outcome
    again = load_study(Store(tmp_path / "folded"))
    assert list_unfinished_wholes(again) == ()
    assert count_test_reads(again.store) == 1
    assert load_findings(again).rows == load_findings(study).rows


def test_interventions_are_refused(study: OpenStudy) -> None:
    outcome = run_cli("intervene", study.store.root, "--local", width=300)
    assert outcome.status == 2
    assert "a study with confirm.folds = 0 can try them" in outcome.errors


def test_folds_that_do_not_fit_are_refused(study: OpenStudy) -> None:
    prepared = prepare(study.spec)
    with pytest.raises(UserInputError, match=r"confirm\.folds = 60 needs as many test images of each class"):
        check_folds(60, prepared.image_set, prepared.splits)
    # Each class has the images of two groups.
    labels = prepared.image_set.labels
    groups = 2 * labels + np.arange(len(labels)) // 10 % 2
    check_folds(2, grouped := replace(prepared.image_set, groups=groups), prepared.splits)
    with pytest.raises(
        UserInputError, match=r"confirm\.folds = 3 needs as many groups of test images of each class.*\(2\)"
    ):
        check_folds(3, grouped, prepared.splits)
    outcome = run_cli("plan", Path(study.store.root) / "spec.toml", "--set", "confirm.folds=1", width=300)
    assert outcome.status == 2
    assert "one fold would leave nothing to train on" in outcome.errors
