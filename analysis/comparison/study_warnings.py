"""Warnings that a reader of the report needs before the numbers."""

from collections.abc import Sequence

from analysis.search.values import LOW_SHARE_FRACTION, SearchArm
from trainables.records.record import TrialRecord, TrialState


def compute_warnings(
    search: Sequence[SearchArm],
    records: Sequence[TrialRecord],
    extra: Sequence[str],
    *,
    shares_matter: bool,
    max_trials: int | None = None,
) -> tuple[str, ...]:
    """Return the warnings of a study: `extra`, unequal device time, failed trials, changed records.

    Args:
        search: the arms of the search.
        records: of every stage.
        extra: further warnings, listed first.
        max_trials: of an arm; one that had so many lacks no device time.
        shares_matter: whether the arms were searched, so that unequal shares of device time bias the comparison.
    """
    warnings = list(extra)
    equal = 1 / len(search) if search and shares_matter else 0.0
    warnings.extend(
        f"The arm {arm.arm} got {arm.share:.0%} of the search's device time; an equal share is {equal:.0%}."
        for arm in search
        if arm.share < LOW_SHARE_FRACTION * equal and (max_trials is None or arm.num_trials < max_trials)
    )
    warnings.extend(_describe_divergence(r) for r in records if _is_scored(r))
    warnings.extend(
        f"Trial {r.stage}/{r.trial_id} failed: {r.reason.splitlines()[-1] if r.reason else 'no cause was recorded'}"
        for r in records
        if r.state is TrialState.FAILED and not _is_scored(r)
    )
    warnings.extend(
        f"The configuration of {r.stage}/{r.trial_id} was changed after the study wrote it."
        for r in records
        if r.is_altered
    )
    return tuple(warnings)


def _is_scored(record: TrialRecord) -> bool:
    return record.diverged and "test" in record.predictions


def _describe_divergence(record: TrialRecord) -> str:
    epoch = record.last_finite_epoch
    score = f"its weights after epoch {epoch}" if epoch else "labels drawn at random, because no epoch was finite"
    return (
        f"Trial {record.stage}/{record.trial_id} diverged: {record.reason}. The comparison scores it by {score}; "
        "the scores and forensics of its arm leave it out."
    )
