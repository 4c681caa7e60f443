"""Confirmation trials of one configuration, by seed: complete, failed, or missing."""

from collections.abc import Sequence

from search_spaces.errors import UserInputError, list_some
from study.state.paths import TrialPaths
from study.state.record_book import RecordBook
from trainables.records.record import TrialRecord, TrialState


def runs_of(book: RecordBook, source: TrialRecord) -> list[TrialRecord]:
    """Return the complete confirmation trials of a search trial's configuration, in the order of their ids."""
    return [r for r in book.with_configuration_of(source, "confirmation") if r.state is TrialState.COMPLETE]


def outcomes_of(book: RecordBook, source: TrialRecord) -> list[TrialRecord]:
    """Return the confirmation trials of a search trial's configuration that have an outcome, in the order of their ids.

    A trial that diverged is an outcome: dropping it would judge its arm by its good runs.
    """
    trials = book.with_configuration_of(source, "confirmation")
    return [r for r in trials if r.state is TrialState.COMPLETE or r.diverged]


def is_crashed(record: TrialRecord) -> bool:
    """Return whether a trial failed with an error, which says nothing about its configuration as divergence does."""
    return record.state is TrialState.FAILED and not record.diverged


def failed_seeds(book: RecordBook, source: TrialRecord) -> frozenset[int]:
    """Return the seeds with which a confirmation trial of the configuration ended without an outcome."""
    return frozenset(r.config.seed for r in book.with_configuration_of(source, "confirmation") if is_crashed(r))


def complete_seeds(book: RecordBook, winners: dict[str, TrialRecord], seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Return the seeds with which every arm's winner has an outcome; raise UserInputError if there are fewer than two."""
    by_arm = [{r.config.seed for r in outcomes_of(book, winner)} for winner in winners.values()]
    complete = tuple(seed for seed in seeds if all(seed in completed for completed in by_arm))
    if len(complete) < 2:
        raise UserInputError(
            f"an interval needs two seeds that every arm completed, but there are {len(complete)}; "
            "`study status` shows why confirmation trials failed; `study resume` starts those again"
        )
    return complete


def planned_runs(book: RecordBook, winner: TrialRecord, seeds: Sequence[int]) -> list[TrialRecord]:
    """Return a winner's confirmation trials in the order of `seeds`, without the seeds that ended without an outcome.

    Raises UserInputError if a trial is missing.
    """
    by_seed = {r.config.seed: r for r in reversed(outcomes_of(book, winner))}
    failed = failed_seeds(book, winner)
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
    return [by_seed[seed] for seed in seeds if seed in by_seed]
