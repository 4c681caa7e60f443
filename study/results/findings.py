"""The findings of a confirmed study: computed, written below findings/, read again, and known to be current."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from analysis.arms.arm_evidence import take_judges
from analysis.arms.scores import compute_arm_confusions, compute_model_scores
from analysis.arms.values import ArmFinding
from analysis.comparison.tables import PLAN_CHANGED
from analysis.confusions.label_issues import list_label_issues
from analysis.heat_maps.grad_cam import NoCamLayerError
from analysis.heat_maps.values import CamPanel
from analysis.interventions.render import STATED_CHANGED, build_intervention_csv
from analysis.interventions.values import InterventionFindings
from analysis.report.study_findings import Findings
from analysis.search.search_findings import compute_warnings
from analysis.shortcuts.values import SwapAudits
from search_spaces.errors import UserInputError
from study.cluster.tasks import Workers
from study.confirmation.evidence import is_confirmed
from study.confirmation.plan import Plan, count_test_reads
from study.inputs.human_labels import load_human_shares
from study.inputs.provenance import describe_changed_versions, describe_code, package_versions, read_changes
from study.open_study import OpenStudy, has_finished_search, read_passport
from study.results import figure_files
from study.results.audit_parts import AuditParts
from study.results.audits import audit_arms
from study.results.comparison import Comparison, compute_comparison, find_class_groups
from study.results.intervention_effects import measure_interventions
from study.results.search_results import SEARCH_PAGE, compute_search_results
from study.results.stored_findings import load_findings
from study.spec.starts import describe_knowledge
from study.state import paths
from study.state.record_book import now_utc
from study.state.sealed_files import write_sealed_json
from trainables.damaged_files import DamagedFileError
from trainables.data.images import ImageSet

CAM_NOTE = "Heat maps are shown as illustrations, not as evidence: they were not tested (analyze.num_audit_images = 0)."
NO_HUMAN_COUNTS = (
    "There are no human counts (analyze.human_counts), so it is not known how humans confuse these classes."
)


def compute_findings(
    study: OpenStudy, image_set: ImageSet, workers: Workers, on_step: Callable[[str], None] = lambda _: None
) -> Findings:
    """Compute the findings, and write them with their figures and the search's interactive page.

    Args:
        study: confirmed.
        image_set: that the study was launched with.
        workers: with the data of the study; all models compute on them.
        on_step: called with the name of each step as it begins.

    Raises:
        UserInputError: if the study has not been confirmed, all runs of its confirmation diverged, or its human counts do not fit
            the images.
    """
    on_step("comparison, confusions and clusters")
    comparison = compute_comparison(study)
    if not comparison.evidence:
        raise UserInputError(
            "every run of the confirmation diverged, so that there is nothing to analyze; "
            "run the study again with lower learning rates (search.ranges.max_lr)"
        )
    arms, audit_note = _find_arms(study, comparison, image_set, workers, on_step)
    interventions = measure_interventions(study, comparison.rows, image_set, workers, on_step)
    on_step("heat maps and figures")
    panels, cam_note = _draw_panels(study, comparison, arms, image_set, workers)
    search = compute_search_results(study)
    passport = read_passport(study.store)
    issues = list_label_issues(
        [p for e in comparison.evidence.values() for p in e.predictions], passport["data"]["class_names"]
    )
    pictures = {panel.figure: png for panel, png in panels}
    pictures |= figure_files.draw_figures(arms, comparison.rows, search, study.book.of_stage("search"), interventions)
    spec = study.spec
    findings = Findings(
        study=study.name,
        created=now_utc(),
        class_names=tuple(passport["data"]["class_names"]),
        factor=spec.factor,
        minimum=spec.minimum.macro_f1 if spec.minimum else None,
        search=search.arms,
        rungs=search.rung_epochs,
        rung_findings=search.rung_findings,
        importances=search.view.importances,
        tuning_curves=search.tuning_curves,
        search_notes=search.view.notes,
        search_page=SEARCH_PAGE,
        allocation="given" if spec.has_given_arms else spec.search.allocation,
        warm_start=spec.search.warm_start or "",
        starts=describe_knowledge(spec),
        arms=arms,
        rows=comparison.rows,
        human_note=NO_HUMAN_COUNTS if spec.analyze.human_counts is None else "",
        audit_note=audit_note,
        label_issues=issues,
        panels=tuple(panel for panel, _ in panels),
        cam_note=cam_note,
        num_test_reads=count_test_reads(study.store),
        folds=spec.confirm.folds,
        warnings=compute_warnings(
            search.arms,
            tuple(study.book),
            [
                *(f"{leak}." for name, leak in passport["data"].items() if name.endswith("_leak")),
                *_describe_deviations(study, comparison.plan),
                *_describe_interventions(interventions),
            ],
            shares_matter=not spec.has_given_arms,
            max_trials=spec.search.max_trials_per_arm,
        ),
        figures={name.removesuffix(".png"): name for name in sorted(pictures) if name.endswith(".png")},
        passport=passport,
        basis=digest_basis(study),
        interventions=interventions,
        baselines=comparison.baselines,
        image_files=figure_files.name_shown_images(image_set, arms, issues, [panel for panel, _ in panels]),
    )
    study.store.write_text(SEARCH_PAGE, search.view.build_page(study.name))
    if interventions is not None:
        study.store.write_text(paths.INTERVENTIONS_CSV, build_intervention_csv(interventions))
    figure_files.write_thumbnails(study, comparison.evidence, arms, image_set)
    figure_files.write_image_files(
        study.store, image_set, next(iter(comparison.evidence.values())).predictions[0].sample_ids
    )
    for name, picture in pictures.items():
        study.store.write_bytes(f"{paths.FIGURES}/{name}", picture)
    for name in {figure_files.svg_name(name) for name in findings.figures.values()} - set(pictures):
        study.store.delete(f"{paths.FIGURES}/{name}")
    write_sealed_json(study.store, paths.FINDINGS, json.loads(findings.to_json()))
    AuditParts(study.store).delete()
    return findings


def digest_basis(study: OpenStudy) -> str:
    """Return a digest of what the findings depend on: spec, plans, records with their files' digests, code, versions.

    A file that the spec names (human counts) enters by its path alone.
    """
    basis = {
        "spec": study.spec.model_dump(mode="json"),
        "plan": study.store.read_text(paths.PLAN),
        "records": [record.updated(writer="").to_json() for record in study.book],
        "baselines": study.store.read_text(paths.BASELINES) if study.store.exists(paths.BASELINES) else "",
        "test reads": count_test_reads(study.store),
        "changes": read_changes(study.store),
        "code": describe_code(),
        "versions": package_versions(),
        "interventions": "" if study.spec.intervene is None else study.store.read_text(paths.INTERVENTIONS),
    }
    return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()[:32]


def is_concluded(study: OpenStudy) -> bool:
    """Return whether no trial of the study is left, and its findings and figures are current and complete."""
    if not (study.store.exists(paths.FINDINGS) and has_finished_search(study) and is_confirmed(study)):
        return False
    try:
        findings = load_findings(study)
    except DamagedFileError:
        return False
    figures = [f"{paths.FIGURES}/{name}" for name in findings.figures.values()]
    written = [SEARCH_PAGE, paths.THUMBNAILS, *figures]
    return findings.basis == digest_basis(study) and all(map(study.store.exists, written))


def _find_arms(
    study: OpenStudy, comparison: Comparison, image_set: ImageSet, workers: Workers, on_step: Callable[[str], None]
) -> tuple[tuple[ArmFinding, ...], str]:
    """Return the findings about the arms, and why none was audited; "" where they were."""
    counts_file = study.spec.analyze.human_counts
    human = None if counts_file is None else load_human_shares(counts_file, image_set)
    groups = find_class_groups(study)
    confusions, models = {}, {}
    for name, scores in comparison.arms.items():
        evidence = comparison.evidence[name]
        stacked = evidence.stacked()
        own = None if human is None else human[stacked.sample_ids]
        confusions[name] = compute_arm_confusions(stacked, scores.class_scores, groups, own)
        class_names = [score.class_name for score in scores.class_scores]
        models[name] = compute_model_scores(evidence, class_names, own, 1 - comparison.plan.alpha)
    parts = AuditParts(study.store, digest_basis(study))
    audited, note = audit_arms(study, confusions, comparison.evidence, image_set, workers, parts, on_step)
    arms = []
    for name, scores in comparison.arms.items():
        found = audited[name]
        arms.append(
            ArmFinding(
                **vars(scores),
                **vars(confusions[name]),
                **vars(found.audits or SwapAudits()),
                root_causes=found.causes,
                cam_admission=found.admission,
                exported=None
                if comparison.evidence[name].folds
                else replace(models[name], **vars(found.exported or SwapAudits())),
            )
        )
    return tuple(arms), note


def _draw_panels(
    study: OpenStudy, comparison: Comparison, arms: Sequence[ArmFinding], image_set: ImageSet, workers: Workers
) -> tuple[list[tuple[CamPanel, bytes]], str]:
    """Return the heat maps, and why there are none or why none of them is evidence."""
    try:
        admissions = {arm.arm: arm.cam_admission for arm in arms}
        panels = figure_files.draw_panels(study, take_judges(comparison.evidence), admissions, image_set, workers)
    except NoCamLayerError as error:
        return [], f"No heat map is shown: {error}."
    is_tested = any(arm.cam_admission for arm in arms)
    return panels, CAM_NOTE if panels and not is_tested else ""


def _describe_deviations(study: OpenStudy, plan: Plan) -> list[str]:
    """Return what differs from the launch and from the plan, as sentences."""
    confirm = study.spec.confirm
    warnings = describe_changed_versions(read_changes(study.store))
    if (plan.margin, plan.alpha) != (confirm.margin, confirm.alpha):
        warnings.append("The spec's margin or alpha differs from the plan that was written before the test was read.")
    if plan.is_changed:
        warnings.append(PLAN_CHANGED)
    lost = confirm.num_seeds - len(plan.seeds)
    if lost > 0:
        warnings.append(
            f"{lost} of the {confirm.looks[0]} seeds of the first look were not completed by every arm, and are left out."
        )
    reads = count_test_reads(study.store)
    if reads > len(plan.looks):
        warnings.append(f"The test split was read {reads} times; {len(plan.looks)} were planned.")
    return warnings


def _describe_interventions(interventions: InterventionFindings | None) -> list[str]:
    """Return what a reader of a study of interventions needs before the numbers, as sentences."""
    if interventions is None:
        return []
    seen = [effect.stated.arm for effect in interventions.effects if effect.stated.is_seen]
    sentences = [STATED_CHANGED] if interventions.is_changed else []
    if seen:
        sentences.append(
            f"The images that judge {', '.join(seen)} also chose the targets or were seen by the user before."
        )
    return sentences
