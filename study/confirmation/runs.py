"""Confirmation runs of a configuration: which seeds are complete, which failed, which are still to come."""

from collections.abc import Sequence

from search_spaces.errors import UserInputError
from study.state.paths import TrialPaths
from study.state.record_book import RecordBook
from trainables.records.record import TrialRecord, TrialState


def runs_of(book: RecordBook, source: TrialRecord) -> list[TrialRecord]:
    """Return the complete confirmation runs of one configuration, in the order of their ids."""
    identity = source.config.configuration_fingerprint
    return [
        r
        for r in book.of_stage("confirmation")
        if r.state is TrialState.COMPLETE and r.config.configuration_fingerprint == identity
    ]


def complete_seeds(book: RecordBook, winners: dict[str, TrialRecord], seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Return the seeds that every arm's configuration completed; raise UserInputError if they are fewer than two."""
    complete = [s for s in seeds if all(_run_with_seed(book, w, s) is not None for w in winners.values())]
    if len(complete) < 2:
        raise UserInputError(
            f"an interval needs two seeds that every arm completed, but there are {len(complete)}; "
            "`study status` shows why confirmation runs failed"
        )
    return tuple(complete)


def planned_runs(book: RecordBook, winner: TrialRecord, seeds: Sequence[int]) -> list[TrialRecord]:
    """Return a winner's complete confirmation runs in the order of the seeds; what failed for good is left out.

    Raises UserInputError where a run is still to come.
    """
    failed = failed_seeds(book, winner)
    runs = [_run_with_seed(book, winner, seed) for seed in seeds]
    missing = [seed for seed, run in zip(seeds, runs, strict=True) if run is None and seed not in failed]
    altered = [TrialPaths(stage=r.stage, trial_id=r.trial_id).record for r in book if r.is_altered]
    if missing and altered:
        raise UserInputError(
            f"the plan compares seeds {missing}, but trial {winner.trial_id} has no complete confirmation run with them: the "
            f"configuration in {', '.join(altered)} was changed after the study wrote it; restore it"
        )
    if missing:
        raise UserInputError(
            f"the plan compares seeds {missing}, but trial {winner.trial_id} has no complete confirmation run with them; "
            "run `study resume` first"
        )
    return [run for run in runs if run is not None]


def failed_seeds(book: RecordBook, winner: TrialRecord) -> frozenset[int]:
    """Return the seeds with which the winner's confirmation run failed for good."""
    identity = winner.config.configuration_fingerprint
    return frozenset(
        r.config.seed
        for r in book.of_stage("confirmation")
        if r.state is TrialState.FAILED and r.config.configuration_fingerprint == identity
    )


def _run_with_seed(book: RecordBook, winner: TrialRecord, seed: int) -> TrialRecord | None:
    return next((r for r in runs_of(book, winner) if r.config.seed == seed), None)
