"""Figures of the search: rung scores, tuning curves, and the layout of the plots that Optuna draws with matplotlib."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import MaxNLocator, NullLocator

from analysis.findings.search_findings import TuningCurve
from analysis.report.figures import ARM_COLORS, INK
from analysis.search.rungs import RungScores
from trainables.records.confusion_figure import literal_text

SLICES_PER_ROW = 4
MAX_LOG_TICKS = 5
DASHES = ("-", "--", ":", "-.")


def plot_rungs(scores: Sequence[RungScores]) -> Figure:
    """Draw macro-F1 in percent at the last epoch against macro-F1 at the rung, one panel per rung and arm.

    Pruned trials have no score at the last epoch; ticks at the lower edge mark their scores at the rung.
    """
    arms = list(dict.fromkeys(s.arm for s in scores))
    rungs = sorted({s.epoch for s in scores})
    size = (3.4 * max(len(arms), 1) + 0.8, 3.0 * max(len(rungs), 1) + 1.0)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(max(len(rungs), 1), max(len(arms), 1), sharex=True, sharey=True, squeeze=False)
    # An arm with another number of epochs has rungs of its own.
    for axes in panels.flat:
        axes.set_visible(False)
    for place in scores:
        axes = panels[rungs.index(place.epoch), arms.index(place.arm)]
        axes.set_visible(True)
        color = ARM_COLORS[arms.index(place.arm) % len(ARM_COLORS)]
        _draw_rung(axes, place, color)
    # Space at the lower edge for the ticks of pruned trials.
    panels[0, 0].margins(y=0.12)
    for axes in panels[:, 0]:
        axes.set_ylabel("macro-F1 at the\nlast epoch (%)")
    for axes in panels[-1]:
        axes.set_xlabel("macro-F1 at the rung (%)")
    figure.suptitle("Rung score vs. final score", size=11)
    used = next(axes for axes in panels.flat if axes.get_visible() or not scores)
    figure.legend(*used.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def plot_tuning_curves(curves: Sequence[TuningCurve]) -> Figure:
    """Draw the best macro-F1 so far in percent against device time; where there is one, the expected curve with its band."""
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for index, curve in enumerate(curves):
        color, line = ARM_COLORS[index % len(ARM_COLORS)], DASHES[index % len(DASHES)]
        ends, best = zip(*curve.observed, strict=True)
        axes.step(
            ends,
            [100 * b for b in best],
            where="post",
            color=color,
            linestyle=line,
            linewidth=1.8,
            marker=".",
            markersize=4,
            label=literal_text(curve.arm),
        )
        if curve.points:
            seconds = [p.device_seconds for p in curve.points]
            low, high = [100 * p.low for p in curve.points], [100 * p.high for p in curve.points]
            axes.fill_between(seconds, low, high, color=color, alpha=0.18, linewidth=0)
            axes.plot(seconds, [100 * p.expected for p in curve.points], color=color, linestyle=line, linewidth=0.9)
    axes.set_xlabel("device time of the arm's search (device-seconds)")
    axes.set_ylabel("best macro-F1 on the search split (%)")
    title = "Best score so far vs. search budget"
    if any(curve.points for curve in curves):
        title += "\nsteps: actual search; thin line and band: mean and 80 % of the resampled searches"
    axes.set_title(title, size=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def tidy_parallel_coordinate(figure: Figure, title: str) -> None:
    """Fit the width of Optuna's parallel coordinates to the number of axes, and make the tick labels readable."""
    main, *others = _redraw_colorbar(figure, "macro-F1")
    figure.set_size_inches(1.35 * (len(others) + 1) + 2.0, 5.0)
    main.set_title(literal_text(title), size=11, pad=12)
    labels = [label.get_text() for label in main.get_xticklabels()]
    main.set_xticks(range(len(labels)), labels, rotation=25, ha="right", rotation_mode="anchor", size=9)
    main.tick_params(axis="y", labelsize=8)
    for axes in others:
        if axes.get_yscale() == "log":
            _set_log_ticks(axes.yaxis, axes.get_ylim())
        axes.tick_params(axis="y", labelsize=8)
        for label in axes.get_yticklabels():
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6})


def tidy_slice(figure: Figure, title: str) -> None:
    """Arrange Optuna's slice plots in rows of four, with the label "macro-F1" at the first of each row."""
    slices = _redraw_colorbar(figure, "trial number in search order", whole_numbers=True)
    columns = min(SLICES_PER_ROW, len(slices))
    rows = -(-len(slices) // columns)
    figure.set_size_inches(3.0 * columns + 1.2, 2.9 * rows + 0.8)
    grid = GridSpec(rows, columns, figure=figure)
    for place, axes in enumerate(slices):
        row, column = divmod(place, columns)
        axes.set_subplotspec(grid[row, column])
        axes.xaxis.label.set_fontsize(9)
        axes.tick_params(labelsize=8, labelleft=column == 0, labelbottom=True)
        axes.set_ylabel("macro-F1" if column == 0 else "", size=9)
        if axes.get_xscale() == "log":
            _set_log_ticks(axes.xaxis, axes.get_xlim())
        _spread_categories(axes)
    figure.suptitle(literal_text(title), size=11)


def tidy_importance(figure: Figure, title: str) -> None:
    """Fit the height of Optuna's importance plot to the number of bars, and remove its redundant legend."""
    (axes,) = figure.axes
    figure.set_size_inches(7.5, 1.2 + 0.34 * max(len(axes.get_yticks()), 2))
    axes.set_title("", loc="left")
    axes.set_title(literal_text(title), size=11)
    axes.set_xlabel("importance (PED-ANOVA)", size=9)
    axes.set_ylabel("")
    axes.tick_params(labelsize=9)
    legend = axes.get_legend()
    if legend is not None:
        legend.remove()


def tidy_edf(figure: Figure, title: str) -> None:
    """Draw the curves of Optuna's EDF plot in the report's colors and line styles, with the legend beside the axes."""
    (axes,) = figure.axes
    figure.set_size_inches(7.5, 4.0)
    for index, line in enumerate(axes.get_lines()):
        line.set(
            color=ARM_COLORS[index % len(ARM_COLORS)],
            linestyle=DASHES[index % len(DASHES)],
            linewidth=2,
            alpha=1,
            label=literal_text(str(line.get_label())),
        )
    axes.set_title(literal_text(title), size=11)
    axes.set_xlabel("macro-F1 at the last epoch", size=9)
    axes.set_ylabel("fraction of completed trials at or below", size=9)
    axes.set_ylim(0, 1.02)
    axes.tick_params(labelsize=9)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)


def tidy_timeline(figure: Figure, title: str) -> None:
    """Fit the date format of Optuna's timeline to the duration of the search, and its height to the number of trials."""
    (axes,) = figure.axes
    num_trials = len(axes.patches)
    figure.set_size_inches(9.0, float(np.clip(1.6 + 0.07 * num_trials, 3.0, 8.0)))
    figure.set_layout_engine("constrained")
    for bar in axes.patches:
        # Times are in whole seconds: the edge keeps shorter trials visible.
        bar.set(edgecolor=bar.get_facecolor(), linewidth=1.0)
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.tick_params(axis="x", labelrotation=0, labelsize=9)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("center")
    axes.tick_params(axis="y", labelsize=9)
    axes.set_title(literal_text(title), size=11)
    axes.set_xlabel("time (UTC)", size=9)
    axes.set_ylabel("trial number in search order", size=9)
    axes.invert_yaxis()


def _draw_rung(axes: Axes, scores: RungScores, color: str) -> None:
    at_rung = [100 * rung for rung, _ in scores.completed]
    at_end = [100 * end for _, end in scores.completed]
    pruned = [100 * score for score in scores.stopped]
    axes.plot(at_rung, at_end, "o", color=color, markersize=5, alpha=0.8, label="completed")
    # The y coordinate is a fraction of the axes: pruned trials have no final score.
    axes.plot(
        pruned,
        [0.03] * len(pruned),
        "|",
        color=INK,
        markersize=9,
        transform=axes.get_xaxis_transform(),
        label="pruned at this rung",
    )
    counts = f"{len(at_rung)} completed, {len(pruned)} pruned"
    axes.set_title(literal_text(f"{scores.arm}, epoch {scores.epoch}\n{counts}"), size=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)


def _spread_categories(axes: Axes) -> None:
    """Keep the points of a categorical hyperparameter away from the frame."""
    categories = [label.get_text() for label in axes.get_xticklabels()]
    if categories and all(text.startswith(("'", '"')) for text in categories):
        axes.set_xlim(-0.5, len(categories) - 0.5)
        axes.set_xticks(range(len(categories)), [text.strip("'\"") for text in categories])


def _redraw_colorbar(figure: Figure, text: str, *, whole_numbers: bool = False) -> list[Axes]:
    """Replace Optuna's color bar, which belongs to the first axes, by one for all other axes; return those."""
    mappable, old = next((c, c.colorbar) for axes in figure.axes for c in axes.collections if c.colorbar is not None)
    old.remove()
    # The lightest color of Optuna's map is white, on which the lowest value would be invisible.
    visible = LinearSegmentedColormap.from_list("visible", mappable.get_cmap()(np.linspace(0.25, 1.0, 256)))
    # Optuna scales the colors of each slice separately; one color bar needs one scale.
    arrays = [(c, c.get_array()) for axes in figure.axes for c in axes.collections]
    colored = [(c, array) for c, array in arrays if array is not None and array.size]
    values = np.concatenate([array for _, array in colored])
    for collection, _ in colored:
        collection.set_cmap(visible)
        collection.set_clim(values.min(), values.max())
    others = list(figure.axes)
    bar = figure.colorbar(mappable, ax=others, pad=0.03, fraction=0.05, aspect=30)
    bar.set_label(text, size=9)
    bar.ax.tick_params(labelsize=8)
    if whole_numbers:
        bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return others


def _set_log_ticks(axis: Axis, limits: tuple[float, float]) -> None:
    """Label a log axis at 1, 2 and 5 times powers of ten, or at the powers alone if there are many."""
    low, high = limits
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside = [f * 10.0**d for d in decades for f in (1, 2, 5) if low <= f * 10.0**d <= high]
    powers = [10.0**d for d in decades if low <= 10.0**d <= high]
    ticks = inside if len(inside) <= MAX_LOG_TICKS else powers
    axis.set_minor_locator(NullLocator())
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
