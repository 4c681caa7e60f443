"""What follows the training of a study: its findings, its tables and its report, and what comes next.

The analysis takes a second to import, so that `study.commands` imports it after the search.
"""

from collections.abc import Collection, Sequence

from rich.console import Console

from analysis.findings.baseline_findings import BaselineFindings
from analysis.findings.comparison_findings import ComparisonRow
from analysis.findings.intervention_findings import InterventionFindings
from analysis.findings.score_findings import ArmScores
from analysis.findings.study_findings import Findings
from analysis.report.arm_tables import build_arm_rich_table
from analysis.report.baseline_tables import build_baseline_rich_table, describe_handover
from analysis.report.intervention_tables import build_intervention_rich_table, format_effect
from analysis.report.side_metric_tables import format_side_line
from analysis.report.tables import build_rich_table, format_row
from search_spaces.errors import UserInputError
from study.cluster.workers import Workers
from study.confirmation.evidence import require_plan
from study.inputs.preparation import Prepared
from study.interventions.forecast import describe_next
from study.open_study import OpenStudy, open_to_drive
from study.results.comparison import compare as compute_comparison
from study.results.findings import analyze, is_concluded, load_findings
from study.results.report import write_report
from study.results.rounds import find_parent, load_rounds
from study.state.paths import ReportFormat
from study.views.printing import print_line
from study.views.recommendation import write_recommendation


def analyze_study(opened: OpenStudy, prepared: Prepared, workers: Workers, console: Console) -> Findings:
    """Compute the findings, which takes minutes, and print each step as it begins."""
    with console.status("analysis") as status:

        def say(step: str) -> None:
            status.update(f"analysis: {step}")
            if not console.is_terminal:
                print_line(f"analysis: {step}", console)

        return analyze(opened, prepared.image_set, workers, say)


def conclude_again(opened: OpenStudy, prepared: Prepared, console: Console) -> list[str] | None:
    """Write the report of a finished study anew, as `conclude`; return None, and write nothing, if anything of it is left."""
    if not is_concluded(opened):
        return None
    print_line(f"study {opened.name} at {opened.store.root} is finished, and its findings match its records", console)
    return conclude(opened, load_findings(opened), prepared, console)


def conclude(opened: OpenStudy, findings: Findings, prepared: Prepared, console: Console) -> list[str]:
    """Write the report, print the tables and what comes next, and return the arms that miss the minimum."""
    write_reports(opened, console)
    missed_minimums = print_comparison(opened, findings.rows, findings.arms, findings.baselines, console)
    if findings.interventions is None:
        print_line(describe_next(opened, findings, prepared.image_set.images.shape[1]), console)
        return missed_minimums
    print_interventions(findings.interventions, console)
    for place in write_recommendation(opened, findings.interventions):
        print_line(place, console)
    _report_parent(opened, console)
    return missed_minimums


def _report_parent(opened: OpenStudy, console: Console) -> None:
    """Write the report of the study that asked for a round anew, with what the round did; nothing if it is not beside it."""
    parent = find_parent(opened)
    if parent is None:
        return
    try:
        with open_to_drive(parent) as asking:
            write_reports(asking, console)
    except UserInputError as error:
        print_line(f"the report of {parent.root} lacks this round; `study report {parent.argument}`: {error}", console)


def write_reports(opened: OpenStudy, console: Console, formats: Collection[ReportFormat] = tuple(ReportFormat)) -> None:
    """Write the report, of the rounds of interventions too, and print its files."""
    for name in write_report(opened, load_rounds(opened), formats):
        print_line(opened.store.locate(name), console)


def print_interventions(found: InterventionFindings, console: Console) -> None:
    """Print the table of interventions, a line for each, and the conclusion."""
    console.print(build_intervention_rich_table(found))
    for effect in found.effects:
        print_line(format_effect(effect, is_changed=found.is_changed), console)
    print_line(found.conclusion, console)


def compare(opened: OpenStudy, console: Console) -> list[str]:
    """Write and print the A/B table of a confirmed study; return one message per arm that misses the minimum."""
    comparison = compute_comparison(opened)
    return print_comparison(opened, comparison.rows, tuple(comparison.arms.values()), comparison.baselines, console)


def print_comparison(
    study: OpenStudy,
    rows: Sequence[ComparisonRow],
    arms: Sequence[ArmScores],
    baselines: BaselineFindings | None,
    console: Console,
) -> list[str]:
    """Print the A/B table, the arms and the baselines; return one message per arm that misses the minimum."""
    shown = [*rows, baselines.row] if baselines is not None and baselines.row is not None else rows
    if shown:
        console.print(build_rich_table(shown))
    console.print(build_arm_rich_table(arms))
    for row in rows:
        print_line(format_row(row), console)
        if line := format_side_line(row):
            print_line(line, console)
    if baselines is not None:
        console.print(build_baseline_rich_table(baselines))
        for line in describe_handover(baselines):
            print_line(line, console)
    if study.spec.minimum is None:
        return []
    minimum, scores = study.spec.minimum.macro_f1, {arm.arm: arm for arm in arms}
    chosen = require_plan(study).chosen
    missed = [name for name in chosen if name not in scores or not scores[name].minimum_cleared]
    return [_describe_missed_minimum(name, scores.get(name), minimum) for name in missed]


def _describe_missed_minimum(name: str, scores: ArmScores | None, minimum: float) -> str:
    if scores is None:
        return f"minimum missed: every run of {name} diverged; the minimum is {minimum}"
    estimate, recipe = (
        f"{name} has macro-F1 {scores.test_macro_f1.estimate:.4f} on the test split",
        scores.test_macro_f1.recipe,
    )
    if recipe is None:
        why = "no lower bound, since fewer than two of its runs finished"
        return f"minimum missed: {estimate}, but {why}; the minimum is {minimum}"
    bound = f"lower bound for the recipe {recipe.low:.4f}"
    if recipe.low > minimum:
        return (
            f"minimum missed: {estimate}, {bound}, but with its runs that diverged not above the minimum of {minimum}"
        )
    return f"minimum missed: {estimate}, {bound}, but the minimum is {minimum}"
