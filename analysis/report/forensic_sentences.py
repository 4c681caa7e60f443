"""How the report says what the forensics found: text from values, nothing computed."""

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
from analysis.report.number_formats import format_count, format_interval, format_percent, format_signed_pp


def describe_clusters(arm: ArmFinding | OutsideArm) -> str:
    """Return which classes an arm confuses as a group, and how stable that is."""
    if not arm.confused_pairs:
        return f"No pair of classes is confused more often than chance by {arm.arm}."
    if not arm.clusters:
        return "The pairs below are confused more often than chance, but no group of them stands in 95 % of the bootstraps."
    named = "; ".join(
        f"{', '.join(c.classes)} (together in {format_percent(c.stability, 0)} of the bootstraps)" for c in arm.clusters
    )
    return f"Clusters: {named}."


def describe_audit(audit: RingAudit) -> str:
    """Return an audit's verdict with the numbers and the rule that it rests on."""
    failed = [c for c in audit.classes if c.verdict is AuditVerdict.FAIL]
    confirmed = [c.class_name for c in failed if c.is_confirmed]
    words = {
        AuditVerdict.FAIL: f"FAIL: {', '.join(c.class_name for c in failed)}",
        AuditVerdict.PASS: "PASS: no class loses more than the tolerance",
        AuditVerdict.UNDECIDED: "UNDECIDED: no class fails, but not every class passes",
    }[audit.verdict]
    if failed:
        words += f"; confirmed where the ring holds no object: {', '.join(confirmed) or 'none'}"
        words += f"; it is read {place_region(audit.region)}"
    return (
        f"{words}. Over all classes a ring of another class costs {format_signed_pp(audit.gap)}; from the ring alone "
        f"{format_interval(audit.ring_only_accuracy)} are right, by chance {format_percent(audit.chance)}."
    )


def place_region(region: str) -> str:
    """Return a part of the ring as a place: "in the top left corner", "on the left side", "all around"."""
    return (
        f"in the {region}" if region.endswith("corner") else f"on the {region}" if region.endswith("side") else region
    )


def describe_frequencies(audit: FrequencyAudit) -> str:
    """Return the frequency test's verdict with the numbers that it rests on."""
    words = {
        AuditVerdict.FAIL: "FAIL: the arm reads waves that fill the whole picture",
        AuditVerdict.PASS: "PASS: exchanging them costs less than the tolerance",
        AuditVerdict.UNDECIDED: "UNDECIDED",
    }[audit.verdict]
    waves = ", ".join(f"{down}x{across}" for down, across in audit.waves)
    return (
        f"{words}. The waves of another class instead of the own one cost {format_signed_pp(audit.gap)} of accuracy. Exchanged "
        f"were the waves whose power tells classes apart most beyond their neighbours' (periods down x across): {waves}. "
        "A wave of few periods is a part of the objects' coarse layout too, so the cost is an upper bound of what such a wave "
        "alone is worth."
    )


def describe_admission(arm: ArmFinding) -> str:
    """Return whether an arm's heat maps count as evidence, and what failed where they do not."""
    found = arm.cam_admission
    if found is None:
        return f"The heat maps of {arm.arm} were not tested, so they are not admitted as evidence."
    failed = ", ".join(test.name for test in found.tests if not test.is_passed)
    height, width = found.map_size
    what = f"maps of {height}x{width} cells from {found.layer}, {format_count(found.num_images)} images"
    if found.is_admitted:
        return f"The heat maps of {arm.arm} are admitted as evidence: all four tests were passed ({what})."
    return f"The heat maps of {arm.arm} are not admitted as evidence: {failed} ({what})."


def describe_focus(arm: ArmFinding) -> str:
    """Return how much of the maps' energy lies on the object beyond chance; "" where no masks are known."""
    found = arm.cam_admission
    if found is None or found.object_focus is None:
        return ""
    return (
        f"Share of the maps' energy on the object, less that in other images' masks (which takes the bias to the centre away): "
        f"{format_signed_pp(found.object_focus)}."
    )


def describe_cause(cause: RootCause) -> str:
    """Return the verdict on a confused pair with what it rests on."""
    if cause.note:
        return f"not measured: {cause.note}"
    if cause.cause == MIXED:
        return f"mixed: no cue leads beyond error ({cause.num_images} images)"
    return f"{cause.cause}, ahead of the next cue by {cause.lead.estimate:.2f} [{cause.lead.low:.2f}, {cause.lead.high:.2f}]"


def describe_effect(cause: RootCause, cue: str) -> str:
    """Return one cue's Shapley value with its interval, in logits; a dash where it was not measured."""
    for found in cause.effects:
        if found.cue == cue:
            return f"{found.effect.estimate:+.2f} [{found.effect.low:+.2f}, {found.effect.high:+.2f}]"
    return "—"


def describe_contrast(contrast: GroupContrast, arm: str) -> str:
    """Return how an arm does on two groups of classes, with the classes as the unit."""
    one, other = contrast.groups
    return (
        f"{arm}: mean F1 of the {one} classes minus that of the {other} ones {100 * contrast.difference:+.1f} pp, exact "
        f"permutation p {contrast.p_value:.3f} over {contrast.num_classes} classes (the least that so few classes can have is "
        f"{contrast.smallest_p:.3f})."
    )


def describe_view(view: CamView) -> str:
    """Return what one arm says of a panel's image, and from which layer its map comes."""
    height, width = view.map_size
    empty = "; degenerate map" if view.degenerate else ""
    return (
        f"{view.arm} says {view.predicted_class} ({format_percent(view.predicted_probability, 0)}; true class "
        f"{format_percent(view.true_probability, 0)}), map of {height}x{width} cells from {view.layer}{empty}"
    )
