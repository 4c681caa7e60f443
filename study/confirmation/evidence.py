"""The evidence of the comparison: each arm's confirmation trials and their test predictions, and the arms still undecided."""

from collections.abc import Mapping

from analysis.arms.arm_evidence import ArmEvidence
from analysis.comparison.rows import RowRule, compute_rows
from analysis.comparison.values import Verdict
from search_spaces.designs import Contrast
from search_spaces.errors import UserInputError
from study.confirmation.candidates import failed_seeds, find_whole, group_by_seed, planned_runs
from study.confirmation.plan import Plan, changed_plan_error, followed_plan
from study.confirmation.stated_interventions import ReadInterventions, judge_cells, read_stated, restrict
from study.confirmation.trained_models import TEST
from study.open_study import OpenStudy, read_passport, require_finished_search
from study.state.record_book import open_trial_files
from trainables.damaged_files import DamagedFileError
from trainables.training.predictions import pool_predictions


def require_plan(study: OpenStudy) -> Plan:
    """Return the plan; raise UserInputError, with what is to be done first, if the study has not been confirmed yet."""
    plan = followed_plan(study.book, study.spec)
    if plan is None:
        require_finished_search(study)
        raise UserInputError(
            f"the study {study.name!r} has no confirmation trials yet; run `study compare {study.store.argument}` first"
        )
    return plan


def is_confirmed(study: OpenStudy) -> bool:
    """Whether every confirmation trial that the plan still needs has its test predictions."""
    plan = followed_plan(study.book, study.spec)
    return plan is not None and not find_undecided(study, plan)


def list_unfinished_wholes(study: OpenStudy) -> tuple[str, ...]:
    """Return the arms that have no model of all images yet, of a confirmed study with folds; else none."""
    plan, folds = followed_plan(study.book, study.spec), study.spec.confirm.folds
    if plan is None or not folds:
        return ()
    winners = {arm: study.book.get("search", trial_id) for arm, trial_id in plan.chosen.items()}
    return tuple(arm for arm, winner in winners.items() if find_whole(study.book, winner, folds) is None)


def find_undecided(study: OpenStudy, plan: Plan) -> tuple[str, ...]:
    """Return the arms that need more seeds.

    These are the arms of undecided rows that have a look left, and the arms whose first look is incomplete. An intervention is
    decided when its target cells are too.
    """
    evidence, read = _read_evidence(study, plan), read_stated(study.store, study.spec)
    undecided: set[str] = set()
    first = set(plan.seeds[: plan.looks[0]])
    for arm, found in evidence.items():
        if not first - found.failed_seeds <= set(found.seeds):
            undecided.add(arm)
    stated = None if read is None else read.stated
    judged_rows = [(contrast, restrict(evidence, stated, contrast)) for contrast in plan.rows]
    for (contrast, judged), row in zip(judged_rows, compute_rows(judged_rows, row_rule(plan)), strict=True):
        needs_seeds = row is None or (row.verdict is Verdict.UNDECIDED and row.look < len(plan.looks))
        if needs_seeds or (read is not None and _has_open_target(study, plan, contrast, judged, read)):
            undecided |= set(contrast.arms)
    return tuple(arm for arm in plan.chosen if arm in undecided)


def _has_open_target(
    study: OpenStudy, plan: Plan, contrast: Contrast, judged: Mapping[str, ArmEvidence], read: ReadInterventions
) -> bool:
    """Return whether the target cells of an intervention are undecided and a look is left; an interaction has no target."""
    if contrast.is_interaction:
        return False
    names = read_passport(study.store)["data"]["class_names"]
    found = judge_cells(read.stated.of_arm(contrast.treatment), contrast, judged, plan, names)
    if found is None or found.verdict is not Verdict.UNDECIDED:
        return False
    last = set(plan.seeds[: plan.looks[-1]])
    return any(not last - judged[arm].failed_seeds <= set(judged[arm].seeds) for arm in contrast.arms)


def row_rule(plan: Plan) -> RowRule:
    """Return the rule by which the plan's rows are judged."""
    shared = plan.model_dump(include={"seeds", "looks", "intervals", "margin", "alpha"})
    return RowRule(**shared, num_rows=len(plan.rows))


def load_evidence(study: OpenStudy, plan: Plan) -> dict[str, ArmEvidence]:
    """Return each arm's confirmation trials and their test predictions, in the order of the plan's seeds.

    Raises UserInputError if trials of the first look are missing, or have no test predictions yet.
    """
    for trial_id in plan.chosen.values():
        try:
            source, first = study.book.get("search", trial_id), plan.seeds[: plan.looks[0]]
            runs = planned_runs(study.book, source, first, study.spec.confirm.folds)
        except UserInputError as error:
            if not plan.is_changed:
                raise
            raise DamagedFileError(changed_plan_error(study.store, str(error))) from None
        unread = [r.trial_id for r in runs if TEST not in r.predictions]
        if unread:
            raise UserInputError(
                f"confirmation trials {unread} have no test predictions yet; run `study compare {study.store.argument}`"
            )
    return _read_evidence(study, plan)


def _read_evidence(study: OpenStudy, plan: Plan) -> dict[str, ArmEvidence]:
    evidence, folds = {}, study.spec.confirm.folds
    for arm, trial_id in plan.chosen.items():
        source = study.book.get("search", trial_id)
        by_seed = group_by_seed(study.book, source, folds)
        of_seeds = [by_seed.get(seed, ()) for seed in plan.seeds]
        read = [runs for runs in of_seeds if runs and all(TEST in run.predictions for run in runs)]
        tested = [[open_trial_files(study.store, r).read_predictions(TEST, r.digests) for r in runs] for runs in read]
        evidence[arm] = ArmEvidence(
            arm=arm,
            source=source,
            runs=[run for runs in read for run in runs],
            predictions=[pool_predictions(parts) for parts in tested],
            folds=[part.sample_ids for parts in tested for part in parts] if folds else (),
            failed_seeds=failed_seeds(study.book, source, folds),
        )
    return evidence
