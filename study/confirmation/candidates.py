"""The search trials that may represent an arm, their ranking on the confirm split, and the confirmation trials of each."""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from search_spaces.config import list_folds, name_whole
from search_spaces.errors import UserInputError, list_some
from study.spec.study_spec import StudySpec
from study.state.paths import TrialPaths
from study.state.record_book import MemoryBook, RecordBook
from trainables.records.record import TrialRecord, TrialState, best_trials


def runs_of(book: RecordBook, source: TrialRecord) -> list[TrialRecord]:
    """Return the complete confirmation trials of a search trial's configuration, in the order of their ids."""
    return [r for r in book.with_configuration_of(source, "confirmation") if r.state is TrialState.COMPLETE]


def outcomes_of(book: RecordBook, source: TrialRecord) -> list[TrialRecord]:
    """Return the confirmation trials of a search trial's configuration that have an outcome, in the order of their ids.

    A trial that diverged is an outcome: dropping it would judge its arm by its good runs.
    """
    trials = book.with_configuration_of(source, "confirmation")
    return [r for r in trials if r.state is TrialState.COMPLETE or r.diverged]


def group_by_seed(book: RecordBook, source: TrialRecord, folds: int = 0) -> dict[int, tuple[TrialRecord, ...]]:
    """Return the trials of each seed of which all have an outcome: a trial of every fold, or one without folds."""
    found: dict[int, dict[str, TrialRecord]] = {}
    for record in outcomes_of(book, source):
        found.setdefault(record.config.seed, {}).setdefault(record.config.fold, record)
    names = list_folds(folds)
    return {seed: tuple(own[name] for name in names) for seed, own in found.items() if {*names} <= own.keys()}


def find_whole(book: RecordBook, winner: TrialRecord, folds: int) -> TrialRecord | None:
    """Return a winner's trial that trains on all images, in a study with folds; None as long as it has not ended."""
    trials = book.with_configuration_of(winner, "confirmation")
    return next((r for r in trials if r.config.fold == name_whole(folds) and r.state.is_finished), None)


def is_crashed(record: TrialRecord) -> bool:
    """Return whether a trial failed with an error, which says nothing about its configuration as divergence does."""
    return record.state is TrialState.FAILED and not record.diverged


def failed_seeds(book: RecordBook, source: TrialRecord, folds: int = 0) -> frozenset[int]:
    """Return the seeds with which a confirmation trial of the configuration, on any of the folds, ended without an outcome."""
    trials = book.with_configuration_of(source, "confirmation")
    return frozenset(r.config.seed for r in trials if is_crashed(r) and r.config.fold in list_folds(folds))


def complete_seeds(
    book: RecordBook, winners: dict[str, TrialRecord], seeds: tuple[int, ...], folds: int = 0
) -> tuple[int, ...]:
    """Return the seeds with which every arm's winner has an outcome; raise UserInputError if there are fewer than two."""
    by_arm = [group_by_seed(book, winner, folds).keys() for winner in winners.values()]
    complete = tuple(seed for seed in seeds if all(seed in completed for completed in by_arm))
    if len(complete) < 2:
        raise UserInputError(
            f"an interval needs two seeds that every arm completed, but there are {len(complete)}; "
            "`study status` shows why confirmation trials failed; `study resume` starts those again"
        )
    return complete


def planned_runs(book: RecordBook, winner: TrialRecord, seeds: Sequence[int], folds: int = 0) -> list[TrialRecord]:
    """Return a winner's confirmation trials in the order of `seeds`, without the seeds that ended without an outcome.

    Raises UserInputError if a trial is missing.
    """
    by_seed = group_by_seed(book, winner, folds)
    failed = failed_seeds(book, winner, folds)
    missing = [seed for seed in seeds if seed not in by_seed and seed not in failed]
    if missing:
        altered = [TrialPaths(stage=r.stage, trial_id=r.trial_id).record for r in book if r.is_altered]
        remedy = (
            f"the configuration in {list_some(altered)} was changed after the study wrote it; restore it"
            if altered
            else "run `study resume` first"
        )
        raise UserInputError(
            f"the plan compares seeds {missing}, but trial {winner.trial_id} has no complete confirmation trial with them; "
            f"{remedy}"
        )
    return [run for seed in seeds for run in by_seed.get(seed, ())]


def growth_option(spec: StudySpec) -> str:
    """Return the option of `study resume` that adds two trials per arm, or doubles a budget of device-seconds."""
    if spec.search.num_trials is not None:
        return f"--num-trials +{2 * len(spec.arms())}"
    return f"--device-seconds +{spec.search.device_seconds:g}"


def candidates(book: RecordBook, spec: StudySpec) -> dict[str, tuple[TrialRecord, ...]]:
    """Return each arm's `confirm.top_k` best search trials; raise UserInputError if an arm has no trial that ran every epoch.

    An intervention whose only search trial failed is left out: the others of its round do not need it. Raises UserInputError too
    if no intervention is left.
    """
    chosen = {}
    for arm in spec.arms():
        best = best_trials(book.of_stage("search"), arm.name)
        if not best and _can_be_left_out(arm.name, spec):
            continue
        if not best:
            remedy = f"extend the search: study resume {book.store.argument} {growth_option(spec)}"
            if spec.has_given_arms:
                remedy = "`study status` shows why it failed; fix the configuration and compare again"
            raise UserInputError(
                f"no trial of the arm {arm.name!r} ran every epoch, so there is nothing to confirm; {remedy}"
            )
        # One trial of each configuration, the best: with few choices, a search tries some of them more than once.
        different = {record.config.configuration_fingerprint: record for record in reversed(best)}
        best = tuple(record for record in best if different[record.config.configuration_fingerprint] is record)
        chosen[arm.name] = best[: spec.confirm.top_k]
    _require_intervention(chosen, spec)
    return chosen


def _require_intervention(arms: Collection[str], spec: StudySpec) -> None:
    if spec.intervene is not None and len(arms) < 2:
        raise UserInputError(
            "no intervention of the round could be trained; `study status` shows why, and `study intervene` with --again "
            "begins another round"
        )


def _can_be_left_out(arm: str, spec: StudySpec) -> bool:
    """Return whether a study is complete without an arm: one intervention of several that are tried one at a time."""
    return spec.intervene is not None and not spec.intervene.factors and arm != spec.arms()[0].name


def keep_trained(
    book: RecordBook, winners: dict[str, TrialRecord], seeds: Sequence[int], spec: StudySpec
) -> dict[str, TrialRecord]:
    """Return the winners without the interventions of which fewer than two runs with `seeds` have an outcome.

    Raises:
        UserInputError: if no intervention of a round is left.
    """
    kept = {
        arm: winner
        for arm, winner in winners.items()
        if not _can_be_left_out(arm, spec)
        or len(group_by_seed(book, winner, spec.confirm.folds).keys() & set(seeds)) >= 2
    }
    _require_intervention(kept, spec)
    return kept


def count_ranking_trials(book: MemoryBook, spec: StudySpec, arm: str) -> int:
    """Return the trials that rank an arm's candidates, beyond those of the comparison; before the search ends, an estimate."""
    num_complete = len(best_trials(book.of_stage("search"), arm))
    num_candidates = 1 if spec.has_given_arms else min(spec.confirm.top_k, num_complete or spec.confirm.top_k)
    if num_candidates == 1 and not spec.confirm.folds:
        return 0
    return num_candidates * spec.confirm.num_ranking_seeds


def choose_by_ranking(
    book: RecordBook, chosen: dict[str, tuple[TrialRecord, ...]], seeds: Sequence[int]
) -> dict[str, TrialRecord]:
    """Return per arm the candidate with the highest mean macro-F1 on the confirm split over `seeds`.

    A run that diverged has a macro-F1 of 0. Ties go to the smallest trial id.

    Args:
        book: the study's records.
        chosen: candidates by arm.
        seeds: of the ranking.
    """
    winners = {}
    for arm, sources in chosen.items():
        scores = {
            s.trial_id: mean_confirm([r for r in outcomes_of(book, s) if r.config.seed in set(seeds)]) for s in sources
        }
        winners[arm] = min(sources, key=lambda s: (-scores[s.trial_id], s.trial_id))
    return winners


def describe_unlike_nodes(records: Sequence[TrialRecord]) -> str:
    """Return on which devices and libraries trials ran, if these were not the same for all; "" otherwise."""
    found = Counter(f"{record.device}, {record.libraries}" for record in records if record.epochs)
    if len(found) < 2:
        return ""
    named = list_some((f"{count} on {node}" for node, count in found.most_common()), separator="; ")
    return (
        f"confirmation trials ran on unlike nodes ({named}): their device time cannot be compared, and scores also differ by "
        "rounding; give all nodes one type of machine and one image or constraints file"
    )


def mean_confirm(runs: Sequence[TrialRecord]) -> float:
    """Return the mean macro-F1 of runs on the confirm split, 0 for those that diverged; -1 without a run."""
    found = [0.0 if r.diverged else r.confirm_macro_f1 for r in runs]
    scores = [score for score in found if score is not None]
    return float(np.mean(scores)) if scores else -1.0
