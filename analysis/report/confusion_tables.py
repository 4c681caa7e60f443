"""Tables of confused classes for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from analysis.findings.class_findings import ConfusedPair, DirectedConfusion
from analysis.report.number_formats import format_bounds, format_interval, format_percent, join_verdicts
from analysis.report.table_formats import to_terminal


def build_pair_table(pairs: Sequence[ConfusedPair]) -> Table:
    """Return the confused pairs of an arm for a terminal of at least 80 columns."""
    header = ("classes", "confusion rate", "expected\nby chance", "adjusted\np", "excess over\nhumans (pp)")
    rows = [
        (
            "\n".join(pair.classes),
            format_interval(pair.rate.models).replace(" [", "\n["),
            format_percent(pair.expected_rate),
            f"{pair.p_adjusted:.3f}",
            "not compared"
            if pair.human is None
            else format_bounds(pair.human.excess.models, lambda end: f"{100 * end:+.1f}"),
        )
        for pair in pairs
    ]
    return to_terminal("Pairs confused more often than expected by chance", header, rows, no_wrap=True)


def build_directed_table(cells: Sequence[DirectedConfusion]) -> Table:
    """Return directed confusions of an arm for a terminal of at least 80 columns."""
    rows = [
        (
            cell.true_class,
            cell.predicted_class,
            format_interval(cell.rate),
            join_verdicts(cell.verdict, cell.recipe_verdict),
            "" if cell.images_to_decide is None else f"{cell.images_to_decide:,}",
        )
        for cell in cells
    ]
    header = ("true class", "predicted class", "rate", "verdict", "images that\nwould decide")
    return to_terminal("Most frequent confusions", header, rows)
