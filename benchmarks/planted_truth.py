"""Models trained on planted scenes whose shortcut or confusing cue is known: what the audits and the root cause make of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from analysis.clever_hans import audit_rings
from analysis.cues import CUES
from analysis.findings import AuditVerdict
from analysis.frequency_audit import audit_frequencies
from analysis.metrics import FloatArray, IntArray
from analysis.ring_swaps import Images
from analysis.root_cause import find_root_cause
from analysis.swap_effects import AuditImages
from benchmarks.throughput import make_config
from search_spaces.config import Value
from trainables.evaluation import compute_logits
from trainables.loop import TrainingRun, TrialData
from trainables.sources.planted import PlantedScenes, make_planted_scenes
from trainables.splits import make_splits

IMAGE_SIZE = 32
NUM_TRAINING = 1200
NUM_AUDITED = 600
# At this size float32 is the faster; four epochs are enough to read most of the cues.
TRAINING: Mapping[str, Value] = {
    "batch_size": 64,
    "max_epochs": 4,
    "brightness_fraction": 0.0,
    "precision": "fp32",
    "channels_last": False,
}
MAX_LR = 0.05
# Cues of the object in the worlds of the audit; what surrounds it says nothing unless it is the shortcut.
OBJECT_CUES = {"shape": 0.85, "texture": 0.6, "colour": 0.5, "background": 0.0}
CONTROL = "control"
RING_SHORTCUTS = ("corner_patch", "frame", "background")
REGIONS = {"corner_patch": "top left corner", "frame": "all around", "background": "all around"}
# How the cue of a scene is called by the root cause.
CAUSES = {"texture": "texture", "shape": "shape", "colour": "colour", "background": "context"}
PAIRS_PER_WORLD = 3

Ask = Callable[[Images], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedWorld:
    """Scenes with a shortcut, "corner_patch", "frame", "background" or "sinusoid", at `rho`; or the control: all at random."""

    shortcut: str
    rho: float = 0.0
    num_models: int = 3

    def describe(self) -> dict[str, Mapping[str, float]]:
        """Return the correlations of cues and shortcuts, for `make_planted_scenes`."""
        if self.shortcut == CONTROL:
            return {
                "cue_correlation": OBJECT_CUES,
                "shortcuts": dict.fromkeys(("corner_patch", "frame", "sinusoid"), 0.0),
            }
        if self.shortcut == "background":
            return {"cue_correlation": {**OBJECT_CUES, "background": self.rho}, "shortcuts": {}}
        return {"cue_correlation": OBJECT_CUES, "shortcuts": {self.shortcut: self.rho}}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOutcome:
    """What the audits say of the models of one world.

    Attributes:
        accuracy: mean of the models on scenes of their world.
        gaps: of the rings, narrow first, over all classes.
        fails: whether each ring says FAIL; `confirmed`: and whether some class is confirmed.
        region: that the narrow ring names, "" where it does not fail.
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
    """Scenes in which models learn `cue`, and are asked where it says nothing and another cue tells the class."""

    cue: str
    num_models: int = 4
    learnt: Mapping[str, float] = field(init=False)
    asked: Mapping[str, float] = field(init=False)

    def __post_init__(self) -> None:
        anchor = "colour" if self.cue == "shape" else "shape"
        nothing = dict.fromkeys(CAUSES, 0.0)
        object.__setattr__(self, "learnt", {**nothing, self.cue: 0.9, anchor: 0.6})
        object.__setattr__(self, "asked", {**nothing, anchor: 1.0})


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseOutcome:
    """What the root cause says of one confused pair: the cue that comes first, and the one that is named, "mixed" if none."""

    first: str
    named: str
    num_images: int


def audit_world(world: AuditedWorld, seed: int) -> AuditOutcome:
    """Train the world's models and return what the audits say of them on scenes that they have not seen."""
    ask = train_models(
        make_planted_scenes(seed=2 * seed, num_images=NUM_TRAINING, **world.describe()), world.num_models
    )
    what = _look_at(make_planted_scenes(seed=2 * seed + 1, num_images=NUM_AUDITED, **world.describe()))

    def classify(images: Images) -> IntArray:
        return np.asarray(ask(images).argmax(axis=2), dtype=np.int64)

    rings = audit_rings(classify, what, seed=seed)
    waves = audit_frequencies(classify, what, seed=seed)
    return AuditOutcome(
        accuracy=float(np.mean(classify(what.images) == what.labels)),
        gaps=tuple(ring.gap.estimate for ring in rings),
        fails=tuple(ring.verdict is AuditVerdict.FAIL for ring in rings),
        confirmed=tuple(any(c.is_confirmed for c in ring.classes) for ring in rings),
        region=rings[0].region,
        frequency_gap=waves.gap.estimate,
        frequency_fails=waves.verdict is AuditVerdict.FAIL,
    )


def explain_world(world: ConfusedWorld, seed: int) -> tuple[CauseOutcome, ...]:
    """Train the world's models and return the root cause of the pairs that they confuse most."""
    learnt = make_planted_scenes(seed=2 * seed, num_images=NUM_TRAINING, cue_correlation=dict(world.learnt))
    what = _look_at(
        make_planted_scenes(seed=2 * seed + 1, num_images=2 * NUM_AUDITED, cue_correlation=dict(world.asked))
    )
    ask = train_models(learnt, world.num_models)
    choosing = world.num_models // 3
    said = np.asarray(ask(what.images).argmax(axis=2), dtype=np.int64)[:choosing]

    def measure(images: Images) -> FloatArray:
        return ask(images)[choosing:]

    outcomes = []
    for pair in _find_most_confused(said, what.labels):
        found = find_root_cause(said, measure, what, pair, [pair], seed=seed)
        if found.effects:
            first = max(found.effects, key=lambda e: e.effect.estimate).cue
            outcomes.append(CauseOutcome(first=first, named=found.cause, num_images=found.num_images))
    return tuple(outcomes)


def train_runs(scenes: PlantedScenes, number: int) -> list[TrainingRun]:
    """Return `number` finished runs of ResNet18 on the scenes, from scratch, which differ in their seed."""
    image_set = scenes.image_set
    splits = make_splits(image_set, seed=0, search_fraction=0.02, confirm_fraction=0.02, test_fraction=0.02)
    data = TrialData(images=image_set.images, labels=image_set.labels, splits=splits, class_names=image_set.class_names)
    config = make_config("resnet18", IMAGE_SIZE, max_lr=MAX_LR, **TRAINING)
    runs = [TrainingRun(config.with_seed(seed), data, device=torch.device("cpu")) for seed in range(number)]
    for run in runs:
        while not run.is_finished:
            run.run_epoch()
    return runs


def train_models(scenes: PlantedScenes, number: int) -> Ask:
    """Return the function that asks `number` models trained on the scenes: (n, H, W, 3) images to (S, n, 10) logits."""
    # Worlds run beside each other, one on each core.
    torch.set_num_threads(1)
    runs = train_runs(scenes, number)

    def ask(images: Images) -> FloatArray:
        tensor, indices = torch.from_numpy(images), np.arange(len(images))
        logits = [compute_logits(run.model, tensor, indices, run.config, run.device, 256) for run in runs]
        return np.stack(logits).astype(np.float64)

    return ask


def _look_at(scenes: PlantedScenes) -> AuditImages:
    found = scenes.image_set
    return AuditImages(images=found.images, labels=found.labels, class_names=found.class_names, masks=found.masks)


def _find_most_confused(said: IntArray, labels: IntArray) -> Sequence[tuple[int, int]]:
    """Return the pairs of classes that the (S, N) answers exchange most."""
    num_classes = int(labels.max()) + 1
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (np.tile(labels, (len(said), 1)), said), 1)
    exchanged = np.triu(counts + counts.T, k=1)
    order = np.argsort(-exchanged, axis=None, kind="stable")[:PAIRS_PER_WORLD]
    return [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, exchanged.shape), strict=True)]


assert set(CAUSES.values()) == set(CUES)
