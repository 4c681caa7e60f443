"""The figure of the F1 of each class and arm."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.findings.score_findings import ArmResults
from analysis.report.figures import INK, arm_style, error_lengths, tidy
from trainables.records.confusion_figure import literal_text


def plot_class_f1(arms: Sequence[ArmResults]) -> Figure:
    """Draw F1 in percent per class and arm as bars with intervals, and the macro-F1 of each arm as a line."""
    names = [literal_text(score.class_name) for score in arms[0].class_scores] if arms else []
    figure = Figure(figsize=(8.0, 1.8 + 0.26 * len(names) * max(len(arms), 1.5)), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / max(len(arms), 1)
    for index, arm in enumerate(arms):
        color, hatch = arm_style(index)
        places = np.arange(len(names)) - 0.4 + height * (index + 0.5)
        scores = [score.f1.models for score in arm.class_scores]
        axes.barh(
            places,
            [100 * f1.estimate for f1 in scores],
            height=0.9 * height,
            xerr=100 * error_lengths(scores),
            error_kw={"ecolor": INK, "capsize": 2.5, "elinewidth": 1.0},
            color=color,
            hatch=hatch,
            edgecolor="white",
            label=literal_text(arm.arm),
        )
        mean = 100 * arm.test_macro_f1.estimate
        line = "--" if index % 2 == 0 else ":"
        axes.axvline(
            mean, color=color, linestyle=line, linewidth=2, label=literal_text(f"macro-F1 of {arm.arm}: {mean:.1f} %")
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_xlim(0, 100)
    axes.set_xlabel("F1 on the test split (%)")
    axes.set_title("F1 per class with intervals for these models; lines: macro-F1 of each arm", size=11)
    tidy(axes)
    _legend_below(figure, axes)
    return figure


def _legend_below(figure: Figure, axes: Axes) -> None:
    """Draw the legend below the axes, with one column per arm: its bars above its line."""
    handles, labels = axes.get_legend_handles_labels()
    half = len(handles) // 2
    # matplotlib lists lines before bars and fills a legend column by column.
    order = [place for pair in zip(range(half, 2 * half), range(half), strict=True) for place in pair]
    if order:
        ordered = [handles[i] for i in order], [labels[i] for i in order]
        figure.legend(*ordered, loc="outside lower center", ncols=min(half, 3), frameon=False, fontsize=8)
