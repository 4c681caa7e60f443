"""The effects of a study's interventions: on their targets, on other classes, on the ring audit, and against the predictions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis.audits.swap_effects import AuditImages
from analysis.evidence.arm_evidence import ArmEvidence
from analysis.findings.comparison_findings import ComparisonRow
from analysis.findings.interval import Interval
from analysis.findings.intervention_findings import (
    Collateral,
    InterventionEffect,
    InterventionFindings,
    StatedIntervention,
    StatedInterventions,
    TargetEffect,
    TargetKind,
)
from analysis.interventions.effects import (
    PairedShares,
    bound,
    find_collateral,
    judge_prediction,
    judge_target,
    recommend,
)
from analysis.interventions.target_predictions import make_classifier, measure_loss
from analysis.statistics.families import Scale, class_cells, mean_cell
from analysis.statistics.metrics import FloatArray
from search_spaces.designs import Contrast
from search_spaces.errors import UserInputError
from study.confirmation.evidence import load_evidence, require_plan
from study.confirmation.plan import Plan
from study.confirmation.read_count import count_test_reads
from study.confirmation.stated_interventions import judge_cells, read_stated, restrict, target_rule
from study.open_study import OpenStudy
from study.results.audits import choose_audit_images
from study.results.confirmed_models import make_logits
from trainables.data.images import ImageSet

CONFIDENCE = 0.95
MAX_IMAGES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Losses:
    """Accuracies that swaps and removals cost the models of the arms, each measured once."""

    study: OpenStudy
    image_set: ImageSet
    kept: dict[tuple[TargetKind, str, tuple[int, ...], int], tuple[FloatArray, AuditImages]] = field(
        default_factory=dict
    )

    def measure(self, kind: TargetKind, arm: ArmEvidence) -> tuple[FloatArray, AuditImages]:
        """Return (S, N) losses of the arm's models and the N images, which all arms with the same test images share."""
        first, seed = arm.predictions[0], self.study.spec.seed
        key = (kind, arm.arm, arm.seeds, len(first.labels))
        if key not in self.kept:
            ids = choose_audit_images(first.sample_ids, first.labels, MAX_IMAGES, seed)
            images = AuditImages(
                images=self.image_set.images[ids],
                labels=self.image_set.labels[ids],
                class_names=self.image_set.class_names,
            )
            classify = make_classifier(make_logits(self.study, arm.runs, len(images.class_names)))
            self.kept[key] = measure_loss(kind, classify, images, seed=seed), images
        return self.kept[key]


def measure_interventions(
    study: OpenStudy, rows: Sequence[ComparisonRow], image_set: ImageSet, on_step: Callable[[str], None]
) -> InterventionFindings | None:
    """Return what the interventions of a study did; None for a study without interventions.

    Args:
        study: confirmed.
        rows: of its A/B table.
        image_set: of the study.
        on_step: called with the name of each step as it begins.
    """
    read = read_stated(study.store, study.spec)
    if read is None:
        return None
    plan, losses = require_plan(study), _Losses(study=study, image_set=image_set)
    evidence, by_arm = load_evidence(study, plan), {row.treatment: row for row in rows}
    has_ring = any(stated.target.kind is TargetKind.RING_GAP for stated in read.stated.interventions)
    effects = []
    for contrast in plan.rows:
        arm = contrast.treatment_arms[0]
        on_step(f"effects of {arm}")
        effects.append(_measure(read.stated, contrast, evidence, plan, by_arm.get(arm), losses, has_ring=has_ring))
    recommended, conclusion = recommend(effects, plan.margin)
    return InterventionFindings(
        stated=read.stated,
        is_changed=read.is_changed,
        control=plan.rows[0].control,
        alpha=2 * plan.alpha,
        effects=tuple(effects),
        recommended=recommended,
        conclusion=conclusion,
        num_test_reads=read.stated.earlier_test_reads + count_test_reads(study.store),
    )


def _measure(
    all_stated: StatedInterventions,
    contrast: Contrast,
    evidence: Mapping[str, ArmEvidence],
    plan: Plan,
    row: ComparisonRow | None,
    losses: _Losses,
    *,
    has_ring: bool,
) -> InterventionEffect:
    arm, control_arm = contrast.treatment_arms[0], contrast.control_arms[0]
    stated, names = all_stated.of_arm(arm), losses.image_set.class_names
    judged = restrict(evidence, all_stated, arm)
    seeds = set(judged[arm].finished().seeds) & set(judged[control_arm].finished().seeds)
    target: TargetEffect | None = None
    collateral: Collateral | None = None
    ring_gap: Interval | None = None
    note = ""
    if len(seeds) < 2:
        note = "fewer than two seeds finished in both arms"
    else:
        treatment, control = (judged[name].with_seeds(seeds) for name in (arm, control_arm))
        try:
            target = judge_cells(stated, contrast, judged, plan, names)
            if stated.target.kind is not TargetKind.CELLS:
                target = _judge_loss(stated, treatment, control, plan, losses)
            ring_gap = _bound_ring_gap(treatment, control, losses) if has_ring else None
        except UserInputError as error:
            note = str(error)
        spared = {name for cell in stated.target.cells for name in cell} | set(stated.target.classes)
        collateral = find_collateral(treatment.stacked(), control.stacked(), spared, names, CONFIDENCE)
    return InterventionEffect(
        stated=stated,
        macro_f1=None if row is None else row.effect,
        macro_f1_verdict=None if row is None else row.verdict,
        target=target,
        outcome=judge_prediction(stated.prediction, target),
        collateral=collateral,
        ring_gap=ring_gap,
        cost_ratio=None if row is None else row.cost_ratio,
        device_seconds=sum(run.device_seconds for run in evidence[arm].runs),
        note=note,
    )


def _judge_loss(
    stated: StatedIntervention, treatment: ArmEvidence, control: ArmEvidence, plan: Plan, losses: _Losses
) -> TargetEffect:
    """Return the change of the gap or the loss of the target's classes, over all seeds that both arms have."""
    found, images = losses.measure(stated.target.kind, treatment)
    other, _ = losses.measure(stated.target.kind, control)
    chosen = np.isin(images.labels, [images.class_names.index(name) for name in stated.target.classes])
    shares = PairedShares(
        treatment=found[:, chosen],
        control=other[:, chosen],
        labels=images.labels[chosen],
        beside=tuple(class_cells(found - other, images.labels)),
    )
    return judge_target(shares, target_rule(plan), Scale.UNBOUNDED)


def _bound_ring_gap(treatment: ArmEvidence, control: ArmEvidence, losses: _Losses) -> Interval:
    """Return the change of the gap over all classes, at 95 %."""
    found, images = losses.measure(TargetKind.RING_GAP, treatment)
    other, _ = losses.measure(TargetKind.RING_GAP, control)
    beside = class_cells(found - other, images.labels)
    return bound(mean_cell(found - other, images.labels), Scale.UNBOUNDED, CONFIDENCE, beside)
