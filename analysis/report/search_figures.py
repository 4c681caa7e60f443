"""Figures of the search: rung scores and tuning curves."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.findings.search_findings import TuningCurve
from analysis.report.figures import ARM_COLORS, INK
from analysis.search.rungs import RungScores
from trainables.records.confusion_figure import literal_text

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
    # Space at the lower edge for the ticks of trials without a final score.
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
        label="not continued",
    )
    counts = f"{len(at_rung)} completed, {len(pruned)} not continued"
    axes.set_title(literal_text(f"{scores.arm}, epoch {scores.epoch}\n{counts}"), size=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
