"""Figures of one simulated study, and of many with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from analysis.findings.interval import Interval
from analysis.statistics.crossed_interval import compute_t_quantile
from benchmarks.search.replay_curves import FloatArray
from benchmarks.search.replay_simulation import Landscape, Outcome

CONFIDENCE = 0.95
# "Within 10 % of equal": with two arms, neither has less than 45 % of the device time.
SHARE_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Figures of one simulated study.

    Attributes:
        regret_pp: true best over all arms minus the true value of the chosen configuration, percentage points.
        is_wrong: the chosen configuration is not of the arm that has the true best.
        least_share: part of the device time that went to the arm that got least, relative to an equal part.
        spent_fraction: device-seconds spent, as a part of the budget; above 1 where running trials cost more than expected.
        num_trials: trials started.
        idle_fraction: part of the workers' time in which they had no trial, until the last one ended.
    """

    regret_pp: float
    is_wrong: bool
    least_share: float
    spent_fraction: float
    num_trials: int
    idle_fraction: float


def measure(outcome: Outcome, landscape: Landscape, budget_seconds: float) -> Measures:
    """Return the figures of one study; raise ValueError if it chose nothing."""
    if outcome.chosen is None:
        raise ValueError("the study ended without a configuration to choose; give it a larger budget")
    true_value = float(landscape.mean_curve(outcome.chosen)[-1])
    best_arm = max(landscape.true_best, key=lambda arm: landscape.true_best[arm])
    spent = sum(outcome.device_seconds.values())
    return Measures(
        # A choice that would diverge if it were trained again has a macro-F1 of 0.
        regret_pp=100.0 * (landscape.true_best[best_arm] - (true_value if np.isfinite(true_value) else 0.0)),
        is_wrong=str(outcome.chosen[landscape.factor]) != best_arm,
        least_share=min(outcome.device_seconds.values()) / spent * len(outcome.device_seconds),
        spent_fraction=spent / budget_seconds,
        num_trials=outcome.num_trials,
        idle_fraction=outcome.idle_seconds / (outcome.idle_seconds + spent),
    )


def compute_mean_interval(values: FloatArray) -> Interval:
    """Return the mean of the (n,) values with Student's interval for the mean of more such values, n >= 2."""
    estimate = float(values.mean())
    standard_error = float(values.std(ddof=1)) / float(np.sqrt(len(values)))
    half_width = float(compute_t_quantile(CONFIDENCE, len(values) - 1)) * standard_error
    return Interval(estimate=estimate, low=estimate - half_width, high=estimate + half_width)


def compute_rate_interval(num_events: int, num_studies: int) -> Interval:
    """Return a rate with its Clopper-Pearson interval."""
    interval = binomtest(num_events, num_studies).proportion_ci(CONFIDENCE, method="exact")
    return Interval(estimate=num_events / num_studies, low=float(interval.low), high=float(interval.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Many studies of one setting, seed by seed.

    Attributes:
        regret_pp: mean and Student's interval.
        regrets_pp: (n,) of the seeds, for paired differences.
        wrong: rate of wrong winners and Clopper-Pearson interval.
        num_wrong, num_studies: its counts.
        median_share, lowest_share: of the arm that got least, relative to an equal part: 1 is equal.
        spent_fraction, num_trials, idle_fraction: medians.
    """

    regret_pp: Interval
    regrets_pp: FloatArray
    wrong: Interval
    num_wrong: int
    num_studies: int
    median_share: float
    lowest_share: float
    spent_fraction: float
    num_trials: float
    idle_fraction: float


def summarize(measures: Sequence[Measures]) -> Summary:
    """Return the summary of the studies of one setting, in the order of their seeds."""
    regrets = np.array([m.regret_pp for m in measures])
    shares = np.array([m.least_share for m in measures])
    num_wrong = sum(m.is_wrong for m in measures)
    return Summary(
        regret_pp=compute_mean_interval(regrets),
        regrets_pp=regrets,
        wrong=compute_rate_interval(num_wrong, len(measures)),
        num_wrong=num_wrong,
        num_studies=len(measures),
        median_share=float(np.median(shares)),
        lowest_share=float(shares.min()),
        spent_fraction=float(np.median([m.spent_fraction for m in measures])),
        num_trials=float(np.median([m.num_trials for m in measures])),
        idle_fraction=float(np.median([m.idle_fraction for m in measures])),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal: whether it is met, None where the figures cannot decide, and the figures."""

    name: str
    is_met: bool | None
    figures: str


def judge_goals(ours: Summary, stock: Summary) -> tuple[Goal, ...]:
    """Return the three goals of the search against stock, on the same curves, workers, budget and seeds.

    Regret is no worse if the mean paired difference is not above zero; its interval is shown. The second goal is open where
    neither side was ever wrong.
    """
    difference = compute_mean_interval(ours.regrets_pp - stock.regrets_pp)
    wrong = f"{ours.num_wrong} against {stock.num_wrong} of {ours.num_studies}"
    neither = ours.num_wrong == stock.num_wrong == 0
    share = f"median {ours.median_share:.2f}, lowest {ours.lowest_share:.2f} of equal"
    return (
        Goal(name="regret no worse", is_met=difference.estimate <= 0.0, figures=f"{format_interval(difference)} pp"),
        Goal(
            name="at most half the wrong winners",
            is_met=None if neither else 2 * ours.num_wrong <= stock.num_wrong,
            figures=wrong,
        ),
        Goal(name="arm shares within 10 % of equal", is_met=ours.median_share >= 1.0 - SHARE_TOLERANCE, figures=share),
    )


def format_interval(interval: Interval, digits: int = 2) -> str:
    """Return "estimate [low, high]"."""
    return f"{interval.estimate:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
