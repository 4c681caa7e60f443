"""`Findings`: the values behind the report of one study. Computed in other packages; rendered in `analysis.report`."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from analysis.findings.class_findings import ClassScore, ConfusedPair, Confusion, ConfusionCluster, LabelIssue
from analysis.findings.comparison_findings import ComparisonRow
from analysis.findings.forensic_findings import (
    CamAdmission,
    CamPanel,
    ColourLoss,
    FrequencyAudit,
    GroupContrast,
    PairPull,
    RingAudit,
    RootCause,
)
from analysis.findings.interval import Interval
from analysis.findings.search_findings import ParameterImportance, RungFinding, SearchArm, TuningCurve


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFinding:
    """What the confirmation runs say about one arm.

    Attributes:
        arm: name of the arm.
        trial_id: the search trial whose configuration was confirmed.
        confirmation_ids: the confirmation trials, in the order of `seeds`.
        seeds: the paired seeds.
        hyperparameters: the winning configuration.
        search_macro_f1: its last-epoch macro-F1 on the search split (biased upward; never compared).
        confirm_macro_f1: mean over seeds on the confirm split.
        test_macro_f1: over seeds and images of the test split.
        class_scores: one per class.
        confusion: the confusion matrix.
        confused_pairs: pairs of classes that are confused more often than chance, the strongest first; None where not tested.
        clusters: groups of classes that such pairs hold together.
        ring_audits: the Clever Hans audit, one part per width of the ring; empty where it was not made.
        pulls: of the strongest confused pairs, both ways.
        root_causes: of the same pairs.
        group_contrasts: between the named groups of classes, where the image set has some.
        colour_losses: one per class; empty where the audit was not made.
        frequency_audit: None where the audit was not made.
        cam_admission: whether the arm's heat maps are evidence; None where that was not tested.
        gate_cleared: lower bound of `test_macro_f1` > gate; None without a gate.
        num_parameters: trainable parameters.
        forward_flops: floating-point operations of one image's forward pass, a multiplication and an addition counted as two.
        device_seconds: mean per confirmation run.
        train_images_per_second: median over epochs of the confirmation runs.
        predict_images_per_second: the same for predicting the search split, resizing included.
        points_per_device_hour: percentage points of macro-F1 on the test split per device-hour of a run.
        peak_memory_bytes: highest of the runs.
        device: the device's name.
    """

    arm: str
    trial_id: str
    confirmation_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    hyperparameters: dict[str, float | int | str | bool]
    search_macro_f1: float
    confirm_macro_f1: float
    test_macro_f1: Interval
    class_scores: tuple[ClassScore, ...]
    confusion: Confusion
    confused_pairs: tuple[ConfusedPair, ...] | None
    clusters: tuple[ConfusionCluster, ...]
    ring_audits: tuple[RingAudit, ...]
    pulls: tuple[PairPull, ...]
    root_causes: tuple[RootCause, ...]
    group_contrasts: tuple[GroupContrast, ...]
    colour_losses: tuple[ColourLoss, ...]
    frequency_audit: FrequencyAudit | None
    cam_admission: CamAdmission | None
    gate_cleared: bool | None
    num_parameters: int
    forward_flops: int
    device_seconds: float
    train_images_per_second: float
    predict_images_per_second: float
    points_per_device_hour: float
    peak_memory_bytes: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything the report says about one study.

    Attributes that do not speak for themselves: `search_notes` are sentences about the search's plots and importances (what
    could not be drawn, what is inexact); `search_page` is the file name of the interactive plots beside the report, "" if
    there is none; `allocation` is "per_arm", "pooled" or "given" (nothing was searched); `warm_start` is the study
    from whose trials the samplers started, "" if none; `basis` is a digest of what all this was computed from, with which code
    and versions (`study.results.findings.digest_basis`).
    """

    study: str
    created: str
    class_names: tuple[str, ...]
    factor: str
    gate: float | None
    search: tuple[SearchArm, ...]
    rungs: tuple[int, ...]
    rung_findings: tuple[RungFinding, ...]
    importances: tuple[ParameterImportance, ...]
    tuning_curves: tuple[TuningCurve, ...]
    search_notes: tuple[str, ...]
    search_page: str
    allocation: str
    warm_start: str
    arms: tuple[ArmFinding, ...]
    rows: tuple[ComparisonRow, ...]
    human_note: str
    audit_note: str
    label_issues: tuple[LabelIssue, ...]
    panels: tuple[CamPanel, ...]
    cam_note: str
    num_test_reads: int
    warnings: tuple[str, ...]
    figures: dict[str, str]
    passport: dict[str, Any]
    basis: str = ""

    def to_json(self) -> str:
        """Return findings.json: sorted keys, two-space indent, no NaN (absent values are null)."""
        return json.dumps(_plain(dataclasses.asdict(self)), indent=2, sort_keys=True, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Turn tuples into lists and non-finite floats into None, for strict JSON."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
