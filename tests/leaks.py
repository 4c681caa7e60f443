"""What near-duplicates in two splits do to a score, on folders whose objects are known: ``python -m tests.leaks``.

A study's probe and its interval, for new objects, beside its macro-F1 on photographs of twice as many new objects.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from analysis.confusions.class_scores import compute_macro_f1_intervals
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.interval import Interval
from benchmarks.quality.drawn_sets import find_data
from study.inputs.preparation import assemble, load_images, load_split_images, locate_weights
from study.spec.study_spec import StudySpec, list_backbone_configs
from tests.tile_folder import TILES, write_tile_folder
from trainables.models.backbones import build_model
from trainables.training.evaluation import compute_mean_f1
from trainables.training.frozen_features import borrow_backbone
from trainables.training.linear_probe import identify_images, measure_probe
from trainables.training.trial_data import place_images

CPU = torch.device("cpu")
CHOICES = ("group", "ignore")
# The seen folder has twice the objects of the review's, and the new one twice as many again.
TIMES, NUM_NEW, CONFIDENCE, IMAGE_SIZE = 2, 2, 0.95, 64
# Defects so faint that a probe knows photographs of a tile that it has seen far better than others; chosen on world 0.
STRENGTH = 0.3


@dataclass(frozen=True, slots=True)
class LeakOutcome:
    """The probe's macro-F1 on the test split, with its interval for new objects, and on photographs of new objects."""

    judged: Interval
    truth: float

    @property
    def is_covered(self) -> bool:
        """Whether the interval has the truth."""
        return self.judged.low <= self.truth <= self.judged.high


def judge_leaks(seed: int, choice: str, weights: Path, folder: Path) -> LeakOutcome:
    """Return how the linear probe on ResNet18 is judged in a world.

    Args:
        seed: of the world and of its splits.
        choice: of `data.near_duplicates`.
        weights: folder of the pretrained weights.
        folder: where the world is written, unless it is there.
    """
    for name, times, offset in (("seen", TIMES, 0), ("new", NUM_NEW * TIMES, 1000)):
        if not (folder / name).exists():
            tiles = {kind: (times * objects, lights) for kind, (objects, lights) in TILES.items()}
            write_tile_folder(folder / name, tiles, seed=seed + offset, strength=STRENGTH)
    spec = _make_spec(seed, choice, weights, folder / "seen")
    image_set, splits = load_split_images(spec)
    prepared = assemble(spec, image_set, splits, locate_weights(spec.model.weights))
    (arm,) = (arm for arm in spec.arms() if arm.name == "resnet18")
    (config,) = list_backbone_configs(arm, arm.space.middle(), prepared.fixed)
    model, data = build_model(config, image_set.num_classes, weights=prepared.weights), prepared.data
    with borrow_backbone(model, config, CPU) as backbone:
        images = place_images(data.images, CPU)
        head = measure_probe(backbone, data, images)
        test = head.compute_logits(backbone.compute_part(images, splits.test, identify_images(data))).argmax(axis=1)
        new = load_images(_make_spec(seed, choice, weights, folder / "new"))
        everything = np.arange(len(new.labels))
        predicted = head.compute_logits(
            backbone.compute_part(place_images(new.images, CPU), everything, f"new {seed}")
        ).argmax(axis=1)
    arm_predictions = ArmPredictions(
        name="probe",
        seeds=(0,),
        labels=data.labels[splits.test],
        sample_ids=splits.test,
        predicted=test[None].astype(np.int64),
        num_classes=image_set.num_classes,
        groups=None if data.groups is None else data.groups[splits.test],
    )
    judged = compute_macro_f1_intervals(arm_predictions, CONFIDENCE).models
    return LeakOutcome(judged, compute_mean_f1(new.labels, predicted.astype(np.int64), image_set.num_classes))


def _make_spec(seed: int, choice: str, weights: Path, path: Path) -> StudySpec:
    """Return a spec that tests half of the images, as `study init` proposes it for so few."""
    data = {"source": "folder", "path": str(path), "test_fraction": 0.5, "aspect": "squash", "near_duplicates": choice}
    train, search = {"image_size": IMAGE_SIZE}, {"factor": "backbone"}
    return StudySpec(name="leaks", seed=seed, data=data, model={"weights": str(weights)}, train=train, search=search)


def main(worlds: Annotated[int, typer.Option(min=1, help="How many folders of other objects.")] = 10) -> None:
    """Print the intervals, and in how many worlds they have the truth. Needs the folder named by STUDY_DATA."""
    weights, covered = find_data() / "weights", dict.fromkeys(CHOICES, 0)
    with tempfile.TemporaryDirectory() as root:
        for seed in range(1, worlds + 1):
            said = []
            for choice in CHOICES:
                found = judge_leaks(seed, choice, weights, Path(root) / str(seed))
                covered[choice] += found.is_covered
                low, high = found.judged.low, found.judged.high
                said.append(
                    f"{choice} {found.judged.estimate:.2f} [{low:.2f}, {high:.2f}], new objects {found.truth:.2f}"
                )
            print(f"world {seed}: {'; '.join(said)}", flush=True)
    print("; ".join(f"{choice}: the truth is covered in {n} of {worlds}" for choice, n in covered.items()))


if __name__ == "__main__":
    typer.run(main)
