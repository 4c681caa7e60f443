"""Sentences on the ring and frequency audits."""

from analysis.findings.shortcut_findings import AuditVerdict, FrequencyAudit, RingAudit
from analysis.report.number_formats import (
    format_interval,
    format_percent,
    format_sentence,
    format_signed_pp,
    join_verdicts,
)

_RING_VERDICTS = {
    AuditVerdict.FAIL: "FAIL",
    AuditVerdict.PASS: "PASS (the accuracy loss of every class is within the tolerance)",
    AuditVerdict.UNDECIDED: "UNDECIDED (no class fails, but not every class passes)",
}


def describe_audit(audit: RingAudit) -> str:
    """Return the verdicts of a ring audit with the numbers behind them."""
    questions = {
        "these models": (audit.verdict, [c.class_name for c in audit.classes if c.verdict is AuditVerdict.FAIL]),
        "the recipe": (
            audit.recipe_verdict,
            [c.class_name for c in audit.classes if c.recipe_verdict is AuditVerdict.FAIL],
        ),
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
        f"{format_sentence(text)} Accuracy loss with a ring of another class, all classes: {format_signed_pp(audit.gap)}; "
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


FILTERS = {"audit": describe_audit, "frequencies": describe_frequencies}
