"""The confirmed models of a study: loaded from their runs, and asked about images."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from analysis.root_cause import ComputeLogits
from study.lifecycle import OpenStudy
from study.paths import TrialPaths
from trainables.evaluation import compute_logits
from trainables.models import build_model, place_model
from trainables.record import TrialRecord
from trainables.trial_files import TrialFiles

BATCH_SIZE = 256


def load_model(study: OpenStudy, record: TrialRecord, num_classes: int) -> nn.Module:
    """Return a run's final model on the CPU; raise DamagedFileError naming weights that are missing or not what was stored."""
    files = TrialFiles(study.store.child(TrialPaths(stage=record.stage, trial_id=record.trial_id).folder))
    return files.load_weights(build_model(record.trial_config(), num_classes, weights="none"), record.digests)


def make_logits(study: OpenStudy, runs: Sequence[TrialRecord], num_classes: int) -> ComputeLogits:
    """Return the function that asks every run's model, on CUDA where there is a device: (n, H, W, 3) to (S, n, K) logits."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = [place_model(load_model(study, r, num_classes), r.trial_config(), device).eval() for r in runs]

    def ask(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        tensor, indices = torch.from_numpy(images), np.arange(len(images))
        return np.stack(
            [
                compute_logits(model, tensor, indices, run.trial_config(), device, BATCH_SIZE).astype(np.float64)
                for model, run in zip(models, runs, strict=True)
            ]
        )

    return ask
