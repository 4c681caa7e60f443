"""The search trials that may represent an arm, and their ranking on the confirm split."""

from collections.abc import Sequence

import numpy as np

from search_spaces.errors import UserInputError
from study.confirmation.runs import runs_of
from study.spec.study_spec import StudySpec
from study.state.record_book import RecordBook
from trainables.records.ranking import best_trials
from trainables.records.record import TrialRecord


def growth_option(spec: StudySpec) -> str:
    """Return the option of `study resume` that adds two trials per arm, or doubles a budget of device-seconds."""
    if spec.search.num_trials is not None:
        return f"--num-trials +{2 * len(spec.arms())}"
    return f"--device-seconds +{spec.search.device_seconds:g}"


def candidates(book: RecordBook, spec: StudySpec) -> dict[str, tuple[TrialRecord, ...]]:
    """Return each arm's `confirm.top_k` best search trials; raise UserInputError if an arm has no trial that ran every epoch."""
    chosen = {}
    for arm in spec.arms():
        best = best_trials(book.of_stage("search"), arm.name, spec.search.max_epochs)
        if not best:
            remedy = f"extend the search: study resume {growth_option(spec)}"
            if spec.has_given_arms:
                remedy = "`study status` shows why it failed; fix the configuration and compare again"
            raise UserInputError(
                f"no trial of the arm {arm.name!r} ran every epoch, so there is nothing to confirm; {remedy}"
            )
        chosen[arm.name] = best[: spec.confirm.top_k]
    return chosen


def choose_by_ranking(
    book: RecordBook, chosen: dict[str, tuple[TrialRecord, ...]], seeds: Sequence[int]
) -> dict[str, TrialRecord]:
    """Return per arm the candidate with the highest mean macro-F1 on the confirm split over `seeds`.

    Ties go to the smallest trial id.
    """
    winners = {}
    for arm, sources in chosen.items():
        scores = {
            s.trial_id: _mean_confirm([r for r in runs_of(book, s) if r.config.seed in set(seeds)]) for s in sources
        }
        winners[arm] = min(sources, key=lambda s: (-scores[s.trial_id], s.trial_id))
    return winners


def _mean_confirm(runs: list[TrialRecord]) -> float:
    scores = [r.confirm_macro_f1 for r in runs if r.confirm_macro_f1 is not None]
    return float(np.mean(scores)) if scores else -1.0
