"""Models trained on planted scenes whose shortcut is known, and the results of their audits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.audits.frequency_audit import audit_frequencies
from analysis.audits.ring_audit import audit_rings
from analysis.audits.ring_swaps import Images
from analysis.findings.forensic_findings import AuditVerdict
from analysis.statistics.metrics import IntArray
from benchmarks.validation.planted_models import (
    CLEAR,
    FIRST_WORLD,
    NUM_AUDITED,
    NUM_TRAINING,
    make_predict,
    to_audit_images,
    train_runs,
)
from trainables.data.sources.planted import make_planted_scenes

# Cues of the object in the worlds of the audit; its surroundings are random unless they are the shortcut.
OBJECT_CUES = {"shape": 0.85, "texture": 0.6, "colour": 0.5, "background": 0.0}
CONTROL = "control"
RING_SHORTCUTS = ("corner_patch", "frame", "background")
REGIONS = {"corner_patch": "top left corner", "frame": "all around", "background": "all around"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedWorld:
    """Scenes with a shortcut, "corner_patch", "frame", "background" or "sinusoid", at `rho`; in the control all are random.

    `weights` are the initial ones of the backbone: random for None, or a file of `pretrain`.
    """

    shortcut: str
    rho: float = 0.0
    num_models: int = 3
    weights: Path | None = None

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
