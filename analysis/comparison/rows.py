"""The rows of the A/B table: judged at the planned looks, then completed with a cross-check and the classes.

Runs that diverged are outcomes of their arm: how often they do counts for a row's verdict. A row is judged on the seeds whose
runs finished, and by the numbers of runs that diverged. Where an arm diverged more often than the other, a verdict in its
favor counts only if the interval over all runs agrees, in which a run that diverged has the score of its last finite epoch.
That interval does not decide alone: with few seeds, a t interval over such scores covers badly. Against that arm it decides
together with Fisher's exact test on the numbers.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import stats

from analysis.arms.arm_evidence import ArmEvidence
from analysis.comparison import other_intervals
from analysis.comparison.exploratory import compute_class_differences, compute_side_metrics
from analysis.comparison.paired_difference import MAX_SEEDS, compare_arms, compute_seed_differences, compute_verdict
from analysis.comparison.values import ArmDivergence, ComparisonRow, SideMetric, Verdict
from analysis.statistics.arm_predictions import Side, average_arms, describe_few_discordant, measure_discordance
from analysis.statistics.interval import Interval
from analysis.statistics.moderated_variances import SharedVariance, share_variances
from search_spaces.designs import Contrast

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRule:
    """How the plan judges rows.

    Attributes:
        seeds: in the order in which the looks use them.
        looks: numbers of seeds at which a row is judged, increasing.
        intervals: "planned", "anytime" or "moderated".
        margin: equivalence margin in macro-F1, a fraction.
        alpha: family-wise error rate over all rows and looks.
        num_rows: rows of the table.
    """

    seeds: tuple[int, ...]
    looks: tuple[int, ...]
    intervals: str
    margin: float
    alpha: float
    num_rows: int


# A contrast of treatment and control, each one arm or several, with the evidence by arm.
Contrasted = tuple[Contrast, Mapping[str, ArmEvidence]]


def compute_rows(judged: Sequence[Contrasted], rule: RowRule) -> list[ComparisonRow | None]:
    """Return each row at the first look that decides it, else at the last look whose trials are complete.

    Looks after the deciding one are ignored, even where their trials are complete: a row is decided once. Moderated rows are
    judged together at each look, when the trials of all that are still undecided are complete.

    Args:
        judged: the contrasts.
        rule: of the plan.

    Returns:
        The rows, without their cross-check and classes (`complete_row`); None before the first look.
    """
    rows: list[ComparisonRow | None] = [None] * len(judged)
    waiting = list(range(len(judged)))
    for number in range(1, len(rule.looks) + 1):
        seeds = {i: _seeds_of_look(judged[i], rule, number) for i in waiting}
        complete = [i for i in waiting if all(seeds[i] <= set(judged[i][1][arm].seeds) for arm in judged[i][0].arms)]
        shared: Mapping[int, SharedVariance] = {}
        if rule.intervals == "moderated":
            if len(complete) < len(waiting):
                break
            shared = _share(judged, seeds, rule.looks[number - 1])
        for i in complete:
            rows[i] = _judge(judged[i], seeds[i], rule, number, shared.get(i))
        waiting = [i for i in complete if (row := rows[i]) is not None and row.verdict is Verdict.UNDECIDED]
    return rows


def _share(judged: Sequence[Contrasted], seeds: Mapping[int, set[int]], num_seeds: int) -> dict[int, SharedVariance]:
    """Return the shared variances of the rows whose runs all finished; a row with another run stands alone."""
    differences = {}
    for i, own in seeds.items():
        contrast, evidence = judged[i]
        if len(own) == num_seeds and not any(evidence[arm].with_seeds(own).diverged for arm in contrast.arms):
            differences[i] = compute_seed_differences(*make_sides(contrast, evidence, own))
    found = share_variances(list(differences.values()))
    return {} if found is None else dict(zip(differences, found, strict=True))


def _seeds_of_look(judged: Contrasted, rule: RowRule, look: int) -> set[int]:
    contrast, evidence = judged
    failed = {seed for arm in contrast.arms for seed in evidence[arm].failed_seeds}
    return set(rule.seeds[: rule.looks[look - 1]]) - failed


def make_sides(contrast: Contrast, evidence: Mapping[str, ArmEvidence], seeds: Collection[int]) -> tuple[Side, Side]:
    """Return the two sides of a contrast with these seeds: an arm, or the average of several."""

    def average(name: str, arms: Sequence[str]) -> Side:
        members = tuple(evidence[arm].with_seeds(seeds).stacked() for arm in arms)
        is_arm = len(members) == 1 and contrast.scale == 1
        return members[0] if is_arm else average_arms(name, members, contrast.scale)

    return average(contrast.treatment, contrast.treatment_arms), average(contrast.control, contrast.control_arms)


def _judge(
    judged: Contrasted, seeds: set[int], rule: RowRule, look: int, shared: SharedVariance | None
) -> ComparisonRow:
    """Return the row over the seeds with which every arm's run finished, weighed against the runs that diverged."""
    contrast, evidence = judged
    arms = [evidence[arm].with_seeds(seeds) for arm in contrast.arms]
    if not any(arm.diverged for arm in arms):
        return _judge_seeds(judged, seeds, rule, look, shared)
    rest = replace(rule, alpha=(1 - DIVERGENCE_SHARE) * rule.alpha)
    all_runs = _judge_seeds(judged, seeds, rest, look)
    finished = _find_judged_seeds(judged, seeds)
    row = all_runs if finished == seeds else _judge_seeds(judged, finished, rest, look)
    row = replace(
        row,
        p_value=None if finished == seeds else row.p_value,
        divergence=tuple(measure_divergence(arm) for arm in arms),
        all_runs_effect=all_runs.effect,
    )
    num_tests = rule.num_rows * len(rule.looks)
    return weigh_divergence(row, all_runs, contrast.treatment_arms, alpha=rule.alpha, num_tests=num_tests)


def _find_judged_seeds(judged: Contrasted, seeds: set[int]) -> set[int]:
    """Return the seeds with which no arm's run diverged; all seeds if there are fewer than two such seeds."""
    contrast, evidence = judged
    finished = seeds - {r.config.seed for arm in contrast.arms for r in evidence[arm].diverged}
    return finished if len(finished) >= 2 else seeds


def _judge_seeds(
    judged: Contrasted, seeds: Collection[int], rule: RowRule, look: int, shared: SharedVariance | None = None
) -> ComparisonRow:
    contrast, evidence = judged
    treatment, control = make_sides(contrast, evidence, seeds)
    treatment_seconds, control_seconds = (
        fmean(evidence[arm].with_seeds(seeds).device_seconds for arm in arms)
        for arms in (contrast.treatment_arms, contrast.control_arms)
    )
    is_anytime = rule.intervals == "anytime"
    row = compare_arms(
        treatment,
        control,
        margin=rule.margin,
        alpha=rule.alpha,
        num_rows=rule.num_rows,
        cost_ratio=treatment_seconds / control_seconds,
        look=look,
        num_looks=1 if is_anytime else len(rule.looks),
        shared=shared,
    )
    if not is_anytime:
        return row
    return _make_anytime(row, treatment, control, num_looks=len(rule.looks))


def _make_anytime(row: ComparisonRow, treatment: Side, control: Side, num_looks: int) -> ComparisonRow:
    """Return the row with an interval that holds at every look, without the figures of a fixed number of seeds."""
    effect = other_intervals.compute_anytime_interval(treatment, control, row.confidence)
    discordance = measure_discordance(treatment, control)
    verdict, materiality = compute_verdict(effect, row.margin, discordance.number)
    fewest = other_intervals.compute_fewest_seeds(row.confidence)
    settles = ""
    if verdict is Verdict.UNDECIDED and row.num_seeds < fewest:
        settles = f"an interval that holds at every look needs at least {fewest} seeds (now {row.num_seeds})"
    elif verdict is Verdict.UNDECIDED:
        settles = describe_few_discordant(
            discordance, effect.estimate, row.margin
        ) or other_intervals.describe_what_settles_anytime(treatment, control, row.margin, row.confidence)
    undefined: dict[str, Any] = dict.fromkeys(("standard_error", "degrees_of_freedom", "minimum_detectable_effect"))
    undefined |= dict.fromkeys(("p_value", "p_adjusted", "p_noninferior"))
    return replace(
        row,
        effect=effect,
        verdict=verdict,
        materiality=materiality,
        settles=settles,
        num_looks=num_looks,
        intervals="anytime",
        **undefined,
    )


def complete_row(
    row: ComparisonRow,
    contrast: Contrast,
    evidence: Mapping[str, ArmEvidence],
    rule: RowRule,
    class_names: Sequence[str],
    *,
    plan_changed: bool,
    groups: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> ComparisonRow:
    """Return the row with the crossed bootstrap, the differences class by class, and whether the plan was changed.

    Args:
        row: from `compute_rows`; an anytime row gets no bootstrap, which holds for a fixed number of seeds, and neither does a
            moderated one, of which the bootstrap of the row alone knows less.
        contrast: of the row.
        evidence: by arm.
        rule: of the plan.
        class_names: K names; a class indexes them.
        plan_changed: whether the plan was changed after it was written.
        groups: names of classes by the name of their group, for the metrics beside macro-F1.
    """
    judged = contrast, evidence
    seeds = _find_judged_seeds(judged, _seeds_of_look(judged, rule, row.look))
    treatment, control = make_sides(contrast, evidence, seeds)
    bootstrap = None
    side_metrics: tuple[SideMetric, ...] = ()
    if row.intervals == "planned":
        bootstrap = other_intervals.compute_crossed_bootstrap(treatment, control, confidence=row.confidence)
    # None for an interaction, which compares differences of differences.
    if contrast.scale == 1:
        treated, controls = (
            [[evidence[arm].by_seed[seed] for seed in treatment.seeds] for arm in arms]
            for arms in (contrast.treatment_arms, contrast.control_arms)
        )
        side_metrics = compute_side_metrics(treated, controls, class_names, groups)
    return replace(
        row,
        bootstrap=bootstrap,
        class_differences=compute_class_differences(treatment, control, class_names),
        side_metrics=side_metrics,
        plan_changed=plan_changed,
    )
