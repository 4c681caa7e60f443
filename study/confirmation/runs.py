"""Confirmation trials of one configuration, by seed: complete, failed, or missing."""

from collections.abc import Sequence

from search_spaces.errors import UserInputError
from study.state.paths import TrialPaths
from study.state.record_book import RecordBook
from trainables.records.record import TrialRecord, TrialState


def runs_of(book: RecordBook, source: TrialRecord) -> list[TrialRecord]:
    """Return the complete confirmation trials of a search trial's configuration, in the order of their ids."""
    return [r for r in book.with_configuration_of(source, "confirmation") if r.state is TrialState.COMPLETE]


def failed_seeds(book: RecordBook, source: TrialRecord) -> frozenset[int]:
    """Return the seeds with which a confirmation trial of the configuration failed permanently."""
    trials = book.with_configuration_of(source, "confirmation")
    return frozenset(r.config.seed for r in trials if r.state is TrialState.FAILED)


def complete_seeds(book: RecordBook, winners: dict[str, TrialRecord], seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Return the seeds that every arm's winner completed; raise UserInputError if there are fewer than two."""
    by_arm = [{r.config.seed for r in runs_of(book, winner)} for winner in winners.values()]
    complete = tuple(seed for seed in seeds if all(seed in completed for completed in by_arm))
    if len(complete) < 2:
        raise UserInputError(
            f"an interval needs two seeds that every arm completed, but there are {len(complete)}; "
            "`study status` shows why confirmation trials failed"
        )
    return complete


def planned_runs(book: RecordBook, winner: TrialRecord, seeds: Sequence[int]) -> list[TrialRecord]:
    """Return a winner's complete confirmation trials in the order of `seeds`, without the seeds that failed permanently.

    Raises UserInputError if a trial is missing.
    """
    by_seed = {r.config.seed: r for r in reversed(runs_of(book, winner))}
    failed = failed_seeds(book, winner)
    missing = [seed for seed in seeds if seed not in by_seed and seed not in failed]
    if missing:
        altered = [TrialPaths(stage=r.stage, trial_id=r.trial_id).record for r in book if r.is_altered]
        remedy = (
            f"the configuration in {', '.join(altered)} was changed after the study wrote it; restore it"
            if altered
            else "run `study resume` first"
        )
        raise UserInputError(
            f"the plan compares seeds {missing}, but trial {winner.trial_id} has no complete confirmation trial with them; "
            f"{remedy}"
        )
    return [by_seed[seed] for seed in seeds if seed in by_seed]
