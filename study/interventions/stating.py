"""What the interventions of a round state before they are tried: reason, changes, target, prediction, and its refutation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.interventions import values
from analysis.interventions.intervention import Diagnosis, Intervention, Reason
from analysis.interventions.recommendation import order_by_gain
from analysis.interventions.registry import load_interventions
from analysis.interventions.target_predictions import MIN_TARGET_IMAGES
from search_spaces.config import Value
from search_spaces.designs import MOST_FACTORS
from search_spaces.errors import UserInputError, nearest_name, refuse_any
from study.confirmation.plan import count_test_reads
from study.interventions.diagnosing import Choosing
from study.open_study import OpenStudy, list_rounds
from study.spec.setting_places import SETTINGS
from study.state.record_book import now_utc

STRENGTH = "class_weight_strength"
NO_REASON = "no finding asks for it"
CANNOT_BE_TRIED = "the interventions cannot be tried:"
NO_TARGET = "it is to reduce a confusion, but none is found"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedIntervention:
    """An intervention that is to be tried.

    Attributes:
        intervention: of the registry.
        reason: the finding that asks for it.
        changes: settings that it changes, with their new values.
    """

    intervention: Intervention
    reason: Reason
    changes: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A round of interventions that is not launched yet.

    Attributes:
        parent: the study whose findings ask for it.
        choosing: its winner.
        number: of the round, from 1.
        looks: numbers of paired seeds, increasing.
        is_factorial: whether the interventions are the factors of a factorial design, or are tried one at a time.
    """

    parent: OpenStudy
    choosing: Choosing
    number: int
    looks: tuple[int, ...]
    is_factorial: bool


def propose_interventions(
    diagnosis: Diagnosis, only: Sequence[str] = (), strength: float | None = None, *, is_factorial: bool = False
) -> tuple[tuple[ProposedIntervention, ...], dict[str, str]]:
    """Return the interventions that the diagnosis asks for and that change something, and why the others are left out, by name.

    Both are in the order of the registry.

    Args:
        diagnosis: of the control.
        only: names of the interventions to try, whether a finding asks for them or not; all by default.
        strength: of the class weights; None for that of the registry.
        is_factorial: whether they are to be the factors of a factorial design.

    Raises:
        UserInputError: listing everything that is wrong with the names, the changes, the strength and the design.
    """
    problems = list_unknown(only)
    found, left_out = [], {}
    for name, intervention in load_interventions().items():
        reason = intervention.find_reason(diagnosis)
        if name not in only and (only or reason is None):
            left_out[name] = NO_REASON
            continue
        changes = intervention.make_changes(diagnosis)
        if changes is not None and strength is not None and STRENGTH in changes:
            changes = {**changes, STRENGTH: strength}
        idle = _find_idle(intervention, changes, diagnosis)
        problem = _find_problem(changes or {}) or (idle if name in only else "")
        has_target = bool(intervention.choose_target(diagnosis).classes)
        if not (problem or idle or has_target) and name in only:
            problem = f"{NO_TARGET}; name one with --target TRUE:PREDICTED"
        if problem:
            problems.append(f"{name}: {problem}")
        elif idle or not has_target:
            left_out[name] = idle if has_target else NO_TARGET
        else:
            assert changes is not None
            stated = reason or Reason(symptom=NO_REASON, diagnosis="not known", verdict="named by the user")
            found.append(ProposedIntervention(intervention=intervention, reason=stated, changes=changes))
    if strength is not None and not any(STRENGTH in proposal.changes for proposal in found) and not problems:
        problems.append("--strength is that of weighted_loss, which is not tried; remove it")
    if is_factorial and found:
        problems += _list_misfits(found)
    refuse_any(problems, CANNOT_BE_TRIED)
    return tuple(found), left_out


def _list_misfits(proposals: Sequence[ProposedIntervention]) -> list[str]:
    """Return why the proposals cannot be the factors of one factorial design; [] if they can."""
    names = [proposal.intervention.name for proposal in proposals]
    problems = []
    if not 2 <= len(names) <= MOST_FACTORS:
        problems.append(
            f"a factorial design takes 2 to {MOST_FACTORS} interventions, but there are {len(names)} ({', '.join(names)}); "
            "choose with --only, or leave out --design"
        )
    for first, second in combinations(proposals, 2):
        both = [name for name in first.changes if name in second.changes]
        if both:
            problems.append(
                f"{first.intervention.name} and {second.intervention.name} both change {', '.join(both)}, so that no run can "
                "have both; name one of them with --only"
            )
    return problems


def check_names(names: Sequence[str], *, is_asked: bool) -> None:
    """Check the names that `study run --only` is given, before anything is trained.

    Args:
        names: of interventions.
        is_asked: whether the study is to go on to its interventions.

    Raises:
        UserInputError: listing the names that no intervention has, and that --intervene is missing.
    """
    problems = list_unknown(names)
    if not is_asked:
        problems.append("--only names interventions to go on to; add --intervene, or remove --only")
    refuse_any(problems, CANNOT_BE_TRIED)


def list_unknown(names: Sequence[str]) -> list[str]:
    """Return what is wrong with names that no intervention has."""
    known = load_interventions()
    return [f"there is no intervention {name!r}{nearest_name(name, known)}" for name in names if name not in known]


def _find_problem(changes: Mapping[str, Value]) -> str:
    """Return why the changes cannot be tried; "" if they can."""
    unknown = [f"{name!r}{nearest_name(name, SETTINGS)}" for name in changes if name not in SETTINGS]
    if unknown:
        return f"there is no setting {', '.join(unknown)}"
    try:
        checked = {name: SETTINGS[name].check(value) for name, value in changes.items()}
    except UserInputError as error:
        return str(error)
    if checked.get(STRENGTH) == 0:
        return f"{STRENGTH} = 0 changes no weight, so 0 < {STRENGTH} <= 1 must hold"
    return ""


def _find_idle(intervention: Intervention, changes: Mapping[str, Value] | None, diagnosis: Diagnosis) -> str:
    """Return why the intervention would change nothing; "" if it would."""
    if changes is None:
        return intervention.no_change
    if all(diagnosis.configuration.get(name) == value for name, value in changes.items()):
        return "the control has these settings already"
    return ""


def state_interventions(
    planned: Round,
    proposals: Sequence[ProposedIntervention],
    left_out: Mapping[str, str],
    seconds: Mapping[str, float],
    on_step: Callable[[str], None],
) -> values.StatedInterventions:
    """Return what the interventions state, in the order of `order_by_gain`; the images that choose measure the predictions.

    Args:
        planned: the round.
        proposals: of `propose_interventions`.
        left_out: why other interventions are not tried, by name.
        seconds: device-seconds of a trial of each, by name.
        on_step: called with the name of each step as it begins.
    """
    study, choosing, stated = planned.parent, planned.choosing, []
    for proposal in proposals:
        on_step(f"prediction of {proposal.intervention.name}")
        stated.append(_state(choosing, proposal))
    return values.StatedInterventions(
        created=now_utc(),
        parent=study.store.root,
        round=planned.number,
        source_arm=choosing.source.config.arm,
        source_trial_id=choosing.source.trial_id,
        half_seed=study.spec.seed,
        num_choosing=choosing.num_choosing,
        num_judging=len(choosing.judging_labels),
        interventions=tuple(order_by_gain(stated, seconds)),
        earlier_test_reads=sum(count_test_reads(store) for store in (study.store, *list_rounds(study))),
        not_tried=tuple(
            values.NotTried(name=name, reason=left_out[name]) for name in load_interventions() if name in left_out
        ),
        named_target=":".join(choosing.diagnosis.cells[0]) if choosing.diagnosis.is_named else "",
    )


def _state(choosing: Choosing, proposal: ProposedIntervention) -> values.StatedIntervention:
    intervention, diagnosis = proposal.intervention, choosing.diagnosis
    target = intervention.choose_target(diagnosis)
    try:
        prediction = intervention.predict(target, diagnosis, choosing.models)
    except UserInputError as error:
        prediction = values.Prediction(effect=None, basis=f"it could not be measured: {error}")
    classes = [diagnosis.class_names.index(name) for name in target.classes]
    judging = int(np.isin(choosing.judging_labels, classes).sum())
    is_seen = diagnosis.is_named or not choosing.is_divided or judging < MIN_TARGET_IMAGES
    if is_seen:
        judging = int(np.isin(choosing.labels, classes).sum())
    return values.StatedIntervention(
        arm=intervention.name,
        title=intervention.title,
        symptom=proposal.reason.symptom,
        diagnosis=proposal.reason.diagnosis,
        verdict=proposal.reason.verdict,
        changes=dict(proposal.changes),
        target=target,
        spares=intervention.spares,
        prediction=prediction,
        refuted_by=describe_refutation(target, prediction),
        is_seen=is_seen,
        num_target_images=judging,
    )


def describe_refutation(target: values.Target, prediction: values.Prediction) -> str:
    """Return what would refute a prediction or, without one, the advice."""
    what = "the rate of these cells" if target.kind is values.TargetKind.CELLS else f"the {target.kind}"
    if prediction.effect is None:
        return f"{what} does not fall"
    return f"{what} rises, or changes otherwise than predicted by more than both intervals together allow"
