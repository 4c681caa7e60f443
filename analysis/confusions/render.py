"""Confusions of classes as sentences, tables and figures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.confusions import values
from analysis.formats.numbers import format_bounds, format_count, format_interval, format_percent, join_verdicts
from analysis.formats.table_formats import FittedTable, to_terminal
from analysis.statistics.interval import TwoIntervals
from search_spaces.errors import list_some
from trainables.records.confusion_figure import MOST_ANNOTATED_CLASSES, plot_rate_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Confusions that a sentence names; the table has the others.
MAX_NAMED = 15


def describe_clusters(found: values.ArmConfusions, arm: str) -> str:
    """Return the clusters of classes that an arm confuses, with their stability."""
    if not found.confused_pairs:
        return f"{arm} confuses no pair of classes more often than expected by chance."
    if not found.clusters:
        return (
            "The pairs below are confused more often than expected by chance, but no cluster of classes appears in at least "
            "95 % of the bootstrap samples."
        )
    named = "; ".join(
        f"{', '.join(c.classes)} (in {format_percent(c.stability, 0)} of the bootstrap samples)" for c in found.clusters
    )
    return f"Clusters of confused classes: {named}."


def describe_directed(found: values.ArmConfusions) -> str:
    """Return how many directed confusions are material, and over how many cells the intervals are simultaneous."""
    material = [c for c in found.directed if c.verdict is values.Materiality.MATERIAL]
    named = list_some((f"{c.true_class} predicted as {c.predicted_class}" for c in material), MAX_NAMED, "; ")
    return (
        f"Confusions of more than {format_percent(values.CONFUSION_TOLERANCE, 0)} of the true class, for these models: "
        f"{named or 'none'}. The intervals hold jointly for all {found.num_directed} cells."
    )


def describe_images_to_decide(cell: values.DirectedConfusion) -> str:
    """Return how many images of the true class would decide an undecided confusion; "" for a decided one."""
    if cell.verdict is not values.Materiality.UNDECIDED:
        return ""
    if cell.images_to_decide is None:
        return "no number of images decides a rate this close to the tolerance"
    needed, now = format_count(cell.images_to_decide), format_count(cell.num_images)
    return f"about {needed} images of {cell.true_class} (now {now})"


def describe_contrast(contrast: values.GroupContrast, arm: str) -> str:
    """Return the difference in F1 between two groups of classes, with its permutation test over classes."""
    one, other = contrast.groups
    return (
        f"{arm}: mean F1 of the {one} classes minus mean F1 of the {other} classes: {100 * contrast.difference:+.1f} pp "
        f"(exact permutation test over {contrast.num_classes} classes: p = {contrast.p_value:.3f}; smallest attainable p: "
        f"{contrast.smallest_p:.3f})."
    )


def build_pair_table(pairs: Sequence[values.ConfusedPair]) -> FittedTable:
    """Return the confused pairs of an arm for a terminal."""
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


def build_directed_table(cells: Sequence[values.DirectedConfusion]) -> FittedTable:
    """Return directed confusions of an arm for a terminal."""
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


FRAME_COLORS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00")
FRAME_LINES = ("-", "--", ":", "-.")


def plot_confusion(
    rates: Sequence[Sequence[TwoIntervals]],
    class_names: Sequence[str],
    title: str,
    clusters: Sequence[values.ConfusionCluster] = (),
) -> Figure:
    """Draw the rates of a confusion matrix in percent, each with the half-width of its interval for these models.

    Args:
        rates: (K, K) as in `Confusion`; a cell with rate 0 shows "0" alone.
        class_names: K names.
        title: of the figure.
        clusters: groups of classes whose cells get a frame.

    Raises:
        UserInputError: if the names do not fit the matrix.
    """
    estimates = np.array([[cell.estimate for cell in row] for row in rates])
    texts = [[_rate_text(cell) for cell in row] for row in rates]
    is_annotated = len(class_names) <= MOST_ANNOTATED_CLASSES
    note = "rate in % ± half-width of its interval for these models" if is_annotated else "color: rate"
    if clusters:
        note += "; frames: clusters of confused classes"
    figure = plot_rate_matrix(estimates, texts, class_names, title=f"{title}\n{note}")
    for index, cluster in enumerate(clusters):
        _frame_cells(figure.axes[0], [class_names.index(name) for name in cluster.classes], index)
    return figure


def _frame_cells(axes: Axes, classes: Sequence[int], index: int) -> None:
    """Draw a frame around each off-diagonal cell of one cluster."""
    from matplotlib.patches import Rectangle

    color, line = FRAME_COLORS[index % len(FRAME_COLORS)], FRAME_LINES[index % len(FRAME_LINES)]
    style: dict[str, Any] = {"fill": False, "edgecolor": color, "linestyle": line, "linewidth": 2.2}
    for row, column in itertools.permutations(classes, 2):
        axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, **style))


def _rate_text(cell: TwoIntervals) -> str:
    if cell.estimate == 0:
        return "0"
    return f"{100 * cell.estimate:.1f}\n±{50 * (cell.models.high - cell.models.low):.1f}"
