"""Runs that diverged are outcomes of their arm: how often they do, and what that means for a row's verdict.

A row is judged on the seeds whose runs finished, and by the numbers of runs that diverged. Where an arm diverged more often than
the other, a verdict in its favor counts only if the interval over all runs agrees, in which a run that diverged has the score of
its last finite epoch. That interval does not decide alone: with few seeds, a t interval over such scores covers badly. Against
that arm it decides together with Fisher's exact test on the numbers.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from analysis.arms.arm_evidence import ArmEvidence
from analysis.comparison.paired_difference import MAX_SEEDS, compute_verdict
from analysis.comparison.values import ArmDivergence, ComparisonRow, Verdict
from analysis.statistics.interval import Interval

DIVERGENCE_CONFIDENCE = 0.95
# Of alpha, for the test on the numbers, where a run diverged; the intervals use the rest, and are 8 % wider with five seeds.
# In a table of one row and look, 5 of 5 or 7 of 10 runs against none decide. Fisher's test is exact whatever the common rate is,
# and only more cautious where arms of one side diverge at unequal rates; Boschloo's and Barnard's are for two binomial numbers.
DIVERGENCE_SHARE = 0.2
_NEEDED = "more seeds, or settings that diverge less often, are needed"
TOO_FEW_FINISHED = f"fewer than two seeds finished in every arm; {_NEEDED}"
NOT_OVER_ALL_RUNS = f"the verdict on the runs that finished does not hold over all runs; {_NEEDED}"
NOT_BY_EITHER = f"neither the runs that finished nor the numbers that diverged decide it; {_NEEDED}"


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


def weigh_divergence(
    row: ComparisonRow, all_runs: ComparisonRow, treatment_arms: Collection[str], *, alpha: float, num_tests: int
) -> ComparisonRow:
    """Return the row over the finished runs, with the verdict and the adjusted p-value weighed against all runs.

    - The numbers decide against the side that diverged more often where Fisher's test rejects at its share of alpha, and the
      interval over all runs excludes 0 on that side.
    - Else a verdict that favors this side becomes UNDECIDED unless the row over all runs has it too.

    The adjusted p-value is the smaller one of the two, each the larger one of what it needs. Where the treatment diverged more
    often, non-inferiority must hold over all runs too.

    Args:
        row: over the seeds with which every run finished, with `divergence`; `all_runs` itself where these are fewer than two.
        all_runs: the row over all seeds; both have the rest of alpha.
        treatment_arms: arms of the treatment; the others are those of the control.
        alpha: family-wise error rate over all rows and looks.
        num_tests: rows times looks.
    """
    numbers = [_count(row, treatment_arms, is_treatment=is_treatment) for is_treatment in (True, False)]
    (treated, of_treated), (control, of_control) = numbers
    excess = treated * of_control - control * of_treated
    finished, p_numbers = None if row.effect == all_runs.effect else row, _test(numbers, num_tests)
    row = replace(row, p_adjusted=_combine_p_values(finished, all_runs, excess, p_numbers))
    if excess > 0 and row.p_noninferior is not None and all_runs.p_noninferior is not None:
        row = replace(row, p_noninferior=max(row.p_noninferior, all_runs.p_noninferior))
    over_all, materiality = compute_verdict(all_runs.effect, row.margin)
    is_against = over_all is (Verdict.WORSE if excess > 0 else Verdict.BETTER) and excess != 0
    if is_against and p_numbers < alpha and (finished is None or row.verdict is not over_all):
        return replace(row, verdict=over_all, materiality=materiality, settles="")
    favored = {Verdict.BETTER: excess > 0, Verdict.WORSE: excess < 0, Verdict.EQUIVALENT: excess != 0}
    is_withheld = finished is None or (favored.get(row.verdict, False) and all_runs.verdict is not row.verdict)
    if not is_withheld and row.verdict is not Verdict.UNDECIDED:
        return row
    effect, settles = row.effect.estimate, NOT_BY_EITHER
    if is_against and (seeds := _find_num_seeds(numbers, all_runs.num_seeds, alpha, num_tests)) is not None:
        settles = f"about {seeds} seeds would settle it by the runs that diverge (now {all_runs.num_seeds}), if their shares stay"
    elif is_withheld:
        settles = TOO_FEW_FINISHED if finished is None else NOT_OVER_ALL_RUNS
    elif excess == 0 or (excess * effect < 0 and 2 * abs(effect) > row.margin):
        settles = f"{row.settles}; only seeds with which every run finishes count"
    return replace(row, verdict=Verdict.UNDECIDED, materiality="", settles=settles)


def _count(row: ComparisonRow, treatment_arms: Collection[str], *, is_treatment: bool) -> tuple[int, int]:
    """Return the runs of one side that diverged, and all of its runs."""
    arms = [found for found in row.divergence if (found.arm in treatment_arms) is is_treatment]
    return sum(found.num_diverged for found in arms), sum(found.num_runs for found in arms)


def _test(numbers: Sequence[tuple[int, int]], num_tests: int) -> float:
    """Return the adjusted p-value of the test on (runs that diverged, runs) of both sides."""
    table = np.array([[diverged, runs - diverged] for diverged, runs in numbers])
    return min(1.0, float(stats.fisher_exact(table)[1]) * num_tests / DIVERGENCE_SHARE)


def _find_num_seeds(numbers: Sequence[tuple[int, int]], now: int, alpha: float, num_tests: int) -> int | None:
    """Return the fewest seeds with which the numbers decide if their shares stay; None if above `MAX_SEEDS`."""
    grown = {n: [(round(d * n / now), runs * n // now) for d, runs in numbers] for n in range(now, MAX_SEEDS + 1)}
    return next((n for n, counts in grown.items() if _test(counts, num_tests) < alpha), None)


def _combine_p_values(
    finished: ComparisonRow | None, all_runs: ComparisonRow, excess: int, p_numbers: float
) -> float | None:
    """Return the smaller one of two p-values: of the finished runs, where all runs agree, and of the numbers, likewise."""
    if all_runs.p_adjusted is None:
        return None
    p_all, toward = all_runs.p_adjusted / (1 - DIVERGENCE_SHARE), all_runs.effect.estimate * excess
    p_finished = 1.0
    if finished is not None and finished.p_adjusted is not None:
        p_finished = finished.p_adjusted / (1 - DIVERGENCE_SHARE)
        if finished.effect.estimate * excess > 0:
            p_finished = max(p_finished, p_all) if toward > 0 else 1.0
    return min(1.0, p_finished, max(p_numbers, p_all) if toward < 0 else 1.0)
