"""The comparison of a confirmed study: each arm's scores and the rows of the A/B table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from analysis.arms import render as arm_tables
from analysis.arms.arm_evidence import ArmEvidence
from analysis.arms.scores import compute_arm_scores
from analysis.arms.values import ArmScores
from analysis.baselines.render import build_baseline_csv
from analysis.baselines.values import BaselineFindings
from analysis.comparison import tables
from analysis.comparison.render import build_side_csv
from analysis.comparison.rows import complete_row, compute_rows
from analysis.comparison.values import ComparisonRow
from analysis.confusions.class_scores import compute_macro_f1_intervals
from analysis.formats.table_formats import to_latex, to_markdown
from study.baselines.handover import compute_handover, share_features
from study.confirmation.evidence import load_evidence, require_plan, row_rule
from study.confirmation.plan import Plan
from study.confirmation.stated_interventions import find_judged, read_stated
from study.open_study import OpenStudy, read_passport
from study.state import paths
from trainables.data.sources.labeled_files import ClassGroups, resolve_groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The result of the comparison stage.

    Attributes:
        plan: that the comparison follows.
        evidence: by arm, of the runs that finished, on which scores and forensics rest; no arm whose runs all diverged.
        arms: scores and costs of the arms in `evidence`.
        rows: of the A/B table; empty for a single arm.
        baselines: with what the study hands over; None in a round of interventions.
    """

    plan: Plan
    evidence: Mapping[str, ArmEvidence]
    arms: Mapping[str, ArmScores]
    rows: tuple[ComparisonRow, ...]
    baselines: BaselineFindings | None

    @property
    def all_rows(self) -> tuple[ComparisonRow, ...]:
        """The rows, and that of the winner against the probe, which has an alpha of its own."""
        row = None if self.baselines is None else self.baselines.row
        return self.rows if row is None else (*self.rows, row)


def compute_comparison(study: OpenStudy) -> Comparison:
    """Compute the arms' scores and the A/B rows, and write both tables as csv, markdown and LaTeX.

    The metrics beside macro-F1 are written as csv.

    Raises:
        UserInputError: if the study has not been confirmed.
    """
    comparison = _compute_comparison(study)
    rows, arms = comparison.all_rows, tuple(comparison.arms.values())
    texts = {
        paths.COMPARISON_CSV: tables.build_csv(rows),
        paths.ARMS_CSV: arm_tables.build_arm_csv(arms),
        paths.SIDE_METRICS_CSV: build_side_csv(comparison.rows),
        paths.COMPARISON_MARKDOWN: f"{tables.build_markdown(rows)}\n{arm_tables.build_arm_table(arms, to_markdown)}",
        paths.COMPARISON_LATEX: f"{tables.build_latex(rows)}\n{arm_tables.build_arm_table(arms, to_latex)}",
    }
    if comparison.baselines is not None:
        texts[paths.BASELINES_CSV] = build_baseline_csv(comparison.baselines)
    for name, text in texts.items():
        study.store.write_text(name, text)
    return comparison


def find_class_groups(study: OpenStudy) -> ClassGroups:
    """Return the named groups of classes: those of `[analyze]`, else those of the data set, as its source resolves them."""
    if study.spec.analyze.groups:
        return study.spec.analyze.groups
    return resolve_groups(
        study.spec.data.options.get("class_groups"), read_passport(study.store)["data"]["class_names"]
    )


def _compute_comparison(study: OpenStudy) -> Comparison:
    plan = require_plan(study)
    evidence, rule = share_features(study, load_evidence(study, plan)), row_rule(plan)
    data, minimum = read_passport(study.store)["data"], study.spec.minimum.macro_f1 if study.spec.minimum else None
    finished = {name: found.finished() for name, found in evidence.items()}
    finished = {name: found for name, found in finished.items() if found.runs}
    arms = {
        name: compute_arm_scores(
            found,
            data["class_names"],
            confidence=1 - plan.alpha,
            minimum=minimum,
            num_search_images=data["num_images"]["search"],
        )
        for name, found in finished.items()
    }
    if minimum is not None:
        arms = {name: _count_diverged(scores, evidence[name], 1 - plan.alpha, minimum) for name, scores in arms.items()}
    groups, read = find_class_groups(study), read_stated(study.store, study.spec)
    is_changed = plan.is_changed or (read is not None and read.is_changed)
    judged = [(contrast, find_judged(evidence, read, contrast)) for contrast in plan.rows]
    rows = tuple(
        complete_row(row, contrast, found, rule, data["class_names"], plan_changed=is_changed, groups=groups)
        for (contrast, found), row in zip(judged, compute_rows(judged, rule), strict=True)
        if row is not None
    )
    baselines = compute_handover(study, plan, evidence)
    return Comparison(plan=plan, evidence=finished, arms=arms, rows=rows, baselines=baselines)


def _count_diverged(scores: ArmScores, evidence: ArmEvidence, confidence: float, minimum: float) -> ArmScores:
    """Return the scores; an arm with runs that diverged passes the minimum only if it passes with all runs too."""
    if not (evidence.diverged and scores.minimum_cleared):
        return scores
    all_runs = compute_macro_f1_intervals(evidence.stacked(), confidence).recipe
    return replace(scores, minimum_cleared=all_runs is not None and all_runs.low > minimum)
