"""Models trained on planted scenes whose shortcut or confusing cue is known, and the results of audits and root cause."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.audits.cues import CUES
from analysis.audits.frequency_audit import audit_frequencies
from analysis.audits.ring_audit import audit_rings
from analysis.audits.ring_swaps import Images
from analysis.audits.root_cause import find_root_cause
from analysis.audits.swap_effects import AuditImages
from analysis.findings.forensic_findings import AuditVerdict
from analysis.statistics.metrics import FloatArray, IntArray
from benchmarks.performance.reference_recipe import make_config
from search_spaces.config import Value
from trainables.data.images import ImageSet
from trainables.data.sources.planted import make_planted_scenes
from trainables.data.sources.planted_drawing import NUM_VALUES, SHAPES, draw_scenes
from trainables.data.splits import make_splits
from trainables.models.backbones import place_model
from trainables.seeds import numpy_generator
from trainables.training.evaluation import compute_logits
from trainables.training.loop import TrainingRun, TrialData

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
# Worlds of causes and waves are clearer than the audit's: their cue is learned in fewer steps.
CLEAR: Mapping[str, Any] = {"noise_std": 5.0, "num_distractors": 0}
# Cues of the object in the worlds of the audit; its surroundings are random unless they are the shortcut.
OBJECT_CUES = {"shape": 0.85, "texture": 0.6, "colour": 0.5, "background": 0.0}
CONTROL = "control"
RING_SHORTCUTS = ("corner_patch", "frame", "background")
REGIONS = {"corner_patch": "top left corner", "frame": "all around", "background": "all around"}
# The cue of a scene, and its name in the root cause.
CAUSES = {"texture": "texture", "shape": "shape", "colour": "colour", "background": "context"}

Predict = Callable[[Images], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedWorld:
    """Scenes with a shortcut, "corner_patch", "frame", "background" or "sinusoid", at `rho`; in the control all are random.

    `weights` are the initial ones of the backbone: "none", or a file of `pretrain`.
    """

    shortcut: str
    rho: float = 0.0
    num_models: int = 3
    weights: str = "none"

    def describe(self) -> dict[str, Any]:
        """Return the options of `make_planted_scenes`."""
        if self.shortcut == CONTROL:
            every = dict.fromkeys(("corner_patch", "frame", "sinusoid"), 0.0)
            return {"cue_correlation": OBJECT_CUES, "shortcuts": every}
        if self.shortcut == "background":
            return {"cue_correlation": {**OBJECT_CUES, "background": self.rho}}
        clear = CLEAR if self.shortcut == "sinusoid" else {}
        return {"cue_correlation": OBJECT_CUES, "shortcuts": {self.shortcut: self.rho}, **clear}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOutcome:
    """Results of the audits of the models of one world.

    Attributes:
        accuracy: mean of the models on scenes of their world.
        gaps: of the rings, narrow first, over all classes.
        fails, confirmed: whether the verdict of each ring is FAIL, and whether some class is confirmed.
        region: named by the narrow ring, "" where it does not fail.
        frequency_gap, frequency_fails: of the frequency test.
    """

    accuracy: float
    gaps: tuple[float, ...]
    fails: tuple[bool, ...]
    confirmed: tuple[bool, ...]
    region: str
    frequency_gap: float
    frequency_fails: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedWorld:
    """Scenes in which `cue` predicts the class best, the anchor less well; in audited scenes `cue` shows a partner class.

    So models confuse each class with its partner because of the cue. Partners are five classes apart: no cue makes them similar.
    """

    cue: str
    num_models: int = 5
    weights: str = "none"

    @property
    def anchor(self) -> str:
        """The cue that shows the class where the planted one does not."""
        return "colour" if self.cue == "shape" else "shape"

    def draw_training(self, seed: int) -> ImageSet:
        """Return scenes to train on."""
        correlation = dict.fromkeys(CAUSES, 0.0) | {self.cue: 0.95, self.anchor: 0.5}
        return make_planted_scenes(seed=seed, num_images=NUM_TRAINING, cue_correlation=correlation, **CLEAR).image_set

    def draw_audited(self, seed: int) -> AuditImages:
        """Return scenes whose anchor shows the class and whose planted cue shows its partner."""
        generator = numpy_generator(seed, "confused scenes")
        labels = np.arange(NUM_AUDITED, dtype=np.int64) % NUM_VALUES
        values = {cue: generator.integers(0, NUM_VALUES, NUM_AUDITED) for cue in CAUSES}
        values |= {self.anchor: labels, self.cue: find_partner(labels)}
        images, masks = draw_scenes(values, image_size=IMAGE_SIZE, generator=generator, **CLEAR)
        return AuditImages(images=images, labels=labels, class_names=SHAPES, masks=masks)


def find_partner(labels: IntArray) -> IntArray:
    """Return the class that the planted cue of each class shows."""
    return (labels + NUM_VALUES // 2) % NUM_VALUES


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseOutcome:
    """The root cause of one confused pair: the cue with the largest effect, and the one that is named, "mixed" if none is."""

    first: str
    named: str
    num_images: int


def audit_world(world: AuditedWorld, seed: int) -> AuditOutcome:
    """Train the world's models and return the results of their audits on scenes that they were not trained on."""
    seed += FIRST_WORLD
    training = make_planted_scenes(seed=2 * seed, num_images=NUM_TRAINING, **world.describe()).image_set
    predict = make_predict(train_runs(training, world.num_models, world.weights))
    seen = make_planted_scenes(seed=2 * seed + 1, num_images=NUM_AUDITED, **world.describe()).image_set
    audited = to_audit_images(seen)

    def classify(images: Images) -> IntArray:
        return np.asarray(predict(images).argmax(axis=2), dtype=np.int64)

    rings = audit_rings(classify, audited, seed=seed)
    waves = audit_frequencies(classify, audited, seed=seed)
    assert waves is not None
    return AuditOutcome(
        accuracy=float(np.mean(classify(audited.images) == audited.labels)),
        gaps=tuple(ring.gap.estimate for ring in rings),
        fails=tuple(ring.verdict is AuditVerdict.FAIL for ring in rings),
        confirmed=tuple(any(c.is_confirmed for c in ring.classes) for ring in rings),
        region=rings[0].region,
        frequency_gap=waves.gap.estimate,
        frequency_fails=waves.verdict is AuditVerdict.FAIL,
    )


def to_audit_images(scenes: ImageSet) -> AuditImages:
    """Return the scenes with their masks as images of an audit."""
    return AuditImages(images=scenes.images, labels=scenes.labels, class_names=scenes.class_names, masks=scenes.masks)


def explain_world(world: ConfusedWorld, seed: int) -> tuple[CauseOutcome, ...]:
    """Train the world's models and return the root cause of some pairs of partners."""
    seed += FIRST_WORLD
    runs = train_runs(world.draw_training(2 * seed), world.num_models, world.weights)
    audited = world.draw_audited(2 * seed + 1)
    third = world.num_models // 3
    predicted = np.asarray(make_predict(runs[:third])(audited.images).argmax(axis=2), dtype=np.int64)
    measure = make_predict(runs[third:])
    pairs = [(one, one + NUM_VALUES // 2) for one in range(NUM_VALUES // 2)]
    outcomes = []
    for pair in pairs:
        found = find_root_cause(predicted, measure, audited, pair, pairs, seed=seed)
        if found.effects:
            first = max(found.effects, key=lambda e: e.effect.estimate).cue
            outcomes.append(CauseOutcome(first=first, named=found.cause, num_images=found.num_images))
    return tuple(outcomes)


def pretrain(cue: str, folder: Path) -> str:
    """Return a file with the weights of a ResNet18 that has learned one cue or shortcut from clear scenes without any other."""
    cues, shortcuts = ({}, {cue: 1.0}) if cue == "sinusoid" else ({cue: 1.0}, {})
    scenes = make_planted_scenes(
        seed=10**6,
        num_images=NUM_PRETRAINING,
        cue_correlation=dict.fromkeys(CAUSES, 0.0) | cues,
        shortcuts=shortcuts,
        **CLEAR,
    )
    (run,) = train_runs(scenes.image_set, 1, max_epochs=PRETRAINING_EPOCHS[cue])
    file = folder / f"{cue}.pt"
    torch.save(run.state_dict(), file)
    return str(file)


def train_runs(
    image_set: ImageSet, number: int, weights: str = "none", max_epochs: int = MAX_EPOCHS
) -> list[TrainingRun]:
    """Return `number` finished runs of ResNet18 on the scenes, which differ in their seed."""
    splits = make_splits(image_set, seed=0, search_fraction=0.02, confirm_fraction=0.02, test_fraction=0.02)
    data = TrialData(images=image_set.images, labels=image_set.labels, splits=splits, class_names=image_set.class_names)
    config = make_config("resnet18", IMAGE_SIZE, max_lr=MAX_LR, max_epochs=max_epochs, **TRAINING)
    device = torch.device("cpu")
    runs = [TrainingRun(config.with_seed(seed), data, device=device, weights=weights) for seed in range(number)]
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


assert set(CAUSES.values()) == set(CUES)
