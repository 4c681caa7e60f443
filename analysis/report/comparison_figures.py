"""The figure of the A/B rows."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from analysis.findings.comparison_findings import ComparisonRow
from analysis.report.figures import ARM_COLORS, BAND_COLOR, INK, draw_interval, tidy
from trainables.records.confusion_figure import literal_text


def plot_interval_bars(rows: Sequence[ComparisonRow]) -> Figure:
    """Draw the interval, the margin band and the differences per seed of each A/B row, in percentage points."""
    figure = Figure(figsize=(8.0, 1.5 + 0.8 * max(len(rows), 1)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        axes.barh(place, 200 * row.margin, left=-100 * row.margin, height=0.9, color=BAND_COLOR, zorder=0)
        seeds = [100 * difference for difference in row.seed_differences]
        axes.plot(seeds, [place + 0.27] * len(seeds), "|", color="#666666", markersize=9, zorder=2)
        style: dict[str, Any] = {
            "fmt": "o",
            "color": ARM_COLORS[0],
            "markersize": 7,
            "linewidth": 2.5,
            "capsize": 5,
            "zorder": 3,
        }
        draw_interval(axes, row.effect, place, **style)
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
