"""Runs that diverged are outcomes of their arm: how often they do, and what that takes away from a row's verdict.

A row is judged on the seeds whose runs finished. Where an arm diverged more often than the other, a verdict in its favor counts
only if the interval over all runs agrees, in which a run that diverged has the score of its last finite epoch. That interval does
not decide alone: with few seeds, a t interval over such scores covers badly.
"""

from dataclasses import replace

from scipy import stats

from analysis.evidence.arm_evidence import ArmEvidence
from analysis.findings.comparison_findings import ArmDivergence, ComparisonRow, Verdict
from analysis.findings.interval import Interval
from analysis.statistics.comparison import compute_verdict

DIVERGENCE_CONFIDENCE = 0.95
TOO_FEW_FINISHED = "runs of every arm finished with fewer than two seeds; only more seeds can settle it"
NOT_OVER_ALL_RUNS = "the verdict on the runs that finished does not hold over all runs; more seeds are needed"


def measure_divergence(arm: ArmEvidence) -> ArmDivergence:
    """Return how often the runs of an arm diverged, with the Clopper-Pearson interval of the rate."""
    num_diverged, num_runs = len(arm.diverged), len(arm.runs)
    interval = stats.binomtest(num_diverged, num_runs).proportion_ci(DIVERGENCE_CONFIDENCE, method="exact")
    return ArmDivergence(
        arm=arm.arm,
        rate=Interval(estimate=num_diverged / num_runs, low=float(interval.low), high=float(interval.high)),
        num_diverged=num_diverged,
        num_runs=num_runs,
        epochs=tuple(r.last_finite_epoch or 0 for r in arm.diverged),
    )


def weigh_divergence(finished: ComparisonRow, all_runs: ComparisonRow, excess: int) -> ComparisonRow:
    """Return the row over the finished runs, with its verdict weighed against all runs.

    A verdict that favors the side that diverged more often becomes UNDECIDED unless the row over all runs has it too.

    The adjusted p-value follows: for the side that diverged more often it is the larger one of both rows.

    Args:
        finished: the row over the seeds with which every run finished.
        all_runs: the row over all seeds.
        excess: runs of the treatment that diverged, minus those of the control.
    """
    verdict = compute_verdict(all_runs.effect, finished.margin)[0]
    favored = {
        Verdict.BETTER: excess > 0,
        Verdict.WORSE: excess < 0,
        Verdict.EQUIVALENT: excess != 0,
        Verdict.UNDECIDED: False,
    }[finished.verdict]
    row = replace(finished, p_adjusted=_combine_p_values(finished, all_runs, excess))
    return withhold_verdict(row, NOT_OVER_ALL_RUNS) if favored and verdict is not finished.verdict else row


def withhold_verdict(row: ComparisonRow, settles: str) -> ComparisonRow:
    """Return the row as UNDECIDED, with what would settle it."""
    return replace(row, verdict=Verdict.UNDECIDED, materiality="", settles=settles)


def _combine_p_values(finished: ComparisonRow, all_runs: ComparisonRow, excess: int) -> float | None:
    if finished.p_adjusted is None or all_runs.p_adjusted is None or finished.effect.estimate * excess <= 0:
        return finished.p_adjusted
    agree = finished.effect.estimate * all_runs.effect.estimate > 0
    return max(finished.p_adjusted, all_runs.p_adjusted) if agree else 1.0
