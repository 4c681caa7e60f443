"""From a confirmed study to its table and findings: loading and writing; the arithmetic is in analysis."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from analysis.classes.group_contrasts import compute_group_contrasts
from analysis.classes.label_issues import list_label_issues
from analysis.evidence import (
    ArmEvidence,
    complete_arm,
    complete_row,
    compute_arm_finding,
    compute_row,
    compute_search_arms,
    compute_warnings,
)
from analysis.findings.comparison_findings import ComparisonRow
from analysis.findings.forensic_findings import CamPanel
from analysis.findings.search_findings import ParameterImportance
from analysis.findings.study_findings import ArmFinding, Findings
from analysis.heat_maps.grad_cam import NoCamLayerError
from analysis.report import arm_tables, tables
from analysis.report import figures as draw
from analysis.report.audit_figures import plot_ring_audits, plot_root_causes
from analysis.report.pages import build_html, build_markdown
from analysis.report.search_figures import plot_rungs, plot_tuning_curves
from analysis.search.rungs import compute_rung_findings, compute_rung_scores
from analysis.search.tuning_curves import compute_tuning_curves
from search_spaces.errors import UserInputError
from study.confirmation.evidence import is_confirmed, load_evidence, require_plan, row_rule
from study.confirmation.plan import Plan
from study.confirmation.read_count import count_test_reads
from study.inputs.environment_changes import describe_changes, read_changes
from study.inputs.human_labels import load_human_shares
from study.inputs.provenance import describe_code, package_versions
from study.open_study import OpenStudy, has_finished_search, read_passport
from study.results.audits import audit_arms
from study.results.heat_map_panels import draw_panels
from study.results.optuna_plots import SEARCH_PAGE, SearchView, view_search
from study.scheduling.pruner import compute_rungs
from study.state import paths
from study.state.checksums import read_sealed_json, write_sealed_json
from study.state.record_book import now_utc
from trainables.damaged_files import DamagedFileError
from trainables.data.images import ImageSet

CAM_NOTE = (
    "Heat maps illustrate; they are not admitted as evidence here, because the tests that would admit them were not made "
    "(analyze.num_audit_images = 0)."
)
NO_HUMAN_COUNTS = (
    "There are no human counts (analyze.human_counts), so nothing is known of how people confuse these classes."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The comparison stage's result: the plan, what was measured, what follows from it."""

    plan: Plan
    evidence: Mapping[str, ArmEvidence]
    arms: Mapping[str, ArmFinding]
    rows: tuple[ComparisonRow, ...]


def compare(study: OpenStudy) -> Comparison:
    """Compute the arms' scores and the A/B rows, and write both tables as csv, markdown and LaTeX."""
    plan = require_plan(study)
    evidence = load_evidence(study, plan)
    data = read_passport(study.store)["data"]
    class_names = data["class_names"]
    gate = study.spec.gate.macro_f1 if study.spec.gate else None
    arms = {
        name: compute_arm_finding(
            e, class_names, confidence=1 - plan.alpha, gate=gate, num_search_images=data["num_images"]["search"]
        )
        for name, e in evidence.items()
    }
    judged = [(contrast, compute_row(contrast, evidence, row_rule(plan))) for contrast in plan.rows]
    complete = [complete_row(row, contrast, evidence, row_rule(plan), class_names) for contrast, row in judged if row]
    rows = tuple(replace(row, plan_changed=plan.is_changed) for row in complete)
    found = tuple(arms.values())
    study.store.write_text(paths.COMPARISON_CSV, tables.build_csv(rows))
    study.store.write_text(paths.ARMS_CSV, arm_tables.build_arm_csv(found))
    markdown = f"{tables.build_markdown(rows)}\n{arm_tables.build_arm_markdown(found)}"
    study.store.write_text(paths.COMPARISON_MARKDOWN, markdown)
    study.store.write_text(paths.COMPARISON_LATEX, f"{tables.build_latex(rows)}\n{arm_tables.build_arm_latex(found)}")
    return Comparison(plan=plan, evidence=evidence, arms=arms, rows=rows)


def analyze(study: OpenStudy, image_set: ImageSet, say: Callable[[str], None] = lambda _: None) -> Findings:
    """Compute the findings with their figures and write them below findings/, and the search's interactive page.

    `say` is told each step as it begins, for those who wait.
    """
    say("comparison, confusions and clusters")
    comparison = compare(study)
    human = None
    if study.spec.analyze.human_counts is not None:
        human = load_human_shares(study.spec.analyze.human_counts, image_set)
    groups = study.spec.analyze.groups or image_set.class_groups
    arms = {name: _complete(arm, comparison.evidence[name], groups, human) for name, arm in comparison.arms.items()}
    arms, audit_note = audit_arms(study, arms, comparison.evidence, image_set, say)
    say("heat maps and figures")
    comparison = replace(comparison, arms=arms)
    panels, cam_note = _draw_panels(study, comparison, image_set)
    view = view_search(study)
    findings = _make_findings(study, comparison, tuple(panel for panel, _ in panels), view)
    findings = replace(findings, audit_note=audit_note, cam_note=cam_note)
    pictures = {panel.figure: png for panel, png in panels} | _draw_figures(study, findings)
    pictures |= {f"{key}.png": png for key, png in view.draw_pngs().items()}
    study.store.write_text(SEARCH_PAGE, view.build_page(study.name))
    for name, png in pictures.items():
        study.store.write_bytes(f"{paths.FIGURES}/{name}", png)
    findings = replace(findings, figures={name.removesuffix(".png"): name for name in sorted(pictures)})
    write_sealed_json(study.store, paths.FINDINGS, json.loads(findings.to_json()))
    return findings


def _draw_panels(
    study: OpenStudy, comparison: Comparison, image_set: ImageSet
) -> tuple[list[tuple[CamPanel, bytes]], str]:
    """Return the heat maps, and why there are none or why none of them is evidence."""
    try:
        panels = draw_panels(study, comparison.evidence, image_set)
    except NoCamLayerError as error:
        return [], f"No heat map is shown: {error}."
    is_tested = any(arm.cam_admission for arm in comparison.arms.values())
    return panels, CAM_NOTE if panels and not is_tested else ""


def _complete(
    arm: ArmFinding,
    evidence: ArmEvidence,
    groups: Mapping[str, Sequence[str]],
    human: NDArray[np.float64] | None,
) -> ArmFinding:
    names = [score.class_name for score in arm.class_scores]
    return replace(
        complete_arm(arm, evidence, names, human), group_contrasts=compute_group_contrasts(arm.class_scores, groups)
    )


def load_findings(study: OpenStudy) -> Findings:
    """Return the findings; raise UserInputError if there are none yet, DamagedFileError if they cannot be read."""
    if not study.store.exists(paths.FINDINGS):
        raise UserInputError(f"there are no findings yet; run `study analyze {study.store.root}` first")
    try:
        return TypeAdapter(Findings).validate_json(json.dumps(read_sealed_json(study.store, paths.FINDINGS)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DamagedFileError(f"{study.store.root}/{paths.FINDINGS} is damaged: {place}: {first['msg']}") from None


def digest_basis(study: OpenStudy) -> str:
    """Return a digest of what the findings are computed from: spec, plan, records with their files' digests, code, versions.

    A file that the spec names (human counts) stands in it by its path alone.
    """
    basis = {
        "spec": study.spec.model_dump(mode="json"),
        "plan": study.store.read_text(paths.PLAN),
        "records": [record.updated(writer="").to_json() for record in study.book],
        "test reads": count_test_reads(study.store),
        "changes": read_changes(study.store),
        "code": describe_code(),
        "versions": package_versions(),
    }
    return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()[:32]


def is_concluded(study: OpenStudy) -> bool:
    """Whether nothing of the study is left to run, and its findings, with every figure, are those of what lies there now."""
    if not (has_finished_search(study) and is_confirmed(study) and study.store.exists(paths.FINDINGS)):
        return False
    try:
        findings = load_findings(study)
    except DamagedFileError:
        return False
    figures = [f"{paths.FIGURES}/{name}" for name in findings.figures.values()]
    return findings.basis == digest_basis(study) and all(map(study.store.exists, [SEARCH_PAGE, *figures]))


def write_report(study: OpenStudy) -> tuple[str, str]:
    """Write report.html and report.md from the findings; return their names."""
    findings = load_findings(study)
    rows = tables.build_table_rows(findings.rows)
    pictures = {key: study.store.read_bytes(f"{paths.FIGURES}/{name}") for key, name in findings.figures.items()}
    study.store.write_text(paths.REPORT_HTML, build_html(findings, rows, pictures))
    study.store.write_text(paths.REPORT_MARKDOWN, build_markdown(findings, rows))
    return paths.REPORT_HTML, paths.REPORT_MARKDOWN


def _make_findings(study: OpenStudy, comparison: Comparison, panels: Sequence[CamPanel], view: SearchView) -> Findings:
    spec, records = study.spec, tuple(study.book)
    search_records = study.book.of_stage("search")
    search = compute_search_arms(search_records, spec.search.max_epochs)
    passport = read_passport(study.store)
    return Findings(
        study=study.name,
        created=now_utc(),
        class_names=tuple(passport["data"]["class_names"]),
        factor=spec.factor,
        gate=spec.gate.macro_f1 if spec.gate else None,
        search=search,
        rungs=study_rungs(study),
        rung_findings=compute_rung_findings(search_records, study_rungs(study), spec.search.max_epochs),
        importances=tuple(
            ParameterImportance(arm=arm, parameter=name, importance=importance)
            for arm, found in view.importances.items()
            for name, importance in found.items()
        ),
        tuning_curves=compute_tuning_curves(search_records, spec.search.max_epochs),
        search_notes=view.notes,
        search_page=SEARCH_PAGE,
        allocation="given" if spec.has_given_arms else spec.search.allocation,
        warm_start=spec.search.warm_start or "",
        arms=tuple(comparison.arms.values()),
        rows=comparison.rows,
        human_note="" if spec.analyze.human_counts is not None else NO_HUMAN_COUNTS,
        audit_note="",
        label_issues=list_label_issues(
            [p for e in comparison.evidence.values() for p in e.predictions], passport["data"]["class_names"]
        ),
        panels=tuple(panels),
        cam_note="",
        num_test_reads=count_test_reads(study.store),
        warnings=compute_warnings(
            search,
            records,
            _plan_warnings(study, comparison.plan),
            shares_matter=not spec.has_given_arms,
        ),
        figures={},
        passport=passport,
        basis=digest_basis(study),
    )


def study_rungs(study: OpenStudy) -> tuple[int, ...]:
    """Return the epochs at which ASHA decides; empty where it is off."""
    asha = study.spec.search.asha
    if not asha.enabled or study.spec.has_given_arms:
        return ()
    return compute_rungs(
        first_rung=study.spec.first_rung,
        max_epochs=study.spec.search.max_epochs,
        reduction_factor=asha.reduction_factor,
    )


def _draw_figures(study: OpenStudy, findings: Findings) -> dict[str, bytes]:
    figures = {
        "class_f1.png": draw.plot_class_f1(findings.arms),
        "learning_curves.png": draw.plot_learning_curves(_curves(study), findings.rungs),
        "arm_shares.png": draw.plot_arm_shares(findings.search),
    }
    scores = compute_rung_scores(study.book.of_stage("search"), findings.rungs, study.spec.search.max_epochs)
    if any(curve.points for curve in findings.tuning_curves):
        figures["tuning_curves.png"] = plot_tuning_curves(findings.tuning_curves)
    if any(rung.completed or rung.stopped for rung in scores):
        figures["rungs.png"] = plot_rungs(scores)
    if any(arm.ring_audits for arm in findings.arms):
        figures["clever_hans.png"] = plot_ring_audits(findings.arms)
    if any(cause.effects for arm in findings.arms for cause in arm.root_causes):
        figures["root_causes.png"] = plot_root_causes(findings.arms)
    if findings.rows:
        figures["comparison.png"] = draw.plot_interval_bars(findings.rows)
    for arm in findings.arms:
        title = f"{arm.arm}: confusion on the test split, {len(arm.seeds)} seeds"
        figures[f"confusion_{arm.arm}.png"] = draw.plot_confusion(
            arm.confusion, findings.class_names, title, arm.clusters
        )
    return {name: draw.figure_to_png(figure) for name, figure in figures.items()}


def _curves(study: OpenStudy) -> dict[str, list[tuple[list[int], list[float | None], str]]]:
    curves: dict[str, list[tuple[list[int], list[float | None], str]]] = {}
    for record in study.book.of_stage("search"):
        epochs = [e.epoch for e in record.epochs]
        scores = [e.macro_f1 for e in record.epochs]
        curves.setdefault(record.config.arm, []).append((epochs, scores, record.state.value))
    return dict(sorted(curves.items()))


def _plan_warnings(study: OpenStudy, plan: Plan) -> list[str]:
    confirm = study.spec.confirm
    warnings = describe_changes(read_changes(study.store))
    if (plan.margin, plan.alpha) != (confirm.margin, confirm.alpha):
        warnings.append("The spec's margin or alpha differs from the plan that was written before the test was read.")
    if plan.is_changed:
        warnings.append(tables.PLAN_CHANGED)
    if len(plan.seeds) < confirm.num_seeds:
        warnings.append(f"Only {len(plan.seeds)} of {confirm.num_seeds} planned seeds were completed by every arm.")
    reads = count_test_reads(study.store)
    if reads > len(plan.looks):
        warnings.append(f"The test split was read {reads} times; {len(plan.looks)} were planned.")
    return warnings
