"""Sentences on the root causes of confusions."""

from analysis.findings.cause_findings import MIXED, RootCause
from analysis.findings.class_findings import ArmConfusions
from analysis.report.number_formats import (
    format_estimate,
    format_interval,
    format_percent,
    join_intervals,
    join_verdicts,
)


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
    return f"{verdict}, lead over the next cue: {format_estimate(cause.lead)} ({images})"


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


FILTERS = {"cause": describe_cause, "symptom": describe_symptom, "effect": describe_effect}
