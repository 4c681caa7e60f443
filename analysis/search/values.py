"""Findings about the search: arms, rungs, tuning curves, importances of the hyperparameters, and the time of an epoch by part.

Nothing heavy is imported, so that `study status` is quick.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from analysis.statistics.interval import Interval
from trainables.records.record import TrialRecord
from trainables.training.epoch_metrics import PARTS

# Of an equal share of the device time, below which an arm was searched too little.
LOW_SHARE_FRACTION = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchArm:
    """The search of one arm.

    Attributes:
        arm: name.
        num_trials: trials in the search.
        num_completed: full trials that are COMPLETE.
        num_pruned: trials that are PRUNED.
        num_failed: trials that are FAILED.
        device_seconds: used by its trials.
        share: of all device-seconds of the search.
        best_macro_f1: best last-epoch macro-F1 on the search split among trials that ran every epoch; None if none.
        best_trial_id: id of that trial; "" if none.
        saved_device_seconds: device-seconds that the remaining epochs of its pruned trials would have used.
        saved_fraction: saved / (used + saved); 0 where nothing was used.
    """

    arm: str
    num_trials: int
    num_completed: int
    num_pruned: int
    num_failed: int
    device_seconds: float
    share: float
    best_macro_f1: float | None
    best_trial_id: str
    saved_device_seconds: float
    saved_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RungScores:
    """Macro-F1 (fractions, search split) of one arm's trials at one rung.

    Attributes:
        arm: name.
        epoch: of the rung, in the longest trials of the arm where their epochs differ.
        completed: (score at the rung, score at the last epoch) of each trial that ran every epoch.
        stopped: score at the rung of each trial that was stopped there.
        num_reached: trials with a finite macro-F1 at the rung, including those that failed later or are still running.
    """

    arm: str
    epoch: int
    completed: tuple[tuple[float, float], ...]
    stopped: tuple[float, ...]
    num_reached: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RungFinding:
    """Rung score against final score, for one rung of one arm.

    Attributes:
        arm: name.
        epoch: of the rung, in the longest trials of the arm where their epochs differ.
        num_reached: trials that reported a finite macro-F1 at the rung.
        num_stopped: trials that were stopped at the rung.
        num_completed: trials that ran every epoch; the correlation is over these alone.
        rank_correlation: Spearman's, between macro-F1 at the rung and at the last epoch; None where it is undefined (fewer
            than two trials, or constant values).
        interval: of the rank correlation at 95 %; None where it is undefined (fewer than four trials, or a correlation of
            exactly 1 or -1).
    """

    arm: str
    epoch: int
    num_reached: int
    num_stopped: int
    num_completed: int
    rank_correlation: float | None
    interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningPoint:
    """Expected best macro-F1 on the search split after `device_seconds` of search; 80 % of searches lie in [low, high]."""

    device_seconds: float
    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningCurve:
    """One arm's best configuration over the device time of its search.

    Attributes:
        arm: name.
        points: over searches resampled from the arm's own trials; empty unless those are independent, as in a random search.
        observed: (device-seconds, best macro-F1 so far) of the actual search, at the ends of its trials.
    """

    arm: str
    points: tuple[TuningPoint, ...]
    observed: tuple[tuple[float, float], ...]


def find_lead_changes(curves: Sequence[TuningCurve]) -> tuple[tuple[float, str], ...]:
    """Return (device-seconds, arm) for every change of the arm with the highest observed score, the first leader included.

    Only device times at which every arm has a score and that no arm's search exceeds are compared. A tie keeps the leader.
    """
    if len(curves) < 2:
        return ()
    start, stop = max(c.observed[0][0] for c in curves), min(c.observed[-1][0] for c in curves)
    ends = sorted({start, *(end for c in curves for end, _ in c.observed if start <= end <= stop)})
    leaders: list[tuple[float, str]] = []
    for end in ends if start <= stop else ():
        best = {c.arm: [score for done, score in c.observed if done <= end][-1] for c in curves}
        leader = max(best, key=lambda arm: best[arm])
        if not leaders or best[leader] > best[leaders[-1][1]]:
            leaders.append((end, leader))
    return tuple(leaders)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterImportance:
    """Importance of one hyperparameter of an arm (PED-ANOVA); the importances of an arm sum to 1."""

    arm: str
    parameter: str
    importance: float


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
        seconds[OTHER] = max(whole - inside, 0.0)
        profiles.append(EpochProfile(arm=arm, seconds=seconds, num_epochs=len(epochs)))
    return tuple(profiles)
