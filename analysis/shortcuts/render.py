"""The ring and frequency audits as sentences and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.formats.figures import ARM_COLORS, BAND_COLOR, INK, draw_interval, new_figure
from analysis.formats.numbers import format_interval, format_percent, format_sentence, format_signed_pp, join_verdicts
from analysis.shortcuts.values import GAP_TOLERANCE, NUM_DONORS, AuditVerdict, FrequencyAudit, RingAudit
from trainables.records.confusion_figure import literal_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RING_VERDICTS = {
    AuditVerdict.FAIL: "FAIL",
    AuditVerdict.PASS: "PASS (the accuracy loss of every class is within the tolerance)",
    AuditVerdict.UNDECIDED: "UNDECIDED (no class fails, but not every class passes)",
}


def describe_audit(audit: RingAudit) -> str:
    """Return the verdicts of a ring audit with the numbers behind them."""
    fail = AuditVerdict.FAIL
    questions = {
        "these models": (audit.verdict, [c.class_name for c in audit.classes if c.verdict is fail]),
        "the recipe": (audit.recipe_verdict, [c.class_name for c in audit.classes if c.recipe_verdict is fail]),
    }
    text = "; ".join(
        f"for {question} {_RING_VERDICTS[verdict]}{': ' + ', '.join(failed) if failed else ''}"
        for question, (verdict, failed) in questions.items()
        if verdict is not None
    )
    if any(failed for _, failed in questions.values()):
        confirmed = [c.class_name for c in audit.classes if c.is_confirmed or c.recipe_confirmed]
        text += f"; confirmed with object-free rings: {', '.join(confirmed) or 'none'}"
        text += f"; location of the cue: {audit.region}" if audit.region else ""
    return (
        f"{format_sentence(text)} Accuracy loss with a ring of another class, all classes: {format_signed_pp(audit.gap)}, "
        f"with rings of {NUM_DONORS} images of its own class and of as many others on each image; "
        f"accuracy from the ring alone: {format_interval(audit.ring_only_accuracy)} (the same answer for every image: "
        f"{format_percent(audit.chance)})."
    )


def describe_frequencies(audit: FrequencyAudit) -> str:
    """Return the verdict of a frequency audit with the numbers behind it."""
    verdict = join_verdicts(audit.verdict, audit.recipe_verdict)
    failed = [c.class_name for c in audit.classes if AuditVerdict.FAIL in (c.verdict, c.recipe_verdict)]
    if failed:
        verdict += f": {', '.join(failed)} (frequency components that span the whole image)"
    components = ", ".join(f"{down}x{across}" for down, across in audit.waves)
    return (
        f"{verdict}. Accuracy loss with frequency components swapped across classes, compared to swaps within a class: "
        f"{format_signed_pp(audit.gap)}. The swapped components separate the classes better than their neighbors in the spectrum "
        f"(periods down x across): {components}. Components of few periods also describe the coarse layout of objects, so the "
        "loss is an upper bound on the effect of the component alone."
    )


MARKERS = ("o", "s", "D", "^", "v", "P")


def plot_ring_audits(audits: Mapping[str, Sequence[RingAudit]]) -> Figure:
    """Draw the accuracy loss of each class for these models, one panel per ring width; confirmed failures are filled.

    Args:
        audits: by arm, one per ring width; empty for an arm that was not audited.
    """
    audited = {arm: found for arm, found in audits.items() if found}
    first = next(iter(audited.values()))
    widths, names = len(first), [c.class_name for c in first[0].classes]
    height = 1.6 + 0.24 * len(names) * max(len(audited), 1.5)
    figure = new_figure((4.2 * widths + 1.0, height))
    panels = figure.subplots(1, widths, sharey=True, squeeze=False)[0]
    for width, axes in enumerate(panels):
        axes.axvspan(-100 * GAP_TOLERANCE, 100 * GAP_TOLERANCE, color=BAND_COLOR, zorder=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for index, (arm, found_audits) in enumerate(audited.items()):
            color, marker = ARM_COLORS[index % len(ARM_COLORS)], MARKERS[index % len(MARKERS)]
            places = np.arange(len(names)) + 0.7 * ((index + 0.5) / len(audited) - 0.5)
            for place, found in zip(places, found_audits[width].classes, strict=True):
                label = literal_text(arm) if place == places[0] and width == 0 else None
                inside = color if found.is_confirmed or found.recipe_confirmed else "white"
                style: dict[str, Any] = {"fmt": marker, "color": color, "capsize": 2.5, "markersize": 5.5}
                draw_interval(axes, found.gap.models, place, markerfacecolor=inside, label=label, **style)
        axes.set_title(f"ring width: {first[width].ring_pixels} pixels", size=10)
        axes.set_xlabel("accuracy loss with another class's ring (pp)")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), [literal_text(name) for name in names])
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure
