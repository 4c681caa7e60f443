"""Findings about the search: arms, rungs, tuning curves, importances of the hyperparameters."""

from dataclasses import dataclass

from analysis.findings.interval import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchArm:
    """How one arm fared in the search.

    Attributes:
        arm: name.
        num_trials: trials started.
        num_completed, num_pruned, num_failed: by final state.
        device_seconds: spent.
        share: of all device-seconds.
        best_macro_f1: best last-epoch macro-F1 on the search split among trials that ran every epoch; None if none.
        best_trial_id: that trial's id; "" if none.
        saved_device_seconds: what the stopped trials would have spent had they run every epoch, less what they spent.
        saved_fraction: saved / (spent + saved); 0 where nothing was spent.
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
class RungFinding:
    """How well one rung of one arm's bracket foretold the last epoch.

    Attributes:
        arm: name.
        epoch: of the rung.
        num_reached: trials that reported a finite macro-F1 at the rung.
        num_stopped: of those, stopped there.
        num_completed: trials that ran every epoch; the correlation is over these alone.
        rank_correlation: Spearman, between macro-F1 at the rung and at the last epoch; None where there is none (fewer
            than two trials, or all with the same value).
        interval: of the rank correlation at 95 %; None where there is none (fewer than four trials, or a correlation of
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
    """The best macro-F1 on the search split to be expected after `device_seconds` of search, with a band of 80 % of searches."""

    device_seconds: float
    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningCurve:
    """One arm's best configuration over the device time of its search.

    Attributes:
        arm: name.
        points: over searches made of the arm's own trials, drawn with replacement; empty where too few of them finish one.
        observed: (device-seconds, best macro-F1 so far) of the search as it was, at the ends of its trials.
    """

    arm: str
    points: tuple[TuningPoint, ...]
    observed: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterImportance:
    """Share of one hyperparameter in telling an arm's best trials from the rest (PED-ANOVA); an arm's shares sum to 1."""

    arm: str
    parameter: str
    importance: float
