"""Figures of the forensics: accuracy loss per class with swapped rings, and the effect of each cue on confused pairs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.audits.root_cause import MIXED
from analysis.audits.swap_effects import TOLERANCE
from analysis.findings.arm_findings import ArmFinding
from analysis.report.figures import ARM_COLORS, BAND_COLOR, INK
from trainables.records.confusion_figure import literal_text

MARKERS = ("o", "s", "D", "^", "v", "P")


def plot_ring_audits(arms: Sequence[ArmFinding]) -> Figure:
    """Draw the accuracy loss of each class for these models, one panel per ring width; confirmed failures are filled."""
    audited = [arm for arm in arms if arm.ring_audits]
    widths = len(audited[0].ring_audits)
    names = [c.class_name for c in audited[0].ring_audits[0].classes]
    figure = Figure(
        figsize=(4.2 * widths + 1.0, 1.6 + 0.24 * len(names) * max(len(audited), 1.5)), layout="constrained"
    )
    panels = figure.subplots(1, widths, sharey=True, squeeze=False)[0]
    for width, axes in enumerate(panels):
        axes.axvspan(-100 * TOLERANCE, 100 * TOLERANCE, color=BAND_COLOR, zorder=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for index, arm in enumerate(audited):
            audit = arm.ring_audits[width]
            color, marker = ARM_COLORS[index % len(ARM_COLORS)], MARKERS[index % len(MARKERS)]
            places = np.arange(len(names)) + 0.7 * ((index + 0.5) / len(audited) - 0.5)
            for place, found in zip(places, audit.classes, strict=True):
                gap = found.gap.models
                axes.errorbar(
                    100 * gap.estimate,
                    place,
                    xerr=[[100 * (gap.estimate - gap.low)], [100 * (gap.high - gap.estimate)]],
                    fmt=marker,
                    color=color,
                    markerfacecolor=color if found.is_confirmed or found.recipe_confirmed else "white",
                    capsize=2.5,
                    markersize=5.5,
                    label=literal_text(arm.arm) if place == places[0] and width == 0 else None,
                )
        axes.set_title(f"ring width: {audited[0].ring_audits[width].ring_pixels} pixels", size=10)
        axes.set_xlabel("accuracy loss with another class's ring (pp)")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), [literal_text(name) for name in names])
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def plot_root_causes(arms: Sequence[ArmFinding]) -> Figure:
    """Draw the Shapley values of the cues in logits, one panel per measured pair; the named cause is dark."""
    measured = [(arm.arm, cause) for arm in arms for cause in arm.root_causes if cause.effects]
    columns = min(3, len(measured))
    rows = -(-len(measured) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.6, 2.1 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for axes, (arm, cause) in zip(panels, measured, strict=False):
        named = cause.cause or cause.recipe_cause or MIXED
        for place, found in enumerate(cause.effects):
            value = found.effect.models
            is_named = found.cue == named
            axes.barh(
                place, value.estimate, color=ARM_COLORS[0] if is_named else BAND_COLOR, edgecolor=INK, linewidth=0.6
            )
            error = [[value.estimate - value.low], [value.high - value.estimate]]
            axes.errorbar(value.estimate, place, xerr=error, color=INK, capsize=2.5, linewidth=1.0)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(cause.effects)), [found.cue for found in cause.effects], size=9)
        axes.invert_yaxis()
        axes.set_title(literal_text(f"{arm}: {' and '.join(cause.classes)}\n{named}"), size=9)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(measured) :]:
        axes.set_axis_off()
    figure.supxlabel("increase in the margin when the cue is removed (logits, Shapley value)", size=10)
    return figure
