"""The figure of the ring audits: accuracy loss per class with swapped rings."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.findings.shortcut_findings import GAP_TOLERANCE, RingAudit
from analysis.report.figures import ARM_COLORS, BAND_COLOR, INK, draw_interval
from trainables.records.confusion_figure import literal_text

MARKERS = ("o", "s", "D", "^", "v", "P")


def plot_ring_audits(audits: Mapping[str, Sequence[RingAudit]]) -> Figure:
    """Draw the accuracy loss of each class for these models, one panel per ring width; confirmed failures are filled.

    Args:
        audits: by arm, one per ring width; empty for an arm that was not audited.
    """
    audited = {arm: found for arm, found in audits.items() if found}
    first = next(iter(audited.values()))
    widths, names = len(first), [c.class_name for c in first[0].classes]
    figure = Figure(
        figsize=(4.2 * widths + 1.0, 1.6 + 0.24 * len(names) * max(len(audited), 1.5)), layout="constrained"
    )
    panels = figure.subplots(1, widths, sharey=True, squeeze=False)[0]
    for width, axes in enumerate(panels):
        axes.axvspan(-100 * GAP_TOLERANCE, 100 * GAP_TOLERANCE, color=BAND_COLOR, zorder=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for index, (arm, found_audits) in enumerate(audited.items()):
            color, marker = ARM_COLORS[index % len(ARM_COLORS)], MARKERS[index % len(MARKERS)]
            places = np.arange(len(names)) + 0.7 * ((index + 0.5) / len(audited) - 0.5)
            for place, found in zip(places, found_audits[width].classes, strict=True):
                draw_interval(
                    axes,
                    found.gap.models,
                    place,
                    fmt=marker,
                    color=color,
                    markerfacecolor=color if found.is_confirmed or found.recipe_confirmed else "white",
                    capsize=2.5,
                    markersize=5.5,
                    label=literal_text(arm) if place == places[0] and width == 0 else None,
                )
        axes.set_title(f"ring width: {first[width].ring_pixels} pixels", size=10)
        axes.set_xlabel("accuracy loss with another class's ring (pp)")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), [literal_text(name) for name in names])
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure
