"""interventions.json: what each intervention states before any of its test predictions is read, and the images that judge it.

The file is written once, before the study exists. The spec holds its digest, so that a later change is shown as changed even if
the file's own checksum was renewed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from analysis.arms.arm_evidence import ArmEvidence
from analysis.comparison.rows import make_sides
from analysis.comparison.values import Verdict
from analysis.interventions.effects import TargetRule, judge_target, mark_target
from analysis.interventions.target_predictions import find_choosing
from analysis.interventions.values import StatedIntervention, StatedInterventions, TargetEffect, TargetKind
from analysis.statistics.families import Scale
from search_spaces.designs import INTERACTION_SIGN, Contrast
from study.confirmation.plan import Plan
from study.spec.study_spec import StudySpec
from study.state.paths import INTERVENTIONS
from study.state.sealed_files import read_changed_json
from trainables.damaged_files import DamagedFileError, decoding
from trainables.storage.store import Store

_ADAPTER = TypeAdapter(StatedInterventions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadInterventions:
    """What was stated, and whether it was changed after it was written, which every output shows."""

    stated: StatedInterventions
    is_changed: bool


def digest_stated(stated: StatedInterventions) -> str:
    """Return the first 32 hex digits of SHA-256 over the canonical JSON of what was stated."""
    text = json.dumps(dump_stated(stated), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def dump_stated(stated: StatedInterventions) -> dict[str, Any]:
    """Return the content of interventions.json."""
    return dict(json.loads(json.dumps(asdict(stated))))


def read_stated(store: Store, spec: StudySpec) -> ReadInterventions | None:
    """Return what a study's interventions stated; None for a study without interventions.

    Raises:
        DamagedFileError: if the file is missing, cannot be read, or does not fit the study's configurations.
    """
    if spec.intervene is None:
        return None
    data, is_intact = read_changed_json(store, INTERVENTIONS)
    with decoding(store.locate(INTERVENTIONS)):
        stated = _ADAPTER.validate_json(json.dumps(data))
    arms = spec.intervene.factors or [arm.name for arm in spec.arms()][1:]
    if [found.arm for found in stated.interventions] != arms:
        raise DamagedFileError(
            f"{store.locate(INTERVENTIONS)} was changed after it was written, and cannot be followed: its interventions are not "
            f"the study's ({', '.join(arms)})"
        )
    return ReadInterventions(stated=stated, is_changed=not is_intact or digest_stated(stated) != spec.intervene.stated)


def restrict(
    evidence: Mapping[str, ArmEvidence], stated: StatedInterventions | None, contrast: Contrast
) -> Mapping[str, ArmEvidence]:
    """Return the evidence on the images that judge a row: all without interventions or if one of its own is seen, else a half."""
    first = next((found.predictions[0] for found in evidence.values() if found.predictions), None)
    names = contrast.treatment.split(INTERACTION_SIGN) if contrast.is_interaction else [contrast.treatment]
    if first is None or stated is None or any(stated.of_arm(name).is_seen for name in names):
        return evidence
    choosing = find_choosing(first.sample_ids, first.groups, stated.half_seed)
    judging = first.sample_ids[~choosing]
    return {name: found.with_images(judging) for name, found in evidence.items()}


def judge_cells(
    stated: StatedIntervention,
    contrast: Contrast,
    evidence: Mapping[str, ArmEvidence],
    plan: Plan,
    class_names: Sequence[str],
) -> TargetEffect | None:
    """Return the change of an intervention's target cells at the first look that decides it, else at the last one so far.

    Args:
        stated: the intervention.
        contrast: its row; a share of images is the mean over the arms of a side.
        evidence: by arm, on the images that judge it.
        plan: of the study.
        class_names: K names.

    Returns:
        None for another kind of target or one without cells, and before two seeds of the first look have finished in all arms of
        the row.
    """
    if stated.target.kind is not TargetKind.CELLS or not stated.target.cells:
        return None
    found = None
    arms = [evidence[arm] for arm in contrast.arms]
    failed = frozenset().union(*(arm.failed_seeds for arm in arms))
    for look in plan.looks:
        seeds = set(plan.seeds[:look]) - failed
        if not all(seeds <= set(arm.seeds) for arm in arms):
            break
        judged = seeds.intersection(*(arm.finished().seeds for arm in arms))
        if len(judged) < 2:
            continue
        shares = mark_target(*make_sides(contrast, evidence, judged), stated.target, class_names)
        found = judge_target(shares, target_rule(plan), Scale.DIFFERENCE)
        if found.verdict is not Verdict.UNDECIDED:
            break
    return found


def target_rule(plan: Plan) -> TargetRule:
    """Return the rule for the targets, which have as much alpha as the plan's rows: each half of the round's."""
    num_targets = sum(not row.is_interaction for row in plan.rows)
    return TargetRule(alpha=plan.alpha, num_targets=num_targets, num_looks=len(plan.looks), margin=plan.margin)
