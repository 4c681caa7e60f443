"""Root causes as sentences and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.causes.values import MIXED, RootCause
from analysis.confusions.values import ArmConfusions
from analysis.formats.figures import ARM_COLORS, BAND_COLOR, INK, draw_interval, new_figure
from analysis.formats.numbers import format_interval, format_percent, join_intervals, join_verdicts
from trainables.records.confusion_figure import literal_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def describe_cause(cause: RootCause) -> str:
    """Return the verdict on a confused pair with the numbers behind it."""
    if not cause.effects:
        return f"not measured: {cause.note}"
    images = f"{cause.num_images} images"
    if cause.num_references:
        images += f", {cause.num_references} references"
    if cause.note:
        images += f"; {cause.note}"
    named = {c for c in (cause.cause, cause.recipe_cause) if c is not None} - {MIXED}
    if not named:
        return f"mixed: no cue leads significantly ({images})"
    verdict = join_verdicts(cause.cause, cause.recipe_cause)
    return f"{verdict}, lead over the next cue: {join_intervals(cause.lead, lambda x: f'{x + 0.0:.2f}')} ({images})"


def describe_symptom(cause: RootCause, arm: ArmConfusions) -> str:
    """Return the confusion rate behind a root cause: of the pair, or of its images in one direction."""
    for pair in () if cause.is_directed else arm.confused_pairs:
        if set(pair.classes) == set(cause.classes):
            return f"{format_interval(pair.rate)} (by chance: {format_percent(pair.expected_rate)})"
    for cell in arm.directed:
        if (cell.true_class, cell.predicted_class) == cause.classes:
            return f"{cell.true_class} predicted as {cell.predicted_class}: {format_interval(cell.rate)}"
    return "—"


def describe_effect(cause: RootCause, cue: str) -> str:
    """Return the Shapley value of one cue with its interval, in logits; a dash if it was not measured."""
    for found in cause.effects:
        if found.cue == cue:
            return join_intervals(found.effect, "{:+.2f}".format)
    return "—"


def plot_root_causes(causes: Mapping[str, Sequence[RootCause]]) -> Figure:
    """Draw the Shapley values of the cues in logits, one panel per measured pair of an arm; the named cause is dark."""
    measured = [(arm, cause) for arm, found in causes.items() for cause in found if cause.effects]
    columns = min(3, len(measured))
    rows = -(-len(measured) // columns)
    figure = new_figure((3.6 * columns + 0.6, 2.1 * rows + 0.6))
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for axes, (arm, cause) in zip(panels, measured, strict=False):
        named = cause.cause
        for place, found in enumerate(cause.effects):
            value = found.effect.models
            color = ARM_COLORS[0] if found.cue == named else BAND_COLOR
            axes.barh(place, value.estimate, color=color, edgecolor=INK, linewidth=0.6)
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
