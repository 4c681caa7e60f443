"""Models trained on planted scenes: what every planted world needs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.shortcuts.swaps import AuditImages, Images
from analysis.statistics.metrics import FloatArray
from benchmarks.performance.reference_recipe import make_config
from search_spaces.config import Value
from trainables.data.images import ImageSet
from trainables.data.sources.planted_scenes import make_planted_scenes
from trainables.data.splits import make_splits
from trainables.models.backbones import place_model
from trainables.training.evaluation import compute_logits
from trainables.training.loop import TrainingRun
from trainables.training.trial_data import TrialData

IMAGE_SIZE = 32
# Worlds with smaller numbers were used to choose the removals of cues and the rule of regions; they must not count.
FIRST_WORLD = 100
NUM_TRAINING = 800
NUM_AUDITED = 500
# Training is as fast in float32 at this size; predictions are in the default precision, as everywhere in the product.
PLAIN: Mapping[str, Value] = {"precision": "fp32", "channels_last": False}
TRAINING: Mapping[str, Value] = {"batch_size": 32, "brightness_fraction": 0.0, **PLAIN}
MAX_LR = 0.02
MAX_EPOCHS = 4
# ResNet18 needs far more steps to learn texture, shape and faint waves than the worlds have, so there it starts from a backbone
# that has learned them.
NUM_PRETRAINING = 4000
PRETRAINING_EPOCHS = {"texture": 6, "shape": 6, "sinusoid": 10}
# Worlds of waves and causes are clearer than the audit's: their cue is learned in fewer steps.
CLEAR: Mapping[str, Any] = {"noise_std": 5.0, "num_distractors": 0}

# The cues of a scene.
SCENE_CUES = ("shape", "texture", "color", "background")

Predict = Callable[[Images], FloatArray]


def to_audit_images(scenes: ImageSet) -> AuditImages:
    """Return the scenes with their masks as images of an audit."""
    return AuditImages(images=scenes.images, labels=scenes.labels, class_names=scenes.class_names, masks=scenes.masks)


def pretrain(cue: str, file: Path) -> None:
    """Write the weights of a ResNet18 that has learned one cue or shortcut from clear scenes without any other."""
    cues, shortcuts = ({}, {cue: 1.0}) if cue == "sinusoid" else ({cue: 1.0}, {})
    scenes = make_planted_scenes(
        seed=10**6,
        num_images=NUM_PRETRAINING,
        cue_correlation=dict.fromkeys(SCENE_CUES, 0.0) | cues,
        shortcuts=shortcuts,
        **CLEAR,
    )
    (run,) = train_runs(scenes.image_set, 1, max_epochs=PRETRAINING_EPOCHS[cue])
    torch.save(run.state_dict(), file)


def train_runs(
    image_set: ImageSet, number: int, weights: Path | None = None, max_epochs: int = MAX_EPOCHS
) -> list[TrainingRun]:
    """Return `number` finished runs of ResNet18 on the scenes, which differ in their seed."""
    splits = make_splits(image_set, seed=0, search_fraction=0.02, confirm_fraction=0.02, test_fraction=0.02)
    data = TrialData(images=image_set.images, labels=image_set.labels, splits=splits, class_names=image_set.class_names)
    config = make_config("resnet18", IMAGE_SIZE, max_lr=MAX_LR, max_epochs=max_epochs, **TRAINING)
    device, start = torch.device("cpu"), str(weights or "none")
    runs = [TrainingRun(config.with_seed(seed), data, device=device, weights=start) for seed in range(number)]
    for run in runs:
        while not run.is_finished:
            run.run_epoch()
    return runs


def make_predict(runs: Sequence[TrainingRun]) -> Predict:
    """Return a function from (n, H, W, 3) images to (S, n, 10) logits of the runs' models."""
    config = make_config("resnet18", IMAGE_SIZE)
    for run in runs:
        place_model(run.model, config, run.device)

    def predict(images: Images) -> FloatArray:
        tensor, indices = torch.from_numpy(images), np.arange(len(images))
        logits = [compute_logits(run.model, tensor, indices, config, run.device, 256) for run in runs]
        return np.stack(logits).astype(np.float64)

    return predict
