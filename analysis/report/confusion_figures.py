"""The figure of a confusion matrix."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.findings.class_findings import Confusion, ConfusionCluster
from analysis.findings.interval import TwoIntervals
from trainables.records.confusion_figure import MOST_ANNOTATED_CLASSES, plot_rate_matrix

FRAME_COLORS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00")
FRAME_LINES = ("-", "--", ":", "-.")


def plot_confusion(
    confusion: Confusion, class_names: Sequence[str], title: str, clusters: Sequence[ConfusionCluster] = ()
) -> Figure:
    """Draw the rates of a confusion matrix in percent, each with the half-width of its interval for these models.

    Args:
        confusion: rates of K classes; a cell with rate 0 shows "0" alone.
        class_names: K names.
        title: of the figure.
        clusters: groups of classes whose cells get a frame.

    Raises:
        UserInputError: if the names do not fit the matrix.
    """
    rates = np.array([[cell.estimate for cell in row] for row in confusion.rates])
    texts = [[_rate_text(cell) for cell in row] for row in confusion.rates]
    is_annotated = len(class_names) <= MOST_ANNOTATED_CLASSES
    note = "rate in % ± half-width of its interval for these models" if is_annotated else "color: rate"
    if clusters:
        note += "; frames: clusters of confused classes"
    figure = plot_rate_matrix(rates, texts, class_names, title=f"{title}\n{note}")
    for index, cluster in enumerate(clusters):
        _frame_cells(figure.axes[0], [class_names.index(name) for name in cluster.classes], index)
    return figure


def _frame_cells(axes: Axes, classes: Sequence[int], index: int) -> None:
    """Draw a frame around each off-diagonal cell of one cluster."""
    color, line = FRAME_COLORS[index % len(FRAME_COLORS)], FRAME_LINES[index % len(FRAME_LINES)]
    for row, column in itertools.permutations(classes, 2):
        frame = Rectangle(
            (column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=color, linestyle=line, linewidth=2.2
        )
        axes.add_patch(frame)


def _rate_text(cell: TwoIntervals) -> str:
    if cell.estimate == 0:
        return "0"
    return f"{100 * cell.estimate:.1f}\n±{50 * (cell.models.high - cell.models.low):.1f}"
