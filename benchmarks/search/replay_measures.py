"""Figures of one simulated study, and of many with intervals."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import binomtest, fisher_exact, quantile_test
from scipy.stats.contingency import relative_risk

from analysis.statistics.crossed_interval import compute_t_quantile
from analysis.statistics.interval import Interval
from benchmarks.search.curve_surrogate import CurveSurrogate
from benchmarks.search.replay_simulation import Outcome

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


def measure(outcome: Outcome, landscape: CurveSurrogate, budget_seconds: float) -> Measures:
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


class Summary:
    """Many studies of one setting, in the order of their seeds, with intervals at 95 %.

    Attributes:
        measures: a row per study and a column per field of `Measures`.
        regret_pp: mean and Student's interval.
        wrong: rate of wrong winners and Clopper-Pearson interval.
        num_wrong, num_studies: its counts.
    """

    def __init__(self, measures: Sequence[Measures]) -> None:
        """Summarize the figures of at least two studies."""
        self.measures = pd.DataFrame([asdict(m) for m in measures])
        self.regret_pp = compute_mean_interval(self.measures["regret_pp"])
        self.num_wrong, self.num_studies = int(self.measures["is_wrong"].sum()), len(measures)
        exact = binomtest(self.num_wrong, self.num_studies).proportion_ci(CONFIDENCE, method="exact")
        self.wrong = Interval(estimate=self.num_wrong / self.num_studies, low=float(exact.low), high=float(exact.high))

    def median(self, column: str) -> float:
        """Return the median of a field of `Measures`."""
        return float(self.measures[column].median())

    @property
    def lowest_share(self) -> float:
        """Of the device time of the arm that got least, relative to an equal part, in any study."""
        return float(self.measures["least_share"].min())


def compute_mean_interval(values: "pd.Series[float]") -> Interval:
    """Return the mean of the (n,) values with Student's interval for the mean of more such values, n >= 2.

    Raises:
        ValueError: if a value is NaN, which pandas would leave out of the mean but not of n.
    """
    if values.isna().any():
        raise ValueError(f"{values.isna().sum()} of {len(values)} values are NaN")
    estimate, half_width = float(values.mean()), float(compute_t_quantile(CONFIDENCE, len(values) - 1) * values.sem())
    return Interval(estimate=estimate, low=estimate - half_width, high=estimate + half_width)


Verdict = Literal["met", "MISSED", "open"]


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal: the verdict, "open" where the figures cannot decide, and the figures."""

    name: str
    verdict: Verdict
    figures: str


def judge_goals(ours: Summary, stock: Summary) -> tuple[Goal, ...]:
    """Return the three goals of the search against stock, on the same curves, workers, budget and seeds, judged at 95 %.

    Regret is no worse if the interval of the mean paired difference ends at or below zero. There are at most half as many wrong
    winners if the interval of the ratio of the rates ends at one half or below. Shares are equal if the interval of the median
    share lies within the tolerance.
    """
    difference = compute_mean_interval(ours.measures["regret_pp"] - stock.measures["regret_pp"])
    counts = (ours.num_wrong, ours.num_studies), (stock.num_wrong, stock.num_studies)
    share = compute_median_interval(ours.measures["least_share"])
    ratio = format_interval(compute_rate_ratio(*counts))
    wrong = f"{ours.num_wrong} against {stock.num_wrong} of {ours.num_studies}, ratio {ratio}"
    shares = f"median {format_interval(share)}, lowest {ours.lowest_share:.2f} of equal"
    return (
        Goal("regret no worse", _judge(-difference.high, -difference.low, 0.0), f"{format_interval(difference)} pp"),
        Goal("fewer wrong winners, at most half", judge_wrong(*counts), wrong),
        Goal("arm shares within 10 % of equal", _judge(share.low, share.high, 1.0 - SHARE_TOLERANCE), shares),
    )


def _judge(low: float, high: float, goal: float) -> Verdict:
    """Return whether values in [low, high] reach at least the goal."""
    if low >= goal:
        return "met"
    return "MISSED" if high < goal else "open"


def judge_wrong(ours: tuple[int, int], other: tuple[int, int]) -> Verdict:
    """Return whether we choose the wrong arm at most half as often; open where the interval of the ratio cannot tell.

    Args:
        ours: wrong choices, and all.
        other: the same of another way to search.
    """
    ratio = compute_rate_ratio(ours, other)
    return _judge(-ratio.high, -ratio.low, -0.5)


def compute_rate_ratio(ours: tuple[int, int], other: tuple[int, int]) -> Interval:
    """Return the ratio of two rates of wrong choices with SciPy's interval, that of Katz et al. (1978).

    Where one side is never wrong, that interval does not exist. Then the wrong choices of one side, given those of both, are
    taken as binomial, as for rare events (Przyborowski and Wilenski 1940), which is conservative: the Clopper-Pearson interval of
    their share gives that of the ratio. Where no choice is wrong, nothing is known.

    Args:
        ours: wrong choices, and all.
        other: the same of another way to search.
    """
    total = ours[0] + other[0]
    if not total:
        return Interval(estimate=np.nan, low=0.0, high=np.inf)
    if ours[0] and other[0]:
        risk = relative_risk(*ours, *other)
        katz = risk.confidence_interval(CONFIDENCE)
        return Interval(estimate=float(risk.relative_risk), low=float(katz.low), high=float(katz.high))
    exact = binomtest(ours[0], total).proportion_ci(CONFIDENCE, method="exact")
    shares = np.array([ours[0] / total, exact.low, exact.high])
    with np.errstate(divide="ignore"):
        estimate, low, high = (shares / (1 - shares) * other[1] / ours[1]).tolist()
    return Interval(estimate=estimate, low=low, high=high)


def compare_wrong(one: Summary, other: Summary) -> float:
    """Return the two-sided p-value of Fisher's exact test that two ways to search choose the wrong arm equally often."""
    return compare_wrong_counts((one.num_wrong, one.num_studies), (other.num_wrong, other.num_studies))


def compare_wrong_counts(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Return the same p-value from wrong choices and all choices of both."""
    return float(fisher_exact([[wrong, total - wrong] for wrong, total in (one, other)]).pvalue)


def compute_median_interval(values: "pd.Series[float]") -> Interval:
    """Return the median of the (n,) values with the interval of the sign test; infinite bounds for n < 6."""
    exact = quantile_test(values, p=0.5).confidence_interval(CONFIDENCE)
    low, high = (bound if np.isfinite(bound) else end for bound, end in zip(exact, (-np.inf, np.inf), strict=True))
    return Interval(estimate=float(values.median()), low=float(low), high=float(high))


def format_interval(interval: Interval) -> str:
    """Return "estimate [low, high]"."""
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
