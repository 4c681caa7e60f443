"""Figures of many simulated searches, with intervals."""

from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from scipy.stats.contingency import relative_risk

from analysis.statistics.crossed_interval import compute_t_quantile
from analysis.statistics.interval import Interval

CONFIDENCE = 0.95


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


def format_interval(interval: Interval) -> str:
    """Return "estimate [low, high]"."""
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
