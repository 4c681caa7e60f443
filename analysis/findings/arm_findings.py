"""Findings about one arm: its scores and costs, its confusions, its audits, and all of them together."""

from dataclasses import dataclass

from analysis.findings.cause_findings import RootCause
from analysis.findings.class_findings import ArmConfusions, ClassScore, DirectedConfusion
from analysis.findings.heat_map_findings import CamAdmission
from analysis.findings.interval import TwoIntervals
from analysis.findings.score_findings import ArmScores
from analysis.findings.shortcut_findings import SwapAudits


@dataclass(frozen=True, kw_only=True)
class ArmAudits(SwapAudits):
    """Audits of one arm; the default is an arm that was not audited.

    Attributes:
        root_causes: of the strongest confused pairs.
        cam_admission: whether the arm's heat maps are evidence; None where that was not tested.
        exported: the audit of the exported model alone; None in findings of versions that did not give it.
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
