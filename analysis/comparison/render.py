"""The A/B rows as sentences and figures, and the metrics beside macro-F1 as text: those that differ, formats, csv."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from analysis.comparison.tables import TableRow, describe_divergence, describe_rule, format_row
from analysis.comparison.values import LOSSES, ComparisonRow, Question, SideMetric, Verdict
from analysis.formats.figures import ARM_COLORS, BAND_COLOR, INK, draw_interval, new_figure, tidy
from analysis.formats.numbers import format_count, format_percent, format_pp, join_intervals
from analysis.formats.table_formats import list_bounds, to_csv
from analysis.statistics.interval import Interval
from search_spaces.designs import NO_INTERACTION
from trainables.records.confusion_figure import literal_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def describe_verdict(row: TableRow) -> str:
    """Return the verdict of an A/B row as a sentence, without its numbers."""
    treatment, control, margin = row.value.treatment, row.value.control, format_pp(row.value.margin)
    if control == NO_INTERACTION:
        return {
            Verdict.BETTER: f"{treatment}: the combined effect is larger than the sum of the individual effects.",
            Verdict.WORSE: f"{treatment}: the combined effect is smaller than the sum of the individual effects.",
            Verdict.EQUIVALENT: f"{treatment}: the effects are additive within the margin of {margin}.",
            Verdict.UNDECIDED: f"{treatment}: it is undecided whether the effects are additive.",
        }[row.value.verdict]
    size = {
        "material": f", and by more than the margin of {margin}",
        "negligible": f", but by less than the margin of {margin}",
    }.get(row.value.materiality, "")
    scope = " (these two models; with one seed, nothing is known about the recipe)"
    cause = " over all runs, of which more diverged on one side" if row.value.is_decided_by_divergence else ""
    return {
        Verdict.BETTER: f"{treatment} is better than {control}{cause}{size}",
        Verdict.WORSE: f"{treatment} is worse than {control}{cause}{size}",
        Verdict.EQUIVALENT: f"{treatment} and {control} are equivalent within the margin of {margin}",
        Verdict.UNDECIDED: f"Undecided: the data do not separate {treatment} from {control}",
    }[row.value.verdict] + f"{scope if row.value.question is Question.MODELS else ''}."


def describe_numbers(row: TableRow) -> str:
    """Return the numbers of an A/B row on one line."""
    cost = [row.cost] if row.value.cost_ratio is not None else []
    mde = [f"MDE {row.mde} pp"] if row.value.minimum_detectable_effect is not None else []
    return " | ".join([row.comparison, f"{row.effect} {row.interval}", row.verdict, row.seeds, *mde, *cost])


def describe_evidence(row: TableRow) -> str:
    """Return the number of seeds and images, the confidence and the minimum detectable effect of an A/B row."""
    rule = describe_rule(row)
    paired = f"{row.value.num_seeds} paired {row.seeds.split()[-1]}"
    seeds = paired if row.value.num_control_seeds is None else row.seeds
    mde = f"Minimum detectable effect (MDE) at 80 % power: {row.mde} pp."
    parts = [
        f"{seeds}, {format_count(row.value.num_images)} test images, {row.confidence} confidence interval.",
        "" if row.value.minimum_detectable_effect is None else mde,
        f"For these models on new images: {row.models}.",
        f"Also: {rule}." if rule else "",
        f"Divergence: {divergence}." if (divergence := describe_divergence(row.value)) else "",
    ]
    return " ".join(part for part in parts if part)


def describe_class_differences(row: TableRow) -> str:
    """Return the classes whose F1 differs between the two arms."""
    flagged = [c for c in row.value.class_differences if c.is_flagged]
    named = ", ".join(f"{c.class_name} ({100 * c.effect.estimate:+.1f} pp)" for c in flagged) or "none"
    return (
        "Classes with a difference in F1, at a false discovery rate of 10 % (exploratory; Benjamini-Hochberg over "
        f"{len(row.value.class_differences)} classes): {named}."
    )


def plot_interval_bars(rows: Sequence[ComparisonRow]) -> Figure:
    """Draw the interval, the margin band and the differences per seed of each A/B row, in percentage points."""
    figure = new_figure((8.0, 1.5 + 0.8 * max(len(rows), 1)))
    axes = figure.add_subplot()
    rows = [row.winner_first() for row in rows]
    for place, row in enumerate(rows):
        axes.barh(place, 200 * row.margin, left=-100 * row.margin, height=0.9, color=BAND_COLOR, zorder=0)
        seeds = [100 * difference for difference in row.seed_differences]
        axes.plot(seeds, [place + 0.27] * len(seeds), "|", color="#666666", markersize=9, zorder=2)
        style: dict[str, Any] = {"color": ARM_COLORS[0], "markersize": 7, "linewidth": 2.5, "capsize": 5}
        draw_interval(axes, row.effect, place, fmt="o", zorder=3, **style)
        axes.annotate(str(row.verdict), (100 * row.effect.estimate, place - 0.2), ha="center", va="bottom", size=9)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [literal_text(f"{row.treatment}\nvs {row.control}") for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.6)
    axes.use_sticky_edges = False
    axes.margins(x=0.06)
    axes.autoscale_view(scaley=False)
    axes.set_xlabel("difference in macro-F1, first arm minus second (percentage points)")
    # Of the figure, not of the axes, which long names of arms make narrow.
    figure.suptitle("Differences with confidence intervals; gray band: ± margin; ticks: seeds", size=11)
    tidy(axes)
    return figure


_SMALLER_IS_BETTER = "Smaller is better for log loss, Brier score and calibration error."


def describe_side_metrics(row: TableRow) -> str:
    """Return which metrics of an A/B row differ on all images, and how their table is to be read."""
    found = _list_differing(row.value) or "none"
    return (
        "Metrics beside macro-F1, which alone decides. Each interval covers one difference with 95 % confidence (exploratory). "
        f"Differences whose interval excludes 0, on the images of all classes: {found}. {_SMALLER_IS_BETTER}"
    )


def format_side_line(row: ComparisonRow) -> str:
    """Return one line for the terminal with the metrics that differ on all images; "" where none does."""
    row = row.winner_first()
    found = _list_differing(row)
    return f"{row.treatment} vs {row.control}, beside macro-F1 (exploratory): {found}" if found else ""


def format_row_lines(rows: Sequence[ComparisonRow]) -> list[str]:
    """Return the line of each row and, where metrics beside macro-F1 differ, one with these."""
    return [line for row in rows for line in (format_row(row), format_side_line(row)) if line]


def build_side_csv(rows: Sequence[ComparisonRow]) -> str:
    """Return the metrics of all rows as csv with numbers in full precision; shares and their differences are fractions."""
    records = [
        {
            "treatment": row.treatment,
            "control": row.control,
            "metric": metric.name,
            "group": metric.group,
            "treatment_value": metric.treatment,
            "control_value": metric.control,
            "difference": metric.difference.estimate,
            **list_bounds("models", metric.difference.models),
            **list_bounds("recipe", metric.difference.recipe),
            "num_seeds": row.num_seeds,
        }
        for row in rows
        for metric in row.side_metrics
    ]
    return to_csv(records)


def _list_differing(row: ComparisonRow) -> str:
    """Return the metrics on all images whose interval excludes 0, by question: "accuracy +1.20 pp; recipe: accuracy"."""
    everywhere = [metric for metric in row.side_metrics if not metric.group]
    models = [
        f"{m.name} {_format_signed(m, m.difference.estimate)}{_unit(m)}"
        for m in everywhere
        if _excludes_zero(m.difference.models)
    ]
    recipe = [m.name for m in everywhere if _excludes_zero(m.difference.recipe)]
    parts = [("these models", models), ("recipe", recipe)]
    return "; ".join(f"{question}: {', '.join(names)}" for question, names in parts if names)


def _excludes_zero(interval: Interval | None) -> bool:
    return interval is not None and not interval.low <= 0 <= interval.high


def format_side_value(metric: SideMetric, value: float) -> str:
    """Return the value of a metric on one side: a loss as it is, a share in percent."""
    return f"{value:.4f}" if metric.name in LOSSES else format_percent(value, 2)


def format_side_difference(metric: SideMetric, interval: Interval | None) -> str:
    """Return the difference of the two sides in a metric with an interval; a dash for None."""
    if interval is None:
        return "—"
    return join_intervals(interval, partial(_format_signed, metric), _unit(metric))


def _format_signed(metric: SideMetric, value: float) -> str:
    # Adding 0.0 turns -0.0 into 0.0.
    if metric.name in LOSSES:
        return f"{round(value, 4) + 0.0:+.4f}"
    return f"{round(100 * value, 2) + 0.0:+.2f}"


def _unit(metric: SideMetric) -> str:
    return "" if metric.name in LOSSES else " pp"
