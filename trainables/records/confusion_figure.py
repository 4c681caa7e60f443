"""Figures of confusion matrices, for TensorBoard and the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search_spaces.errors import UserInputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ANNOTATED_CLASSES = 25


def plot_confusion_matrix(counts: ArrayLike, class_names: Sequence[str]) -> Figure:
    """Draw a confusion matrix of counts; the color of a cell is its rate within the row.

    The row of a class without images stays blank.

    Args:
        counts: (K, K), row = true class, column = predicted class.
        class_names: K names.

    Raises:
        UserInputError: If the shapes do not match.
    """
    matrix = np.asarray(counts, dtype=np.float64)
    totals = matrix.sum(axis=-1, keepdims=True)
    rates = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    texts = [[f"{cell:.0f}" if float(cell).is_integer() else f"{cell:.1f}" for cell in row] for row in matrix]
    return plot_rate_matrix(rates, texts, class_names, title="Confusion matrix")


def plot_rate_matrix(
    rates: NDArray[np.float64], texts: Sequence[Sequence[str]], class_names: Sequence[str], *, title: str
) -> Figure:
    """Draw a matrix of rates with a text in each cell.

    The color scale follows the square root of the rate, so that a confusion of a few percent remains visible beside a
    diagonal close to one. With more than `MOST_ANNOTATED_CLASSES` classes the cells have no text.

    Args:
        rates: (K, K) in [0, 1], row = true class, column = predicted class.
        texts: K x K texts.
        class_names: K names.
        title: Title of the figure.

    Raises:
        UserInputError: If the shapes do not match.
    """
    # Imported here, so that what reads a study without drawing is quick.
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    num_classes = len(class_names)
    names = [literal_text(name) for name in class_names]
    if rates.shape != (num_classes, num_classes):
        raise UserInputError(
            f"{num_classes} class names need a matrix of {num_classes}x{num_classes}, but got {rates.shape}"
        )
    side = float(np.clip(2.6 + 0.6 * num_classes, 4.0, 16.0))
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(rates, cmap="Blues", norm=PowerNorm(0.5, vmin=0.0, vmax=1.0))
    size = float(np.clip(80 / num_classes, 4.0, 10.0)) if num_classes > MOST_ANNOTATED_CLASSES else 9.0
    axes.set_xticks(range(num_classes), names, rotation=45, ha="right", rotation_mode="anchor", size=size)
    axes.set_yticks(range(num_classes), names, size=size)
    axes.set_xticks(np.arange(num_classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(num_classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.0)
    axes.tick_params(which="minor", length=0)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(literal_text(title), size=11)
    if num_classes <= MOST_ANNOTATED_CLASSES:
        _annotate(axes, rates, texts)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.set_yticklabels(["0", "1", "5", "20", "50", "100"])
    bar.set_label("share of the true class (%)")
    return figure


def literal_text(text: str) -> str:
    """Return `text` with dollar signs escaped, which matplotlib would take for mathematics."""
    return text.replace("$", r"\$")


def _annotate(axes: Axes, rates: NDArray[np.float64], texts: Sequence[Sequence[str]]) -> None:
    for (row, column), rate in np.ndenumerate(rates):
        color = "white" if rate > 0.4 else "black"
        weight = "bold" if row == column else "normal"
        axes.text(column, row, texts[row][column], ha="center", va="center", size=7.5, color=color, weight=weight)
