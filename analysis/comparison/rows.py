"""The rows of the A/B table: judged at the planned looks, then completed with a cross-check and the classes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from types import MappingProxyType

from analysis.arms.arm_evidence import ArmEvidence
from analysis.comparison.divergence import DIVERGENCE_SHARE, measure_divergence, weigh_divergence
from analysis.comparison.exploratory import compute_class_differences, compute_side_metrics
from analysis.comparison.other_intervals import (
    compute_anytime_interval,
    compute_crossed_bootstrap,
    compute_fewest_seeds,
    describe_what_settles_anytime,
)
from analysis.comparison.paired_difference import compare_arms, compute_seed_differences, compute_verdict
from analysis.comparison.values import ComparisonRow, SideMetric, Verdict
from analysis.statistics.arm_predictions import ArmAverage, Side, describe_few_discordant, measure_discordance
from analysis.statistics.moderated_variances import SharedVariance, share_variances
from search_spaces.designs import Contrast


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


def compute_rows(
    judged: Sequence[tuple[Contrast, Mapping[str, ArmEvidence]]], rule: RowRule
) -> list[ComparisonRow | None]:
    """Return each row at the first look that decides it, else at the last look whose trials are complete.

    Looks after the deciding one are ignored, even where their trials are complete: a row is decided once. Moderated rows are
    judged together at each look, when the trials of all that are still undecided are complete.

    Args:
        judged: contrasts of treatment and control, each one arm or several, with the evidence by arm.
        rule: of the plan.

    Returns:
        The rows, without their cross-check and classes (`complete_row`); None before the first look.
    """
    rows: list[ComparisonRow | None] = [None] * len(judged)
    waiting = list(range(len(judged)))
    for number in range(1, len(rule.looks) + 1):
        seeds = {i: _seeds_of_look(*judged[i], rule, number) for i in waiting}
        complete = [i for i in waiting if all(seeds[i] <= set(judged[i][1][arm].seeds) for arm in judged[i][0].arms)]
        shared: Mapping[int, SharedVariance] = {}
        if rule.intervals == "moderated":
            if len(complete) < len(waiting):
                break
            shared = _share(judged, seeds, rule.looks[number - 1])
        for i in complete:
            rows[i] = _judge(*judged[i], seeds[i], rule, number, shared.get(i))
        waiting = [i for i in complete if (row := rows[i]) is not None and row.verdict is Verdict.UNDECIDED]
    return rows


def _share(
    judged: Sequence[tuple[Contrast, Mapping[str, ArmEvidence]]], seeds: Mapping[int, set[int]], num_seeds: int
) -> dict[int, SharedVariance]:
    """Return the shared variances of the rows whose runs all finished; a row with another run stands alone."""
    differences = {}
    for i, own in seeds.items():
        contrast, evidence = judged[i]
        if len(own) == num_seeds and not any(evidence[arm].with_seeds(own).diverged for arm in contrast.arms):
            differences[i] = compute_seed_differences(*make_sides(contrast, evidence, own))
    found = share_variances(list(differences.values()))
    return {} if found is None else dict(zip(differences, found, strict=True))


def _seeds_of_look(contrast: Contrast, evidence: Mapping[str, ArmEvidence], rule: RowRule, look: int) -> set[int]:
    failed = {seed for arm in contrast.arms for seed in evidence[arm].failed_seeds}
    return set(rule.seeds[: rule.looks[look - 1]]) - failed


def make_sides(contrast: Contrast, evidence: Mapping[str, ArmEvidence], seeds: Collection[int]) -> tuple[Side, Side]:
    """Return the two sides of a contrast with these seeds: an arm, or the average of several."""

    def average(name: str, arms: Sequence[str]) -> Side:
        members = tuple(evidence[arm].with_seeds(seeds).stacked() for arm in arms)
        is_arm = len(members) == 1 and contrast.scale == 1
        return members[0] if is_arm else ArmAverage(name=name, members=members, scale=contrast.scale)

    return average(contrast.treatment, contrast.treatment_arms), average(contrast.control, contrast.control_arms)


def _judge(
    contrast: Contrast,
    evidence: Mapping[str, ArmEvidence],
    seeds: set[int],
    rule: RowRule,
    look: int,
    shared: SharedVariance | None,
) -> ComparisonRow:
    """Return the row over the seeds with which every arm's run finished, weighed against the runs that diverged."""
    arms = [evidence[arm].with_seeds(seeds) for arm in contrast.arms]
    if not any(arm.diverged for arm in arms):
        return _judge_seeds(contrast, evidence, seeds, rule, look, shared)
    rest = replace(rule, alpha=(1 - DIVERGENCE_SHARE) * rule.alpha)
    all_runs = _judge_seeds(contrast, evidence, seeds, rest, look)
    judged = _find_judged_seeds(contrast, evidence, seeds)
    row = all_runs if judged == seeds else _judge_seeds(contrast, evidence, judged, rest, look)
    row = replace(
        row,
        p_value=None if judged == seeds else row.p_value,
        divergence=tuple(measure_divergence(arm) for arm in arms),
        all_runs_effect=all_runs.effect,
    )
    num_tests = rule.num_rows * len(rule.looks)
    return weigh_divergence(row, all_runs, contrast.treatment_arms, alpha=rule.alpha, num_tests=num_tests)


def _find_judged_seeds(contrast: Contrast, evidence: Mapping[str, ArmEvidence], seeds: set[int]) -> set[int]:
    """Return the seeds with which no arm's run diverged; all seeds if there are fewer than two such seeds."""
    finished = seeds - {r.config.seed for arm in contrast.arms for r in evidence[arm].diverged}
    return finished if len(finished) >= 2 else seeds


def _judge_seeds(
    contrast: Contrast,
    evidence: Mapping[str, ArmEvidence],
    seeds: Collection[int],
    rule: RowRule,
    look: int,
    shared: SharedVariance | None = None,
) -> ComparisonRow:
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
    effect = compute_anytime_interval(treatment, control, row.confidence)
    discordance = measure_discordance(treatment, control)
    verdict, materiality = compute_verdict(effect, row.margin, discordance.number)
    fewest = compute_fewest_seeds(row.confidence)
    settles = ""
    if verdict is Verdict.UNDECIDED and row.num_seeds < fewest:
        settles = f"an interval that holds at every look needs at least {fewest} seeds (now {row.num_seeds})"
    elif verdict is Verdict.UNDECIDED:
        settles = describe_few_discordant(discordance, effect.estimate, row.margin)
        settles = settles or describe_what_settles_anytime(treatment, control, row.margin, row.confidence)
    return replace(
        row,
        effect=effect,
        verdict=verdict,
        materiality=materiality,
        settles=settles,
        num_looks=num_looks,
        intervals="anytime",
        standard_error=None,
        degrees_of_freedom=None,
        minimum_detectable_effect=None,
        p_value=None,
        p_adjusted=None,
        p_noninferior=None,
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
    seeds = _seeds_of_look(contrast, evidence, rule, row.look)
    treatment, control = make_sides(contrast, evidence, _find_judged_seeds(contrast, evidence, seeds))
    bootstrap = None
    side_metrics: tuple[SideMetric, ...] = ()
    if row.intervals == "planned":
        bootstrap = compute_crossed_bootstrap(treatment, control, confidence=row.confidence)
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
