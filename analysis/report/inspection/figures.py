"""Figures of an inspection: the ladder of resolutions, the probe's confusions, spectra, and both interpolations side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.findings.image_findings import NetworkFindings, Rung, Spectra
from analysis.report.figures import ARM_COLORS, INK, error_lengths
from trainables.records.confusion_figure import literal_text, plot_rate_matrix

LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")
# By how much the difference of the two interpolations is enlarged.
DIFFERENCE_GAIN = 4


def plot_ladder(rungs: Sequence[Rung], class_names: Sequence[str]) -> Figure:
    """Draw macro-F1, and the separability of the pairs that are least separable at the native side, against the side.

    A pair that is not among the ten weakest of a rung has no point there.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    sides = [rung.side for rung in rungs]
    scores = [100 * rung.macro_f1.estimate for rung in rungs]
    errors = 100 * error_lengths([rung.macro_f1 for rung in rungs])
    axes.errorbar(sides, scores, yerr=errors, color=INK, marker="o", capsize=3, linewidth=2, label="macro-F1")
    for index, pair in enumerate(rungs[0].weakest[:3]):
        found = [
            (rung.side, 100 * other.area.estimate)
            for rung in rungs
            for other in rung.weakest
            if (other.first, other.second) == (pair.first, pair.second)
        ]
        name = f"separability of {class_names[pair.first]}-{class_names[pair.second]}"
        axes.plot(
            *zip(*found, strict=True),
            color=ARM_COLORS[index % len(ARM_COLORS)],
            linestyle=LINES[(index + 1) % len(LINES)],
            marker=MARKERS[(index + 1) % len(MARKERS)],
            label=literal_text(name),
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sides, [str(side) for side in sides])
    axes.minorticks_off()
    axes.set_xlabel("side of the images (px)")
    axes.set_ylabel("%")
    axes.set_ylim(top=100)
    axes.legend(fontsize=8, frameon=False)
    axes.grid(alpha=0.3)
    return figure


def plot_probe_confusion(network: NetworkFindings, class_names: Sequence[str]) -> Figure:
    """Draw the confusion matrix of the probe, as shares of the true class in percent.

    Args:
        network: findings of P classes.
        class_names: P names.
    """
    sizes = network.confusion.sum(axis=1, keepdims=True)
    rates = network.confusion / sizes
    texts = [[f"{100 * rate:.0f}" for rate in row] for row in rates]
    return plot_rate_matrix(rates, texts, class_names, title="Out-of-fold linear probe, rate in %")


def plot_spectra(spectra: Spectra) -> Figure:
    """Draw the power of both interpolations over the frequency, and their ratio."""
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for index, (name, power) in enumerate(spectra.power.items()):
        style = {"color": ARM_COLORS[index], "linestyle": LINES[index]}
        above.semilogy(spectra.frequencies, np.maximum(power, 1e-9), label=name, **style)
    above.set_ylabel("power (gray levels²)")
    above.legend(frameon=False)
    below.plot(spectra.frequencies, spectra.gain(), color=INK)
    below.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    below.set_ylabel("bicubic / bilinear")
    below.set_xlabel("frequency (cycles per pixel of the model's input)")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return figure


def plot_interpolations(resized: Mapping[str, NDArray[Any]]) -> Figure:
    """Draw images as they are stored, under both interpolations, and the difference, enlarged around mid-gray.

    Args:
        resized: the images, as in `ImageFindings`.
    """
    difference = resized["bicubic"] - resized["bilinear"]
    columns = {**resized, f"difference x {DIFFERENCE_GAIN}": 128 + DIFFERENCE_GAIN * difference}
    figure = Figure(figsize=(7.2, 1.9 * len(difference) + 0.3), layout="constrained")
    grid = figure.subplots(len(difference), len(columns), squeeze=False)
    for column, (title, pictures) in enumerate(columns.items()):
        grid[0][column].set_title(title, size=10)
        for row, picture in enumerate(pictures):
            axes = grid[row][column]
            axes.imshow(np.rint(picture).clip(0, 255).astype(np.uint8), interpolation="nearest")
            axes.set_axis_off()
    return figure
