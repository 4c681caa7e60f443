"""The models of an arm's confirmation trials, ready to classify images."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.audits.confused_images import ComputeLogits
from analysis.audits.ring_swaps import Images
from analysis.heat_maps.grad_cam import choose_cam_layer
from analysis.heat_maps.validity_tests import CamModels
from search_spaces.config import TrialConfig
from study.confirmation.trained_models import load_model
from study.open_study import OpenStudy, trial_files
from trainables.data.augmentation import prepare_batch
from trainables.models.backbones import build_model, place_model
from trainables.records.record import TrialRecord
from trainables.seeds import derive_seed
from trainables.training.evaluation import compute_logits

BATCH_SIZE = 256


def prepare_inputs(images: Images, config: TrialConfig) -> torch.Tensor:
    """Return (n, 3, S, S) network inputs for (n, H, W, 3) images, as the configuration's model is evaluated."""
    return prepare_batch(
        torch.from_numpy(images),
        image_size=config.whole("image_size"),
        interpolation=config.word("interpolation"),
        channels_last=bool(config["channels_last"]),
    )


def load_cam_models(study: OpenStudy, runs: Sequence[TrialRecord], num_classes: int) -> CamModels:
    """Return the models of `runs` with an untrained one of the same architecture for each.

    Args:
        study: that the trials belong to.
        runs: complete confirmation trials of one configuration.
        num_classes: K.

    Raises:
        NoCamLayerError: if no layer's maps are large enough for a heat map.
    """
    device = _find_device()
    config = runs[0].config
    trained = _place_models(study, runs, num_classes, device)
    randomized = []
    for run in runs:
        # This text seeds the parameters of earlier studies too, so it keeps its spelling.
        fresh = run.config.with_seed(derive_seed(run.config.seed, "parameter randomisation"))
        randomized.append(place_model(build_model(fresh, num_classes, weights="none"), fresh, device).eval())
    return CamModels(
        trained=trained,
        randomized=randomized,
        prepare=lambda images: prepare_inputs(images, config),
        layer=choose_cam_layer(trained[0], config.whole("image_size")),
    )


def make_logits(study: OpenStudy, runs: Sequence[TrialRecord], num_classes: int) -> ComputeLogits:
    """Return the function that maps (n, H, W, 3) images to the (S, n, K) logits of the S models of `runs`.

    The models are on CUDA where there is a device.
    """
    device = _find_device()
    models = _place_models(study, runs, num_classes, device)

    def compute(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        tensor, indices = torch.from_numpy(images), np.arange(len(images))
        return np.stack(
            [
                compute_logits(model, tensor, indices, run.config, device, BATCH_SIZE).astype(np.float64)
                for model, run in zip(models, runs, strict=True)
            ]
        )

    return compute


def _place_models(
    study: OpenStudy, runs: Sequence[TrialRecord], num_classes: int, device: torch.device
) -> list[torch.nn.Module]:
    return [place_model(load_model(trial_files(study, r), r, num_classes), r.config, device).eval() for r in runs]


def _find_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
