"""The time of an arm's epochs by part, from the records of a study with `profile`."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from trainables.records.record import TrialRecord
from trainables.training.epoch_metrics import PARTS

OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochProfile:
    """Mean time of one arm's epochs.

    Attributes:
        arm: name.
        seconds: per epoch by part, in the order of `PARTS`; "other" is the rest of the epoch.
        num_epochs: profiled epochs.
    """

    arm: str
    seconds: dict[str, float]
    num_epochs: int


def compute_epoch_profiles(records: Sequence[TrialRecord]) -> tuple[EpochProfile, ...]:
    """Return one profile per arm with profiled epochs, in the order of the arms' names."""
    profiles = []
    for arm in sorted({r.config.arm for r in records}):
        epochs = [e for r in records if r.config.arm == arm for e in r.epochs if e.part_seconds]
        if not epochs:
            continue
        measured = [dict(e.part_seconds) for e in epochs]
        seconds = {part: fmean(m.get(part, 0.0) for m in measured) for part in PARTS}
        whole = fmean(e.train_seconds + e.evaluate_seconds for e in epochs)
        inside = sum(seconds[part] for part in ("data", "augment", "forward", "backward", "optimizer", "evaluate"))
        profiles.append(
            EpochProfile(arm=arm, seconds={**seconds, OTHER: max(whole - inside, 0.0)}, num_epochs=len(epochs))
        )
    return tuple(profiles)
