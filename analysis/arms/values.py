"""Findings about one arm: its scores and costs, and all of them together; and about arms of which only predictions are known."""

import json
from dataclasses import asdict, dataclass

from analysis.causes.values import RootCause
from analysis.confusions.values import ArmConfusions, ClassScore, Confusion, DirectedConfusion, LabelIssue
from analysis.heat_maps.values import CamAdmission
from analysis.shortcuts.values import SwapAudits
from analysis.statistics.interval import TwoIntervals


@dataclass(frozen=True, kw_only=True)
class ArmResults:
    """What the predictions of one arm's seeds score on the test split.

    Attributes:
        arm: name of the arm.
        seeds: of its models; paired with those of the other arms of a study.
        test_macro_f1: mean over seeds, with its intervals for both questions.
        class_scores: one per class.
        confusion: the confusion matrix.
    """

    arm: str
    seeds: tuple[int, ...]
    test_macro_f1: TwoIntervals
    class_scores: tuple[ClassScore, ...]
    confusion: Confusion


@dataclass(frozen=True, kw_only=True)
class ArmScores(ArmResults):
    """Scores of one arm's confirmation trials, and what they cost.

    Attributes:
        trial_id: the search trial whose configuration was confirmed.
        confirmation_ids: the confirmation trials, in the order of `seeds`.
        hyperparameters: the winning configuration.
        search_macro_f1: its last-epoch macro-F1 on the search split (biased upward; never compared).
        confirm_macro_f1: mean over seeds on the confirm split; None with folds, whose trials have seen it.
        minimum_cleared: whether the lower bound of `test_macro_f1` for the recipe exceeds the minimum; None without a minimum.
        num_parameters: trainable parameters; 0 where a custom training loop does not tell them.
        forward_flops: floating-point operations of one image's forward pass, a multiplication and an addition counted as two;
            0 where a custom training loop has no network.
        device_seconds: mean per confirmation trial.
        train_images_per_second: median over epochs of the confirmation trials.
        predict_images_per_second: the same for predicting the search split, resizing included.
        points_per_device_hour: percentage points of macro-F1 on the test split per device-hour of a confirmation trial.
        peak_memory_bytes: highest of the confirmation trials.
        device: name of the device; of all of them where the trials ran on several.
    """

    trial_id: str
    confirmation_ids: tuple[str, ...]
    hyperparameters: dict[str, float | int | str | bool]
    search_macro_f1: float
    confirm_macro_f1: float | None
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
class ArmAudits(SwapAudits):
    """Audits of one arm; the default is an arm that was not audited.

    Attributes:
        root_causes: of the strongest confused pairs.
        cam_admission: whether the arm's heat maps are evidence; None where that was not tested.
        exported: the audit of the exported model alone; None for an arm in folds, where several models judge.
    """

    root_causes: tuple[RootCause, ...] = ()
    cam_admission: CamAdmission | None = None
    exported: "ModelAudit | None" = None


@dataclass(frozen=True, kw_only=True)
class ModelAudit(SwapAudits):
    """The audit of one model, for that model: the one that is exported, which the plan chose before any score was known.

    Its pulls are those of the arm's confused pairs.

    Attributes:
        seed: of the model, the first of the plan.
        trial_id: of its confirmation trial.
        macro_f1: on the test split.
        class_scores: one per class.
        directed: as in `ArmConfusions`.
    """

    seed: int
    trial_id: str
    macro_f1: TwoIntervals
    class_scores: tuple[ClassScore, ...]
    directed: tuple[DirectedConfusion, ...]


@dataclass(frozen=True, kw_only=True)
class ArmFinding(ArmScores, ArmConfusions, ArmAudits):
    """All findings about one arm."""


@dataclass(frozen=True, kw_only=True)
class OutsideArm(ArmResults, ArmConfusions):
    """Findings about one arm from its predictions alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideFindings:
    """Findings about several arms from their predictions on the same images.

    Attributes:
        class_names: K names.
        num_images: N.
        arms: one each.
        label_issues: doubtful labels, the most doubtful first.
        human_note: why confusions are not compared with human annotators; "" where they are.
        notes: sentences on what the predictions do not allow to say.
    """

    class_names: tuple[str, ...]
    num_images: int
    arms: tuple[OutsideArm, ...]
    label_issues: tuple[LabelIssue, ...]
    human_note: str
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """Return the findings as JSON with sorted keys."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"
