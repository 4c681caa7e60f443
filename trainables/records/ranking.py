"""Which trials ran every epoch, and how they rank: the one rule for the best trial."""

from collections.abc import Sequence

from trainables.records.record import TrialRecord, TrialState


def ran_every_epoch(record: TrialRecord) -> bool:
    """Return whether the trial is COMPLETE and reported a finite macro-F1 at the last epoch of its configuration."""
    return (
        record.state is TrialState.COMPLETE
        and record.last_macro_f1 is not None
        and record.epochs[-1].epoch == record.config.whole("max_epochs")
    )


def best_trials(records: Sequence[TrialRecord], arm: str | None) -> tuple[TrialRecord, ...]:
    """Return the trials that ran every epoch, the best first.

    Trials rank by macro-F1 on the search split at the last epoch, highest first; ties go to the smallest trial id.

    Args:
        records: of one stage.
        arm: whose trials are ranked; None ranks those of all arms together.
    """
    full = [r for r in records if arm in (None, r.config.arm) and ran_every_epoch(r)]
    return tuple(sorted(full, key=lambda r: (-(r.last_macro_f1 or 0.0), r.trial_id)))
