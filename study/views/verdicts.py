"""The tables of a compared study for the terminal: rows, arms, baselines, and what is handed over."""

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console

from analysis.arms.render import build_arm_rich_table
from analysis.arms.values import ArmScores
from analysis.baselines.render import build_baseline_rich_table, describe_handover
from analysis.baselines.values import BaselineFindings
from analysis.comparison.render import format_row_lines
from analysis.comparison.tables import build_rich_table
from analysis.comparison.values import ComparisonRow
from study.confirmation.plan import followed_plan
from study.open_study import OpenStudy
from study.results.stored_findings import load_findings
from study.views.printing import print_lines


class Compared(Protocol):
    """What a comparison and findings have in common: the rows of the arms, and the baselines."""

    @property
    def rows(self) -> tuple[ComparisonRow, ...]:
        """The rows of the A/B table."""

    @property
    def baselines(self) -> BaselineFindings | None:
        """The baselines, with what is handed over."""


def print_verdicts(study: OpenStudy, console: Console) -> list[str]:
    """Print the tables of an analyzed study from its findings; return what `print_comparison` returns."""
    found = load_findings(study)
    return print_comparison(study, found, found.arms, console)


def print_comparison(study: OpenStudy, found: Compared, arms: Sequence[ArmScores], console: Console) -> list[str]:
    """Print the A/B table, the arms and the baselines; return one message per arm that misses the minimum."""
    rows, baselines = found.rows, found.baselines
    shown = [*rows, baselines.row] if baselines is not None and baselines.row is not None else rows
    if shown:
        console.print(build_rich_table(shown))
    console.print(build_arm_rich_table(arms))
    print_lines(format_row_lines(rows), console)
    if baselines is not None:
        console.print(build_baseline_rich_table(baselines))
        print_lines(describe_handover(baselines, rows, study.store.argument), console)
    if study.spec.minimum is None:
        return []
    minimum, scores = study.spec.minimum.macro_f1, {arm.arm: arm for arm in arms}
    chosen = (
        {arm.name for arm in study.spec.arms()}
        if (plan := followed_plan(study.book, study.spec)) is None
        else plan.chosen
    )
    missed = [name for name in chosen if name not in scores or not scores[name].minimum_cleared]
    return [_describe_missed_minimum(name, scores.get(name), minimum) for name in missed]


def _describe_missed_minimum(name: str, scores: ArmScores | None, minimum: float) -> str:
    if scores is None:
        return f"minimum missed: every run of {name} diverged; the minimum is {minimum}"
    found = scores.test_macro_f1
    estimate = f"minimum missed: {name} has macro-F1 {found.estimate:.4f} on the test split"
    if found.recipe is None:
        why = "no lower bound, since fewer than two of its runs finished"
        return f"{estimate}, but {why}; the minimum is {minimum}"
    bound = f"{estimate}, lower bound for the recipe {found.recipe.low:.4f}, but"
    if found.recipe.low > minimum:
        return f"{bound} with its runs that diverged not above the minimum of {minimum}"
    return f"{bound} the minimum is {minimum}"
