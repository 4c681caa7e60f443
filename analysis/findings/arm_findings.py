"""Findings about one arm: its scores and costs, its confusions, its audits, and all of them together."""

from dataclasses import dataclass

from analysis.findings.class_findings import (
    ClassScore,
    ConfusedPair,
    Confusion,
    ConfusionCluster,
    ConfusionExamples,
    DirectedConfusion,
)
from analysis.findings.forensic_findings import (
    CamAdmission,
    ColorLoss,
    FrequencyAudit,
    GroupContrast,
    PairPull,
    RingAudit,
    RootCause,
)
from analysis.findings.interval import TwoIntervals


@dataclass(frozen=True, kw_only=True)
class ArmScores:
    """Scores of one arm's confirmation trials, and what they cost.

    Attributes:
        arm: name of the arm.
        trial_id: the search trial whose configuration was confirmed.
        confirmation_ids: the confirmation trials, in the order of `seeds`.
        seeds: the paired seeds.
        hyperparameters: the winning configuration.
        search_macro_f1: its last-epoch macro-F1 on the search split (biased upward; never compared).
        confirm_macro_f1: mean over seeds on the confirm split.
        test_macro_f1: mean over seeds on the test split, with its intervals for both questions.
        class_scores: one per class.
        confusion: the confusion matrix.
        minimum_cleared: whether the lower bound of `test_macro_f1` for the recipe exceeds the minimum; None without a minimum.
        num_parameters: trainable parameters; 0 where a custom training loop does not tell them.
        forward_flops: floating-point operations of one image's forward pass, a multiplication and an addition counted as two;
            0 where a custom training loop has no network.
        device_seconds: mean per confirmation trial.
        train_images_per_second: median over epochs of the confirmation trials.
        predict_images_per_second: the same for predicting the search split, resizing included.
        points_per_device_hour: percentage points of macro-F1 on the test split per device-hour of a confirmation trial.
        peak_memory_bytes: highest of the confirmation trials.
        device: name of the device.
    """

    arm: str
    trial_id: str
    confirmation_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    hyperparameters: dict[str, float | int | str | bool]
    search_macro_f1: float
    confirm_macro_f1: float
    test_macro_f1: TwoIntervals
    class_scores: tuple[ClassScore, ...]
    confusion: Confusion
    minimum_cleared: bool | None
    num_parameters: int
    forward_flops: int
    device_seconds: float
    train_images_per_second: float
    predict_images_per_second: float
    points_per_device_hour: float
    peak_memory_bytes: int
    device: str


@dataclass(frozen=True, kw_only=True)
class ArmConfusions:
    """Which classes an arm confuses.

    Attributes:
        confused_pairs: pairs of classes with a confusion rate above chance, the strongest first.
        clusters: groups of classes that such pairs connect.
        group_contrasts: between the named groups of classes; empty where there are no groups.
        directed: cells of the confusion matrix, the highest rate first; empty in findings of versions that did not list them.
        num_directed: cells over which the intervals of `directed` are simultaneous, of which the highest and the material ones
            are listed.
        examples: test images of the cells, those cells first with the most images; empty in findings of versions that did not
            list them.
    """

    confused_pairs: tuple[ConfusedPair, ...]
    clusters: tuple[ConfusionCluster, ...]
    group_contrasts: tuple[GroupContrast, ...]
    directed: tuple[DirectedConfusion, ...] = ()
    num_directed: int = 0
    examples: tuple[ConfusionExamples, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ArmAudits:
    """Audits of one arm; the default is an arm that was not audited.

    Attributes:
        ring_audits: the Clever Hans audit, one per ring width.
        pulls: of the strongest confused pairs, both ways.
        root_causes: of the same pairs.
        color_losses: one per class.
        frequency_audit: None where the audit was not made.
        cam_admission: whether the arm's heat maps are evidence; None where that was not tested.
        exported: the audit of the exported model alone; None in findings of versions that did not give it.
    """

    ring_audits: tuple[RingAudit, ...] = ()
    pulls: tuple[PairPull, ...] = ()
    root_causes: tuple[RootCause, ...] = ()
    color_losses: tuple[ColorLoss, ...] = ()
    frequency_audit: FrequencyAudit | None = None
    cam_admission: CamAdmission | None = None
    exported: "ModelAudit | None" = None


@dataclass(frozen=True, kw_only=True)
class ModelAudit:
    """The audit of one model, for that model: the one that is exported, which the plan chose before any score was known.

    Attributes:
        seed: of the model, the first of the plan.
        trial_id: of its confirmation trial.
        macro_f1: on the test split.
        class_scores: one per class.
        directed: as in `ArmConfusions`.
        ring_audits: one per ring width; empty where the arm was not audited, as are all that follow.
        pulls: of the arm's confused pairs.
        color_losses: one per class.
        frequency_audit: None where the audit was not made.
    """

    seed: int
    trial_id: str
    macro_f1: TwoIntervals
    class_scores: tuple[ClassScore, ...]
    directed: tuple[DirectedConfusion, ...]
    ring_audits: tuple[RingAudit, ...] = ()
    pulls: tuple[PairPull, ...] = ()
    color_losses: tuple[ColorLoss, ...] = ()
    frequency_audit: FrequencyAudit | None = None


@dataclass(frozen=True, kw_only=True)
class ArmFinding(ArmScores, ArmConfusions, ArmAudits):
    """All findings about one arm."""
