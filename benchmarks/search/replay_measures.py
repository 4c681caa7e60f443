"""Figures of one simulated study, and of many with intervals."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from analysis.findings.interval import Interval
from analysis.statistics.crossed_interval import compute_t_quantile
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
    """Return the mean of the (n,) values with Student's interval for the mean of more such values, n >= 2."""
    estimate, half_width = float(values.mean()), float(compute_t_quantile(CONFIDENCE, len(values) - 1) * values.sem())
    return Interval(estimate=estimate, low=estimate - half_width, high=estimate + half_width)


@dataclass(frozen=True, slots=True)
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
    difference = compute_mean_interval(ours.measures["regret_pp"] - stock.measures["regret_pp"])
    wrong = f"{ours.num_wrong} against {stock.num_wrong} of {ours.num_studies}"
    neither, share = ours.num_wrong == stock.num_wrong == 0, ours.median("least_share")
    shares = f"median {share:.2f}, lowest {ours.lowest_share:.2f} of equal"
    return (
        Goal("regret no worse", difference.estimate <= 0.0, f"{format_interval(difference)} pp"),
        Goal("at most half the wrong winners", None if neither else 2 * ours.num_wrong <= stock.num_wrong, wrong),
        Goal("arm shares within 10 % of equal", share >= 1.0 - SHARE_TOLERANCE, shares),
    )


def format_interval(interval: Interval) -> str:
    """Return "estimate [low, high]"."""
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
