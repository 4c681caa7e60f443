"""The confirmed models of a study: loaded from their runs, and asked about images."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from analysis.audits.ring_swaps import Images
from analysis.audits.root_cause import ComputeLogits
from analysis.heat_maps.grad_cam import choose_cam_layer
from analysis.heat_maps.validity_tests import CamModels
from search_spaces.config import TrialConfig
from study.open_study import OpenStudy
from study.state.paths import TrialPaths
from trainables.data.augmentation import prepare_batch
from trainables.models.backbones import build_model, place_model
from trainables.records.record import TrialRecord
from trainables.records.trial_files import TrialFiles
from trainables.seeds import derive_seed
from trainables.training.evaluation import compute_logits

BATCH_SIZE = 256


def load_model(study: OpenStudy, record: TrialRecord, num_classes: int) -> nn.Module:
    """Return a run's final model on the CPU; raise DamagedFileError naming weights that are missing or not what was stored."""
    files = TrialFiles(study.store.child(TrialPaths(stage=record.stage, trial_id=record.trial_id).folder))
    return files.load_weights(build_model(record.config, num_classes, weights="none"), record.digests)


def find_device() -> torch.device:
    """Return the device that models are asked on: CUDA where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare_inputs(images: Images, config: TrialConfig) -> torch.Tensor:
    """Return (n, 3, S, S) network inputs for (n, H, W, 3) images, as the configuration's model is evaluated."""
    return prepare_batch(
        torch.from_numpy(images),
        image_size=config.whole("image_size"),
        interpolation=config.word("interpolation"),
        channels_last=bool(config["channels_last"]),
    )


def load_cam_models(study: OpenStudy, runs: Sequence[TrialRecord], num_classes: int) -> CamModels:
    """Return the runs' models and untrained ones of the same kind; UserInputError where no layer's maps are large enough."""
    device = find_device()
    config = runs[0].config
    trained = [place_model(load_model(study, r, num_classes), r.config, device).eval() for r in runs]
    randomised = []
    for run in runs:
        fresh = run.config.with_seed(derive_seed(run.config.seed, "parameter randomisation"))
        randomised.append(place_model(build_model(fresh, num_classes, weights="none"), fresh, device).eval())
    return CamModels(
        trained=trained,
        randomised=randomised,
        prepare=lambda images: prepare_inputs(images, config),
        layer=choose_cam_layer(trained[0], config.whole("image_size")),
    )


def make_logits(study: OpenStudy, runs: Sequence[TrialRecord], num_classes: int) -> ComputeLogits:
    """Return the function that asks every run's model, on CUDA where there is a device: (n, H, W, 3) to (S, n, K) logits."""
    device = find_device()
    models = [place_model(load_model(study, r, num_classes), r.config, device).eval() for r in runs]

    def ask(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        tensor, indices = torch.from_numpy(images), np.arange(len(images))
        return np.stack(
            [
                compute_logits(model, tensor, indices, run.config, device, BATCH_SIZE).astype(np.float64)
                for model, run in zip(models, runs, strict=True)
            ]
        )

    return ask
