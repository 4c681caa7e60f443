"""Which trials ran every epoch, and how they rank: the one rule for the best trial."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from trainables.records.record import TrialRecord, TrialState


def ran_every_epoch(record: TrialRecord) -> bool:
    """Return whether the trial is a full one that ran its schedule to the end; a rung is none."""
    return ran_its_schedule(record) and not record.is_rung


def ran_its_schedule(record: TrialRecord) -> bool:
    """Return whether the trial is COMPLETE and reported a finite macro-F1 at the last epoch of its configuration."""
    return (
        record.state is TrialState.COMPLETE
        and record.last_macro_f1 is not None
        and record.epochs[-1].epoch == record.config.whole("max_epochs")
    )


def best_trials(records: Sequence[TrialRecord], arm: str | None) -> tuple[TrialRecord, ...]:
    """Return the trials that ran every epoch, the best first; of a configuration that ran several times, its first trial.

    Trials rank by macro-F1 on the search split at the last epoch, the mean over the runs of a configuration, highest first; ties
    go to the smallest trial id.

    Args:
        records: of one stage.
        arm: whose trials are ranked; None ranks those of all arms together.
    """
    full = [r for r in records if arm in (None, r.config.arm) and ran_every_epoch(r) and not r.repeats_trial_id]
    repeated = _group_repeats(records)
    return tuple(sorted(full, key=lambda r: (-_mean_score(r, repeated), r.trial_id)))


def mean_macro_f1(record: TrialRecord, records: Sequence[TrialRecord]) -> float:
    """Return the mean macro-F1 at the last epoch of all runs of a trial's configuration; a run that diverged has 0.

    Args:
        record: the first trial of the configuration, which ran every epoch.
        records: of the same stage.
    """
    return _mean_score(record, _group_repeats(records))


def _group_repeats(records: Sequence[TrialRecord]) -> dict[str, list[float]]:
    """Return the scores of repeated runs by the first trial of their configuration, in one pass over many records."""
    found: dict[str, list[float]] = {}
    for record in records:
        score = score_repeat(record) if record.repeats_trial_id else None
        if score is not None:
            found.setdefault(record.repeats_trial_id, []).append(score)
    return found


def _mean_score(record: TrialRecord, repeated: Mapping[str, Sequence[float]]) -> float:
    return fmean([record.last_macro_f1 or 0.0, *repeated.get(record.trial_id, ())])


def score_repeat(record: TrialRecord) -> float | None:
    """Return the score of a repeated run: 0 if it diverged, None if it has not ended or its process failed."""
    if record.diverged:
        return 0.0
    return record.last_macro_f1 if ran_every_epoch(record) else None
