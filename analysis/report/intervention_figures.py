"""The figure of predicted against measured changes."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from analysis.findings.intervention_findings import InterventionEffect
from analysis.report.figures import ARM_COLORS, INK, draw_interval
from trainables.records.confusion_figure import literal_text

PREDICTED, MEASURED = ARM_COLORS[1], ARM_COLORS[0]


def plot_interventions(effects: Sequence[InterventionEffect]) -> Figure:
    """Draw the predicted and the measured change of each target, in percentage points, with their intervals."""
    shown = [effect for effect in effects if effect.target is not None]
    figure = Figure(figsize=(8.0, 1.6 + 0.6 * max(len(shown), 1)), layout="constrained")
    axes = figure.add_subplot()
    for place, effect in enumerate(shown):
        assert effect.target is not None
        pairs = ((effect.stated.prediction.effect, -0.14, PREDICTED, "s"), (effect.target.effect, 0.14, MEASURED, "o"))
        for interval, shift, color, marker in pairs:
            if interval is not None:
                style: dict[str, Any] = {"color": color, "marker": marker, "capsize": 3, "linestyle": "none"}
                draw_interval(axes, interval, place + shift, **style)
    axes.axvline(0, color=INK, linewidth=1)
    axes.plot([], [], color=PREDICTED, marker="s", label="predicted, on the images that choose (95 %)")
    axes.plot([], [], color=MEASURED, marker="o", label="measured, on the images that judge (simultaneous)")
    axes.set_yticks(range(len(shown)), [literal_text(effect.stated.arm) for effect in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("change of the target against the control (pp); to the left is better")
    axes.set_title("Interventions: predicted and measured change of the target", size=11)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure
