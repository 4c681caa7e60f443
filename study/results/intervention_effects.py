"""The effects of a study's interventions: on their targets, on other classes, on the ring audit, and against the predictions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis.arms.arm_evidence import ArmEvidence
from analysis.comparison.rows import make_sides
from analysis.comparison.values import ComparisonRow
from analysis.interventions import values
from analysis.interventions.effects import PairedShares, bound, find_collateral, judge_prediction, judge_target
from analysis.interventions.recommendation import recommend, share_noninferior_levels
from analysis.interventions.target_predictions import measure_loss
from analysis.shortcuts.swaps import SwapEffects, average_effects, make_classifier
from analysis.statistics.families import Scale
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import IntArray
from search_spaces.designs import Contrast, make_factorial_runs
from search_spaces.errors import UserInputError
from study.cluster.tasks import Workers, make_task
from study.confirmation.evidence import load_evidence, require_plan
from study.confirmation.plan import Plan, count_test_reads
from study.confirmation.stated_interventions import judge_cells, read_stated, restrict, target_rule
from study.open_study import OpenStudy
from study.results.audits import choose_audit_images, take_audit_images
from study.results.confirmed_models import make_logits
from trainables.data.images import ImageSet
from trainables.records.record import TrialRecord
from trainables.storage.store import Store
from trainables.training.trial_data import TrialData

CONFIDENCE = 0.95
MAX_IMAGES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Losses:
    """Accuracies that swaps and removals cost the models of the arms, each measured once."""

    study: OpenStudy
    image_set: ImageSet
    workers: Workers
    kept: dict[tuple[values.TargetKind, str, tuple[int, ...], int], SwapEffects] = field(default_factory=dict)

    def measure(self, kind: values.TargetKind, arm: ArmEvidence) -> SwapEffects:
        """Return the losses of the arm's models on images which all arms with the same test images share."""
        first, seed = arm.predictions[0], self.study.spec.seed
        key = (kind, arm.arm, arm.seeds, len(first.labels))
        if key not in self.kept:
            ids = choose_audit_images(first.sample_ids, first.labels, MAX_IMAGES, seed, first.groups)
            task = make_task(self.study.spec, arm.arm, self.study.store.address, arm.runs, kind, ids, seed)
            (self.kept[key],) = self.workers.run_tasks(measure_arm_loss, [task])
        return self.kept[key]

    def measure_sides(
        self, kind: values.TargetKind, sides: Sequence[Sequence[ArmEvidence]]
    ) -> tuple[SwapEffects, SwapEffects]:
        """Return the losses of the treatment and of the control, means over the arms of a side."""
        treatment, control = (average_effects([self.measure(kind, arm) for arm in side]) for side in sides)
        return treatment, control


def measure_arm_loss(
    study_uri: str, runs: Sequence[TrialRecord], kind: values.TargetKind, ids: IntArray, seed: int, *, data: TrialData
) -> SwapEffects:
    """Return the losses of the models of `runs` on the images of `ids`."""
    classify = make_classifier(make_logits(Store(study_uri), runs, len(data.class_names)))
    return measure_loss(kind, classify, take_audit_images(data, ids), seed=seed)


def measure_interventions(
    study: OpenStudy,
    rows: Sequence[ComparisonRow],
    image_set: ImageSet,
    workers: Workers,
    on_step: Callable[[str], None],
) -> values.InterventionFindings | None:
    """Return what the interventions of a study did; None for a study without interventions.

    Args:
        study: confirmed.
        rows: of its A/B table.
        image_set: of the study.
        workers: that compute the losses of the arms.
        on_step: called with the name of each step as it begins.
    """
    read = read_stated(study.store, study.spec)
    if read is None:
        return None
    assert study.spec.intervene is not None
    factors, losses = study.spec.intervene.factors, _Losses(study=study, image_set=image_set, workers=workers)
    plan = require_plan(study)
    evidence, by_name = load_evidence(study, plan), {row.treatment: row for row in rows}
    has_ring = any(stated.target.kind is values.TargetKind.RING_GAP for stated in read.stated.interventions)
    contrasts = [contrast for contrast in plan.rows if not contrast.is_interaction]
    tried = [read.stated.of_arm(contrast.treatment) for contrast in contrasts]
    levels, effects = share_noninferior_levels(tried, 2 * plan.alpha, len(plan.looks)), []
    for contrast in contrasts:
        on_step(f"effects of {contrast.treatment}")
        row = by_name.get(contrast.treatment)
        effects.append(_measure(read.stated, contrast, evidence, plan, row, losses, levels, has_ring=has_ring))
    parent, named = read.stated.parent, read.stated.named_target
    runs = make_factorial_runs(factors) if factors else None
    best = recommend(effects, plan.margin, parent, named, rows=rows, runs=runs)
    return values.InterventionFindings(
        stated=read.stated,
        is_changed=read.is_changed,
        control=study.spec.arms()[0].name,
        alpha=2 * plan.alpha,
        effects=tuple(effects),
        recommended=best.arm,
        conclusion=" ".join([best.reason, *([] if factors else _list_left_out(study, plan, read.stated))]),
        num_test_reads=read.stated.earlier_test_reads + count_test_reads(study.store),
        recommended_interventions=best.interventions if factors else (),
        is_factorial=bool(factors),
        has_moderated_rows=any(row.intervals == "moderated" for row in rows),
    )


def _list_left_out(study: OpenStudy, plan: Plan, stated: values.StatedInterventions) -> list[str]:
    """Return a sentence for each intervention that could not be trained."""
    missing = [one.arm for one in stated.interventions if one.arm not in plan.chosen]
    return [f"{arm} is left out, since it could not be trained{_find_failure(study, arm)}." for arm in missing]


def _find_failure(study: OpenStudy, arm: str) -> str:
    """Return the last line of why a trial of the arm failed, in brackets; "" if none did."""
    reasons = [
        record.reason.strip().splitlines() for record in study.book if record.config.arm == arm and record.reason
    ]
    return f" ({reasons[-1][-1]})" if reasons else ""


def _measure(
    all_stated: values.StatedInterventions,
    contrast: Contrast,
    evidence: Mapping[str, ArmEvidence],
    plan: Plan,
    row: ComparisonRow | None,
    losses: _Losses,
    levels: Mapping[str, float],
    *,
    has_ring: bool,
) -> values.InterventionEffect:
    stated, names = all_stated.of_arm(contrast.treatment), losses.image_set.class_names
    judged = restrict(evidence, all_stated, contrast)
    seeds = set.intersection(*(set(judged[arm].finished().seeds) for arm in contrast.arms))
    target: values.TargetEffect | None = None
    collateral: values.Collateral | None = None
    ring_gap: Interval | None = None
    note = ""
    if len(seeds) < 2:
        note = "fewer than two seeds finished in all arms of the row"
    else:
        sides = [
            [judged[arm].with_seeds(seeds) for arm in arms] for arms in (contrast.treatment_arms, contrast.control_arms)
        ]
        try:
            target = judge_cells(stated, contrast, judged, plan, names)
            if stated.target.kind is not values.TargetKind.CELLS:
                target = _judge_loss(stated, sides, plan, losses)
            ring_gap = _bound_ring_gap(sides, losses) if has_ring else None
        except UserInputError as error:
            note = str(error)
        spared = {name for cell in stated.target.cells for name in cell} | set(stated.target.classes)
        collateral = find_collateral(*make_sides(contrast, judged, seeds), spared, names, CONFIDENCE)
    return values.InterventionEffect(
        stated=stated,
        macro_f1=None if row is None else row.effect,
        macro_f1_verdict=None if row is None else row.verdict,
        target=target,
        outcome=judge_prediction(stated.prediction, target),
        collateral=collateral,
        ring_gap=ring_gap,
        cost_ratio=None if row is None else row.cost_ratio,
        device_seconds=sum(run.device_seconds for arm in contrast.treatment_arms for run in evidence[arm].runs),
        note=note,
        num_seeds=0 if row is None else row.num_seeds,
        p_noninferior=None if row is None else row.p_noninferior,
        noninferior_level=levels[contrast.treatment],
    )


def _judge_loss(
    stated: values.StatedIntervention, sides: Sequence[Sequence[ArmEvidence]], plan: Plan, losses: _Losses
) -> values.TargetEffect:
    """Return the change of the gap or the loss of the target's classes, over all seeds that the arms of both sides have."""
    found, other = losses.measure_sides(stated.target.kind, sides)
    chosen = np.isin(found.labels, [found.class_names.index(name) for name in stated.target.classes])
    change = found.minus(other)
    shares = PairedShares(
        treatment=found.values[:, chosen],
        control=other.values[:, chosen],
        labels=found.labels[chosen],
        beside=tuple(change.make_class_cells()),
        change=change.take(chosen).make_cell(),
    )
    return judge_target(shares, target_rule(plan), Scale.UNBOUNDED)


def _bound_ring_gap(sides: Sequence[Sequence[ArmEvidence]], losses: _Losses) -> Interval:
    """Return the change of the gap over all classes, at 95 %."""
    found, other = losses.measure_sides(values.TargetKind.RING_GAP, sides)
    change = found.minus(other)
    return bound(change.make_cell(), Scale.UNBOUNDED, CONFIDENCE, change.make_class_cells())
