"""`Findings`: the values behind the report of one study. Computed in other packages; rendered in `analysis.report`."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from analysis.arms.values import ArmFinding
from analysis.baselines.values import BaselineFindings
from analysis.comparison.values import ComparisonRow
from analysis.confusions.values import LabelIssue
from analysis.heat_maps.values import CamPanel
from analysis.interventions.values import InterventionFindings
from analysis.search.values import ParameterImportance, RungFinding, SearchArm, TuningCurve
from search_spaces.format import FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All findings about one study.

    Attributes:
        study: name of the study.
        created: time of the analysis, UTC.
        class_names: K names.
        factor: hyperparameter that distinguishes the arms.
        minimum: macro-F1 that every arm must exceed; None without a minimum.
        search: one per arm.
        rungs: epochs at which ASHA decides in some arm; empty where it is off.
        rung_findings: one per arm and rung.
        importances: of the hyperparameters, arm by arm.
        tuning_curves: of arms with enough full trials.
        search_notes: sentences about the search's plots and importances: missing plots, inexact values.
        search_page: file name of the interactive plots beside the report; "" if there is none.
        allocation: "per_arm", "pooled" or "given" (the configurations were given, nothing was searched).
        warm_start: study from whose trials the samplers started; "" if none.
        arms: findings about the arms.
        rows: of the A/B table.
        human_note: why confusions are not compared with human annotators; "" where they are.
        audit_note: why the arms were not audited; "" where they were.
        label_issues: doubtful labels, the most doubtful first.
        panels: Grad-CAM panels.
        cam_note: why there are no heat maps, or why they are no evidence; else "".
        num_test_reads: how often the test split was read.
        folds: into which each seed divided the test split; 0 where no trial trained on any of it.
        warnings: sentences that a reader needs before the numbers.
        figures: file name by key.
        passport: data, code and versions of the launch.
        basis: digest of records, plan, code and versions (`study.results.findings.digest_basis`).
        interventions: what a study of interventions found; None in other studies.
        starts: what the search knew before it started, in words: the configurations that it tried first, and its priors.
        image_files: file of each image that the findings show, by sample id; empty where images were not files.
        baselines: simple models beside the arms, and what the study hands over; None in a round of interventions.
        argument: the study as an argument of commands, for the report; "" for its name.
        format: of the study's files.
    """

    study: str
    created: str
    class_names: tuple[str, ...]
    factor: str
    minimum: float | None
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
    folds: int
    warnings: tuple[str, ...]
    figures: dict[str, str]
    passport: dict[str, Any]
    basis: str = ""
    interventions: InterventionFindings | None = None
    starts: tuple[str, ...] = ()
    image_files: dict[int, str] = field(default_factory=dict)
    baselines: BaselineFindings | None = None
    argument: str = ""
    format: int = FORMAT

    def name_image(self, sample_id: int) -> str:
        """Return the file of an image that the findings show, or its sample id where images were not files."""
        return self.image_files.get(sample_id, str(sample_id))

    def to_json(self) -> str:
        """Return findings.json: sorted keys, two-space indent, no NaN (absent values are null)."""
        return json.dumps(to_plain(dataclasses.asdict(self)), indent=2, sort_keys=True, allow_nan=False) + "\n"


def to_plain(value: Any) -> Any:
    """Turn tuples into lists and non-finite floats into None, for strict JSON."""
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
