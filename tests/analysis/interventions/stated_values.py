"""What was stated about an intervention and what was measured, with the fields that a test is about."""

from typing import Any

from analysis.comparison.values import Verdict
from analysis.interventions.values import (
    InterventionEffect,
    Outcome,
    Prediction,
    StatedIntervention,
    Target,
    TargetEffect,
    TargetKind,
)
from analysis.statistics.interval import Interval
from tests.built_values import interval_around

TARGET = Target(kind=TargetKind.CELLS, classes=("cat",), cells=(("cat", "dog"),))


def make_target_effect(
    estimate: float, width: float = 0.02, verdict: Verdict = Verdict.BETTER, **changes: Any
) -> TargetEffect:
    """Return a change of a target's share, which was 0.1 - `estimate`."""
    values = {"treatment": 0.1, "control": 0.1 - estimate, "confidence": 0.95, "num_seeds": 4, "num_images": 300}
    return TargetEffect(effect=interval_around(estimate, width), verdict=verdict, **values | changes)


def stated_of(arm: str, **changes: Any) -> StatedIntervention:
    """Return an intervention on the cats that are predicted as dogs, without a prediction."""
    values: dict[str, Any] = {"title": arm, "symptom": "", "diagnosis": "", "verdict": "MATERIAL", "changes": {}}
    values |= {"target": TARGET, "spares": "", "prediction": Prediction(effect=None, basis=""), "refuted_by": ""}
    return StatedIntervention(arm=arm, **values | {"is_seen": False, "num_target_images": 300} | changes)


def effect_of(
    stated: StatedIntervention,
    macro_f1: Interval | None,
    verdict: Verdict | None,
    target: TargetEffect | None,
    **changes: Any,
) -> InterventionEffect:
    """Return what was measured of an intervention, without collateral."""
    values: dict[str, Any] = {"macro_f1": macro_f1, "macro_f1_verdict": verdict, "target": target}
    values |= {"outcome": Outcome.NONE, "collateral": None, "ring_gap": None, "cost_ratio": 1.0, "device_seconds": 1.0}
    return InterventionEffect(stated=stated, **values | {"note": ""} | changes)
