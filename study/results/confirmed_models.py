"""The models of an arm's confirmation trials, ready to classify images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from analysis.arms.arm_evidence import ArmEvidence
from analysis.causes.confused_images import ComputeLogits
from analysis.heat_maps.cam_layers import CamNetwork
from analysis.heat_maps.validity_tests import CamModels
from analysis.statistics.metrics import IntArray
from search_spaces.config import TrialConfig
from study.cluster.tasks import Workers, find_device, make_task
from study.confirmation.trained_models import load_classifier, load_model
from study.open_study import OpenStudy
from study.state.record_book import open_trial_files
from trainables.models.backbones import build_model, place_model
from trainables.models.heads import fold_batch_norm
from trainables.records.record import TrialRecord
from trainables.seeds import derive_seed
from trainables.storage.store import Store
from trainables.training.trainable import is_own_loop
from trainables.training.trial_data import TrialData

BATCH_SIZE = 256


def load_cam_models(store: Store, runs: Sequence[TrialRecord], num_classes: int) -> CamModels:
    """Return the models of `runs`, on the device of the task, with an untrained one of the same architecture for each.

    Args:
        store: of the study.
        runs: complete confirmation trials of one configuration.
        num_classes: K.
    """
    # This text seeds the parameters, so it keeps its spelling.
    fresh = [run.config.with_seed(derive_seed(run.config.seed, "parameter randomisation")) for run in runs]
    return CamModels(
        trained=[load_cam_network(store, run, num_classes) for run in runs],
        randomized=[_make_network(build_model(config, num_classes, weights="none"), config) for config in fresh],
    )


def load_cam_network(store: Store, run: TrialRecord, num_classes: int) -> CamNetwork:
    """Return the model of a complete trial, which computes on the task's device as in the trial but for rounding."""
    return _make_network(load_model(open_trial_files(store, run), run, num_classes), run.config)


def _make_network(model: nn.Module, config: TrialConfig) -> CamNetwork:
    """Return a model that is ready to compute on the device of the task."""
    placed = place_model(fold_batch_norm(model, config), config, find_device())
    return CamNetwork(model=placed.eval(), config=config)


def has_network(run: TrialRecord) -> bool:
    """Return whether the trial's model is a network, of which there are heat maps, not a custom `Trainable`."""
    return not is_own_loop(run.config)


def make_logits(store: Store, runs: Sequence[TrialRecord], num_classes: int) -> ComputeLogits:
    """Return the function that maps (n, H, W, 3) images to the (S, n, K) logits of the S models of `runs`.

    With the number of the run that judges each image, (n,), they are of that run alone, (1, n, K). The models are on the device
    of the task.
    """
    device = find_device()
    classifiers = [
        load_classifier(open_trial_files(store, r), r, num_classes, device, BATCH_SIZE, folds=True) for r in runs
    ]

    def compute(images: NDArray[np.uint8], judges: IntArray | None = None) -> NDArray[np.float64]:
        if judges is None:
            indices = np.arange(len(images))
            return np.stack([classify(images, indices).astype(np.float64) for classify in classifiers])
        logits = np.empty((1, len(images), num_classes))
        for number in np.unique(judges):
            own = np.flatnonzero(judges == number)
            logits[0, own] = classifiers[number](images, own)
        return logits

    return compute


def make_task_logits(study: OpenStudy, evidence: ArmEvidence, num_classes: int, workers: Workers) -> ComputeLogits:
    """Return `make_logits` of the arm's models, of which each call is a task of the workers."""

    def compute(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        task = make_task(study.spec, evidence.arm, study.store.address, evidence.runs, num_classes, images)
        return np.asarray(next(workers.run_tasks(_compute_logits, [task])))

    return compute


def _compute_logits(
    root: str, runs: Sequence[TrialRecord], num_classes: int, images: NDArray[np.uint8], *, data: TrialData
) -> NDArray[np.float64]:
    """Return logits; the process keeps the models for the next call."""
    del data
    key = (root, num_classes, *(f"{run.stage}/{run.trial_id} {sorted(run.digests.items())}" for run in runs))
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = make_logits(Store(root), runs, num_classes)
    return np.asarray(_KEPT[key](images))


# The models of the last task in this process.
_KEPT: dict[tuple[object, ...], ComputeLogits] = {}
