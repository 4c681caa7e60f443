"""The figure of the root causes: the effect of each cue on confused pairs."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analysis.findings.cause_findings import MIXED, RootCause
from analysis.report.figures import ARM_COLORS, BAND_COLOR, INK, draw_interval
from trainables.records.confusion_figure import literal_text


def plot_root_causes(causes: Mapping[str, Sequence[RootCause]]) -> Figure:
    """Draw the Shapley values of the cues in logits, one panel per measured pair of an arm; the named cause is dark."""
    measured = [(arm, cause) for arm, found in causes.items() for cause in found if cause.effects]
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
            draw_interval(axes, value, place, scale=1.0, color=INK, capsize=2.5, linewidth=1.0)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(cause.effects)), [found.cue for found in cause.effects], size=9)
        axes.invert_yaxis()
        axes.set_title(literal_text(f"{arm}: {' and '.join(cause.classes)}\n{named}"), size=9)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(measured) :]:
        axes.set_axis_off()
    figure.supxlabel("increase in the margin when the cue is removed (logits, Shapley value)", size=10)
    return figure
