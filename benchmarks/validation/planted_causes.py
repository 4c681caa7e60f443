"""Models trained on planted scenes whose confusing cue is known, and the root causes that are found."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.audits.cues import CUES
from analysis.audits.root_cause import find_root_cause
from analysis.audits.swap_effects import AuditImages
from analysis.statistics.metrics import IntArray
from benchmarks.validation.planted_models import (
    CLEAR,
    FIRST_WORLD,
    IMAGE_SIZE,
    NUM_AUDITED,
    NUM_TRAINING,
    make_predict,
    train_runs,
)
from trainables.data.images import ImageSet
from trainables.data.sources.planted import make_planted_scenes
from trainables.data.sources.planted_drawing import NUM_VALUES, SHAPES, draw_scenes
from trainables.seeds import numpy_generator

# The cue of a scene, and its name in the root cause.
CAUSES = {"texture": "texture", "shape": "shape", "colour": "colour", "background": "context"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedWorld:
    """Scenes in which `cue` predicts the class best, the anchor less well; in audited scenes `cue` shows a partner class.

    So models confuse each class with its partner because of the cue. Partners are five classes apart: no cue makes them similar.
    """

    cue: str
    num_models: int = 5
    weights: Path | None = None

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


assert set(CAUSES.values()) == set(CUES)
