"""The baselines of a study on disk: baselines/baselines.json, the probe as a network, and its predictions on the test split."""

import dataclasses
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from analysis.baselines.values import LINEAR_PROBE, BaselineFindings
from search_spaces.config import TrialConfig
from study.baselines.files import StoredBaselines, read_baselines
from study.baselines.measuring import FittedProbe
from study.cluster.tasks import Workers, find_device, make_task
from study.confirmation.plan import Plan, note_test_read
from study.confirmation.predictions_on_test import TEST, with_groups
from study.inputs.preparation import Prepared
from study.open_study import OpenStudy
from study.state import paths
from study.state.sealed_files import read_sealed_json, write_sealed_json
from trainables.models.backbones import build_model, place_model
from trainables.models.heads import find_head, fold_state
from trainables.records.trial_files import TrialFiles
from trainables.storage.store import Store
from trainables.training.evaluation import compute_logits
from trainables.training.linear_probe import set_head
from trainables.training.placed_images import place_images
from trainables.training.predictions import Predictions
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
    task = make_task(study.spec, stored.config.arm, study.store.address, stored.config, stored.digests)
    (predictions,) = workers.run_tasks(_predict, [task])
    digests = _files(study.store).write_predictions(predictions, ATTEMPT)
    write_sealed_json(study.store, paths.BASELINES_ON_TEST, {"digests": digests})


def read_test_predictions(study: OpenStudy) -> Predictions | None:
    """Return the predictions of the study's probe on the test split; None if there are none."""
    if not study.store.exists(paths.BASELINES_ON_TEST):
        return None
    digests: dict[str, Any] = read_sealed_json(study.store, paths.BASELINES_ON_TEST)["digests"]
    return _files(study.store).read_predictions(TEST, digests)


def _predict(root: str, config: TrialConfig, digests: dict[str, str], *, data: TrialData) -> Predictions:
    device, indices = find_device(), data.splits.test
    model = _files(Store(root)).load_weights(build_model(config, len(data.class_names), weights="none"), digests)
    placed = place_model(model, config, device)
    logits = compute_logits(placed, place_images(data.images, device), indices, config, device, BATCH_SIZE)
    found = Predictions(sample_ids=indices, labels=np.array(data.labels[indices]), logits=logits, split=TEST)
    return with_groups(found, data)


def _files(store: Store) -> TrialFiles:
    return TrialFiles(store.child(paths.BASELINE_FOLDER))
