"""Sentences on the forensics; nothing is computed here."""

from analysis.audits.root_cause import MIXED
from analysis.external.forensics import OutsideArm
from analysis.findings.arm_findings import ArmFinding
from analysis.findings.forensic_findings import (
    AuditVerdict,
    CamView,
    FrequencyAudit,
    GroupContrast,
    RingAudit,
    RootCause,
)
from analysis.report.number_formats import (
    format_count,
    format_estimate,
    format_interval,
    format_percent,
    format_signed_pp,
)


def describe_clusters(arm: ArmFinding | OutsideArm) -> str:
    """Return the clusters of classes that an arm confuses, with their stability."""
    if not arm.confused_pairs:
        return f"{arm.arm} confuses no pair of classes more often than expected by chance."
    if not arm.clusters:
        return (
            "The pairs below are confused more often than expected by chance, but no cluster of classes appears in at least "
            "95 % of the bootstrap samples."
        )
    named = "; ".join(
        f"{', '.join(c.classes)} (in {format_percent(c.stability, 0)} of the bootstrap samples)" for c in arm.clusters
    )
    return f"Clusters of confused classes: {named}."


def describe_audit(audit: RingAudit) -> str:
    """Return the verdict of a ring audit with the numbers behind it."""
    failed = [c for c in audit.classes if c.verdict is AuditVerdict.FAIL]
    confirmed = [c.class_name for c in failed if c.is_confirmed]
    verdict = {
        AuditVerdict.FAIL: f"FAIL: {', '.join(c.class_name for c in failed)}",
        AuditVerdict.PASS: "PASS: the accuracy loss of every class is within the tolerance",
        AuditVerdict.UNDECIDED: "UNDECIDED: no class fails, but not every class passes",
    }[audit.verdict]
    if failed:
        verdict += f"; confirmed with object-free rings: {', '.join(confirmed) or 'none'}"
        verdict += f"; location of the cue: {audit.region}"
    return (
        f"{verdict}. Accuracy loss with a ring of another class, all classes: {format_signed_pp(audit.gap)}; accuracy from the "
        f"ring alone: {format_interval(audit.ring_only_accuracy)} (chance: {format_percent(audit.chance)})."
    )


def describe_frequencies(audit: FrequencyAudit) -> str:
    """Return the verdict of a frequency audit with the numbers behind it."""
    verdict = {
        AuditVerdict.FAIL: "FAIL: the arm uses frequency components that span the whole image",
        AuditVerdict.PASS: "PASS: the accuracy loss is within the tolerance",
        AuditVerdict.UNDECIDED: "UNDECIDED",
    }[audit.verdict]
    components = ", ".join(f"{down}x{across}" for down, across in audit.waves)
    return (
        f"{verdict}. Accuracy loss with frequency components swapped across classes, compared to swaps within a class: "
        f"{format_signed_pp(audit.gap)}. The swapped components separate the classes better than their neighbors in the spectrum "
        f"(periods down x across): {components}. Components of few periods also describe the coarse layout of objects, so the "
        "loss is an upper bound on the effect of the component alone."
    )


def describe_admission(arm: ArmFinding) -> str:
    """Return whether the heat maps of an arm are admitted as evidence, and which tests failed."""
    found = arm.cam_admission
    if found is None:
        return f"The heat maps of {arm.arm} were not tested, so they are not admitted as evidence."
    height, width = found.map_size
    source = f"(maps of {height}x{width} cells from {found.layer}, {format_count(found.num_images)} images)"
    if found.is_admitted:
        return f"The heat maps of {arm.arm} are admitted as evidence: they passed all four tests {source}."
    failed = ", ".join(test.name for test in found.tests if not test.is_passed)
    return f"The heat maps of {arm.arm} are not admitted as evidence. Failed tests: {failed} {source}."


def describe_focus(arm: ArmFinding) -> str:
    """Return the share of the maps' energy on the object beyond chance; "" if no masks are known."""
    found = arm.cam_admission
    if found is None or found.object_focus is None:
        return ""
    return (
        "Share of the heat maps' energy on the object, minus the share within the masks of other images, which corrects for "
        f"center bias: {format_signed_pp(found.object_focus)}."
    )


def describe_cause(cause: RootCause) -> str:
    """Return the verdict on a confused pair with the numbers behind it."""
    if not cause.effects:
        return f"not measured: {cause.note}"
    if cause.cause == MIXED:
        return f"mixed: no cue leads significantly ({cause.num_images} images)"
    return f"{format_cue(cause.cause)}, lead over the next cue: {format_estimate(cause.lead)}"


def describe_effect(cause: RootCause, cue: str) -> str:
    """Return the Shapley value of one cue with its interval, in logits; a dash if it was not measured."""
    for found in cause.effects:
        if found.cue == cue:
            return f"{found.effect.estimate:+.2f} [{found.effect.low:+.2f}, {found.effect.high:+.2f}]"
    return "—"


def format_cue(cue: str) -> str:
    """Return the name of a cue as reports show it; findings.json spells one of them "colour"."""
    return "color" if cue == "colour" else cue


def describe_contrast(contrast: GroupContrast, arm: str) -> str:
    """Return the difference in F1 between two groups of classes, with its permutation test over classes."""
    one, other = contrast.groups
    return (
        f"{arm}: mean F1 of the {one} classes minus mean F1 of the {other} classes: {100 * contrast.difference:+.1f} pp "
        f"(exact permutation test over {contrast.num_classes} classes: p = {contrast.p_value:.3f}; smallest attainable p: "
        f"{contrast.smallest_p:.3f})."
    )


def describe_view(view: CamView) -> str:
    """Return the prediction of one arm for the image of a panel, and the layer of its heat map."""
    height, width = view.map_size
    degenerate = "; degenerate map" if view.degenerate else ""
    return (
        f"{view.arm} predicts {view.predicted_class} ({format_percent(view.predicted_probability, 0)}; true class: "
        f"{format_percent(view.true_probability, 0)}), map of {height}x{width} cells from {view.layer}{degenerate}."
    )
