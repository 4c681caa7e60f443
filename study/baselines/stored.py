"""The baselines of a study on disk: baselines/baselines.json, the probe as a network, and its predictions on the test split."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import nn

from analysis.baselines.values import LINEAR_PROBE, Baseline, BaselineFindings
from search_spaces.config import TrialConfig, list_folds
from study.baselines.files import StoredBaselines, read_baselines
from study.baselines.measuring import FittedProbe
from study.cluster.task_device import find_device
from study.cluster.tasks import Workers, make_task
from study.confirmation.plan import Plan, note_test_read
from study.confirmation.predictions_on_test import TEST, with_groups
from study.inputs.preparation import Prepared
from study.open_study import OpenStudy
from study.state import paths
from study.state.sealed_files import read_sealed_json, write_sealed_json
from trainables.data.splits import SPLIT_NAMES
from trainables.models.backbones import build_model, place_model
from trainables.models.heads import find_head, fold_state
from trainables.records.trial_files import TrialFiles
from trainables.storage.store import Store
from trainables.training.evaluation import compute_logits
from trainables.training.frozen_features import borrow_backbone
from trainables.training.linear_probe import fit_again, identify_images, set_head
from trainables.training.placed_images import place_images
from trainables.training.predictions import Predictions, pool_predictions
from trainables.training.trial_data import TrialData

# The files of the probe are those of a trial's first attempt.
ATTEMPT = 1
BATCH_SIZE = 128


def write_baselines(
    study: OpenStudy, findings: BaselineFindings, chosen: FittedProbe | None, prepared: Prepared
) -> None:
    """Write the baselines of a study; the probe is a network whose head has the standardization of its features folded in.

    Args:
        study: opened to be driven.
        findings: scores of its baselines.
        chosen: its probe.
        prepared: its data.
    """
    stored = StoredBaselines(findings=findings)
    if chosen is not None:
        state = _build_state(chosen, prepared.weights, len(prepared.data.class_names))
        digests = _files(study.store).write_weights(state, ATTEMPT)
        stored = dataclasses.replace(stored, config=chosen.config, digests=digests)
    content = TypeAdapter(StoredBaselines).dump_python(stored, mode="json")
    write_sealed_json(study.store, paths.BASELINES, content)


def _build_state(probe: FittedProbe, weights: str, num_classes: int) -> dict[str, torch.Tensor]:
    model = build_model(probe.config, num_classes, weights=weights)
    head = find_head(model)[1]
    head.standardize(torch.tensor(probe.head.mean), torch.tensor(probe.head.scale))
    set_head(head, probe.head)
    return {name: value.contiguous() for name, value in fold_state(model.state_dict()).items()}


def read_probe_weights(study: OpenStudy, stored: StoredBaselines) -> bytes:
    """Return the content of the safetensors file of the probe; raise DamagedFileError if it is not the one that was stored."""
    return _files(study.store).read_weights(stored.digests)


def find_unread_probe(study: OpenStudy) -> StoredBaselines | None:
    """Return the baselines if the study has a probe that has not predicted the test split; else None."""
    stored = read_baselines(study)
    is_left = stored is not None and stored.config is not None and not study.store.exists(paths.BASELINES_ON_TEST)
    return stored if is_left else None


def predict_test(study: OpenStudy, plan: Plan, workers: Workers) -> None:
    """Predict the test split with the study's probe, in the first read of it; nothing without one, or if that was done."""
    stored = find_unread_probe(study)
    if stored is None or stored.config is None:
        return
    note_test_read(study.store, plan, [LINEAR_PROBE])
    probe, folds, files = stored.findings.probe, study.spec.confirm.folds, _files(study.store)
    assert probe is not None
    task = make_task(study.spec, stored.config.arm, study.store.address, stored, probe, plan.seeds, folds)
    (found,) = workers.run_tasks(_predict_folds if folds else _predict, [task])
    digests = [files.write_predictions(one, attempt) for attempt, one in enumerate(found, start=ATTEMPT)]
    write_sealed_json(study.store, paths.BASELINES_ON_TEST, {"digests": digests})


def read_test_predictions(study: OpenStudy) -> tuple[Predictions, ...]:
    """Return the predictions of the study's probe on the test split; with folds, for each of the plan's seeds; or none."""
    if not study.store.exists(paths.BASELINES_ON_TEST):
        return ()
    stored: list[dict[str, Any]] = read_sealed_json(study.store, paths.BASELINES_ON_TEST)["digests"]
    return tuple(_files(study.store).read_predictions(TEST, digests) for digests in stored)


def _load(root: str, stored: StoredBaselines, num_classes: int) -> tuple[TrialConfig, nn.Module]:
    """Return the probe's configuration, and its network on the device of the task."""
    assert stored.config is not None
    model = build_model(stored.config, num_classes, weights="none")
    return stored.config, place_model(
        _files(Store(root)).load_weights(model, stored.digests), stored.config, find_device()
    )


def _predict(root: str, stored: StoredBaselines, *_: object, data: TrialData) -> list[Predictions]:
    device, indices = find_device(), data.splits.test
    config, model = _load(root, stored, len(data.class_names))
    logits = compute_logits(model, place_images(data.images, device), indices, config, device, BATCH_SIZE)
    found = Predictions(sample_ids=indices, labels=np.array(data.labels[indices]), logits=logits, split=TEST)
    return [with_groups(found, data)]


def _predict_folds(
    root: str, stored: StoredBaselines, probe: Baseline, seeds: Sequence[int], folds: int, *, data: TrialData
) -> list[Predictions]:
    """Return predictions for each seed: of each fold, by a probe fitted on the images that a trial of that fold trains on.

    Strength and class weights are those of the study's probe, which no test image chose.
    """
    device, num_classes, strength = find_device(), len(data.class_names), probe.strength
    assert strength is not None
    config, model = _load(root, stored, num_classes)
    used = np.sort(np.concatenate([getattr(data.splits, name) for name in SPLIT_NAMES]))
    with borrow_backbone(model, config, device) as backbone:
        features = backbone.compute_part(place_images(data.images, device), used, identify_images(data))
    found = []
    for seed in seeds:
        parts = []
        for fold in list_folds(folds):
            splits = data.of_trial(config.with_seed(seed).with_fold(fold)).splits
            train, test = (features[np.searchsorted(used, part)] for part in (splits.train, splits.test))
            labels, is_balanced = data.labels[splits.train], probe.class_weights != "none"
            head = fit_again(train, labels, num_classes, strength, is_balanced=is_balanced)
            logits, truth = head.compute_logits(test), np.array(data.labels[splits.test])
            parts.append(Predictions(sample_ids=splits.test, labels=truth, logits=logits, split=TEST))
        found.append(with_groups(pool_predictions(parts), data))
    return found


def _files(store: Store) -> TrialFiles:
    return TrialFiles(store.child(paths.BASELINE_FOLDER))
