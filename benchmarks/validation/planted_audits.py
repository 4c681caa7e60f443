"""Models trained on planted scenes whose shortcut is known, and the results of their audits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.shortcuts.frequency_audit import judge_frequencies, measure_frequencies
from analysis.shortcuts.ring_audit import RingMeasurement, judge_ring, measure_rings
from analysis.shortcuts.swaps import AuditImages, Images
from analysis.shortcuts.values import AuditVerdict, ClassAudit, ClassGap
from analysis.statistics.metrics import IntArray
from benchmarks.validation.planted_models import CLEAR, FIRST_WORLD, NUM_AUDITED, NUM_TRAINING, make_predict, train_runs
from trainables.data.sources.planted_scenes import make_planted_scenes

# Cues of the object in the worlds of the audit; its surroundings are random unless they are the shortcut.
OBJECT_CUES = {"shape": 0.85, "texture": 0.6, "color": 0.5, "background": 0.0}
CONTROL = "control"
# At this scale, the objects of seven scenes in ten reach the ring of 4 pixels, and nearly all reach that of 6.
REACHING_SCALE = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedWorld:
    """Scenes with a shortcut, and what the audit is given.

    Attributes:
        shortcut: "corner_patch", "frame", "background" or "sinusoid"; in the control all are random.
        rho: correlation of the shortcut with the class.
        only_class: the one class that the shortcut indicates; "" for all classes.
        reaches_ring: whether objects reach the ring.
        has_masks: whether the audit is given the masks of the objects.
        num_models: seeds.
        weights: initial ones of the backbone: random for None, or a file of `pretrain`.
    """

    shortcut: str
    rho: float = 0.0
    only_class: str = ""
    reaches_ring: bool = False
    has_masks: bool = True
    num_models: int = 3
    weights: Path | None = None

    def describe(self) -> dict[str, Any]:
        """Return the options of `make_planted_scenes`."""
        options: dict[str, Any] = {
            "cue_correlation": OBJECT_CUES,
            "object_scale": REACHING_SCALE if self.reaches_ring else 1.0,
        }
        if self.only_class:
            options["cue_classes"] = {self.shortcut: (self.only_class,)}
        if self.shortcut == CONTROL:
            return options | {"shortcuts": dict.fromkeys(("corner_patch", "frame", "sinusoid"), 0.0)}
        if self.shortcut == "background":
            return options | {"cue_correlation": {**OBJECT_CUES, "background": self.rho}}
        clear = CLEAR if self.shortcut == "sinusoid" else {}
        return options | {"shortcuts": {self.shortcut: self.rho}, **clear}


@dataclass(frozen=True, slots=True, kw_only=True)
class RingOutcome:
    """Results at one ring width; they are about the planted classes, or about all classes where all are planted or none.

    Attributes:
        gap: mean over the planted classes.
        highest_gap: of any class.
        fails: whether a planted class fails for these models.
        is_confirmed: whether a planted class does so without object in the ring.
        recipe_confirmed: the same for the recipe.
        first_confirmed: the same for the first model alone.
        region: that is named, "" where no class fails.
    """

    gap: float
    highest_gap: float
    fails: bool
    is_confirmed: bool
    recipe_confirmed: bool
    first_confirmed: bool
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOutcome:
    """Results of the audits of the models of one world.

    Attributes:
        accuracy: mean of the models on scenes of their world.
        rings: the narrow and the wide one.
        frequency_gap: mean over the planted classes.
        frequency_fails: whether a planted class fails the frequency test for these models.
        frequency_recipe_fails: the same for the recipe.
    """

    accuracy: float
    rings: tuple[RingOutcome, ...]
    frequency_gap: float
    frequency_fails: bool
    frequency_recipe_fails: bool


def audit_world(world: AuditedWorld, seed: int) -> AuditOutcome:
    """Train the world's models and return the results of their audits on scenes that they were not trained on."""
    seed += FIRST_WORLD
    training = make_planted_scenes(seed=2 * seed, num_images=NUM_TRAINING, **world.describe()).image_set
    predict = make_predict(train_runs(training, world.num_models, world.weights))
    scenes = make_planted_scenes(seed=2 * seed + 1, num_images=NUM_AUDITED, **world.describe()).image_set
    audited = AuditImages(
        images=scenes.images,
        labels=scenes.labels,
        class_names=scenes.class_names,
        masks=scenes.masks if world.has_masks else None,
    )

    def classify(images: Images) -> IntArray:
        return np.asarray(predict(images).argmax(axis=2), dtype=np.int64)

    planted = (world.only_class,) if world.only_class else scenes.class_names
    measured = measure_frequencies(classify, audited, seed=seed)
    assert measured is not None
    waves = [c for c in judge_frequencies(measured).classes if c.class_name in planted]
    return AuditOutcome(
        accuracy=float(np.mean(classify(audited.images) == audited.labels)),
        rings=tuple(conclude_ring(ring, planted) for ring in measure_rings(classify, audited, seed=seed)),
        frequency_gap=_average(waves),
        frequency_fails=any(c.verdict is AuditVerdict.FAIL for c in waves),
        frequency_recipe_fails=any(c.recipe_verdict is AuditVerdict.FAIL for c in waves),
    )


def conclude_ring(measured: RingMeasurement, planted: Sequence[str]) -> RingOutcome:
    """Return the results of a ring audit about the planted classes."""
    audit, first = judge_ring(measured), judge_ring(measured.take_first())
    own = [c for c in audit.classes if c.class_name in planted]
    return RingOutcome(
        gap=_average(own),
        highest_gap=max(c.gap.estimate for c in audit.classes),
        fails=any(c.verdict is AuditVerdict.FAIL for c in own),
        is_confirmed=any(c.is_confirmed for c in own),
        recipe_confirmed=any(c.recipe_confirmed for c in own),
        first_confirmed=any(c.is_confirmed for c in first.classes if c.class_name in planted),
        region=audit.region,
    )


def _average(classes: Sequence[ClassAudit] | Sequence[ClassGap]) -> float:
    return float(np.mean([c.gap.estimate for c in classes]))
