"""The metrics beside macro-F1 as text: which of them differ, the cells of a row's table, and csv."""

from collections.abc import Sequence
from functools import partial

from analysis.comparison.tables import TableRow
from analysis.comparison.values import LOSSES, ComparisonRow, SideMetric
from analysis.formats.numbers import format_percent, join_intervals
from analysis.formats.table_formats import list_bounds, to_csv
from analysis.statistics.interval import Interval

_SMALLER_IS_BETTER = "Smaller is better for log loss, Brier score and calibration error."


def build_side_header(row: TableRow) -> tuple[str, ...]:
    """Return the names of the columns of `build_side_cells`."""
    return "metric", "classes", row.value.treatment, row.value.control, "difference, these models", "difference, recipe"


def build_side_cells(row: TableRow) -> list[tuple[str, ...]]:
    """Return the cells of each metric of an A/B row: both values, and the difference with an interval for each question."""
    return [
        (
            metric.name,
            metric.group or "all",
            _format_value(metric, metric.treatment),
            _format_value(metric, metric.control),
            _format_difference(metric, metric.difference.models),
            _format_difference(metric, metric.difference.recipe),
        )
        for metric in row.value.side_metrics
    ]


def describe_side_metrics(row: TableRow) -> str:
    """Return which metrics of an A/B row differ on all images, and how their table is to be read."""
    found = _list_differing(row.value) or "none"
    return (
        "Metrics beside macro-F1, which alone decides. Each interval covers one difference with 95 % confidence (exploratory). "
        f"Differences whose interval excludes 0, on the images of all classes: {found}. {_SMALLER_IS_BETTER}"
    )


def format_side_line(row: ComparisonRow) -> str:
    """Return one line for the terminal with the metrics that differ on all images; "" where none does."""
    found = _list_differing(row)
    return f"{row.treatment} vs {row.control}, beside macro-F1 (exploratory): {found}" if found else ""


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


def _format_value(metric: SideMetric, value: float) -> str:
    return f"{value:.4f}" if metric.name in LOSSES else format_percent(value, 2)


def _format_difference(metric: SideMetric, interval: Interval | None) -> str:
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
