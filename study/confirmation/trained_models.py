"""Models of finished trials, rebuilt from their stored weights."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import nn

from trainables.data.image_array import ImageArray
from trainables.models.backbones import build_model, place_model
from trainables.models.heads import fold_batch_norm
from trainables.records.record import TrialRecord
from trainables.records.trial_files import TrialFiles
from trainables.training.evaluation import compute_logits
from trainables.training.trainable import GuardedTrainable, is_own_loop
from trainables.training.trial_data import place_images
from trainables.training.trial_run import unpack_state

# Maps (N, H, W, 3) uint8 images and (n,) indices of some of them to (n, K) float32 logits.
Classifier = Callable[[ImageArray, NDArray[np.int64]], NDArray[np.float32]]


def load_model(files: TrialFiles, record: TrialRecord, num_classes: int) -> nn.Module:
    """Return a trial's final model on the CPU.

    Args:
        files: of the trial.
        record: of the trial: its configuration, and the digests that its weights must have.
        num_classes: K, the outputs of the model.

    Raises:
        DamagedFileError: naming weights that are missing or are not those that were stored.
    """
    return files.load_weights(build_model(record.config, num_classes, weights="none"), record.digests)


def load_classifier(
    files: TrialFiles,
    record: TrialRecord,
    num_classes: int,
    device: torch.device,
    batch_size: int,
    *,
    folds: bool = False,
) -> Classifier:
    """Return the function by which a trial's final model classifies images, whatever loop trained it.

    Args:
        files: of the trial.
        record: of the trial.
        num_classes: K.
        device: that a network computes on.
        batch_size: images per step of a network.
        folds: whether rounding may differ from that of the trial, for the sake of speed (`fold_batch_norm`).

    Raises:
        DamagedFileError: naming weights that are missing or are not those that were stored.
        UserInputError: if the trial's custom loop cannot be used here.
    """
    config = record.config
    if is_own_loop(config):
        loop = GuardedTrainable(config.word("trainable"), num_classes)
        loop.restore(unpack_state(load(files.read_weights(record.digests))))
        return lambda images, indices: loop.predict(images[indices])
    loaded = load_model(files, record, num_classes)
    model = place_model(fold_batch_norm(loaded, config) if folds else loaded, config, device).eval()

    def classify(images: ImageArray, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return compute_logits(model, place_images(images, device), indices, config, device, batch_size)

    return classify
