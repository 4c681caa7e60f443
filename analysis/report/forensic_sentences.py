"""Sentences on the forensics; nothing is computed here."""

from analysis.audits.root_cause import MIXED
from analysis.classes.directed_confusions import TOLERANCE
from analysis.external.forensics import OutsideArm
from analysis.findings.arm_findings import ArmFinding
from analysis.findings.class_findings import DirectedConfusion, Materiality
from analysis.findings.forensic_findings import (
    AuditVerdict,
    CamTest,
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
    format_sentence,
    format_signed_pp,
    join_intervals,
    join_verdicts,
)
from search_spaces.errors import list_some

# Confusions that a sentence names; the table has the others.
MAX_NAMED = 15


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


def describe_admission(arm: ArmFinding) -> str:
    """Return whether the heat maps of an arm are admitted as evidence, and which tests failed or do not apply."""
    found = arm.cam_admission
    if found is None:
        return f"The heat maps of {arm.arm} were not tested, so they are not admitted as evidence."
    height, width = found.map_size
    maps = f"{found.method} maps of {arm.arm}"
    source = f"({height}x{width} cells from {found.layer}, {format_count(found.num_images)} images)"
    void = ", ".join(test.name for test in found.tests if not test.applies)
    remark = f" Not applicable: {void}." if void else ""
    if found.is_admitted:
        return f"The {maps} are admitted as evidence: they passed all tests that apply {source}.{remark}"
    failed = ", ".join(test.name for test in found.tests if test.applies and not test.is_passed)
    return f"The {maps} are not admitted as evidence. Failed tests: {failed} {source}.{remark}"


def describe_passed(test: CamTest) -> str:
    """Return "yes", "no", or that the test does not apply."""
    if not test.applies:
        return "does not apply"
    return "yes" if test.is_passed else "no"


def describe_cam_estimate(test: CamTest) -> str:
    """Return the estimate of a test of heat maps with its intervals."""
    return join_intervals(test.estimate, lambda e: f"{e.estimate:.3f} [{e.low:.3f}, {e.high:.3f}]")


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


def describe_symptom(cause: RootCause, arm: ArmFinding) -> str:
    """Return the confusion rate behind a root cause: of the pair, or of its images in one direction."""
    for pair in () if cause.is_directed else arm.confused_pairs:
        if set(pair.classes) == set(cause.classes):
            return f"{format_interval(pair.rate)} (by chance: {format_percent(pair.expected_rate)})"
    for cell in arm.directed:
        if (cell.true_class, cell.predicted_class) == cause.classes:
            return f"{cell.true_class} predicted as {cell.predicted_class}: {format_interval(cell.rate)}"
    return "—"


def describe_directed(arm: ArmFinding | OutsideArm) -> str:
    """Return how many directed confusions are material, and over how many cells the intervals are simultaneous."""
    material = [c for c in arm.directed if c.verdict is Materiality.MATERIAL]
    named = list_some((f"{c.true_class} predicted as {c.predicted_class}" for c in material), MAX_NAMED, "; ")
    return (
        f"Confusions of more than {format_percent(TOLERANCE, 0)} of the true class, for these models: {named or 'none'}. The "
        f"intervals hold jointly for all {arm.num_directed} cells."
    )


def describe_decision(cell: DirectedConfusion) -> str:
    """Return how many images of the true class would decide an undecided confusion; "" for a decided one."""
    if cell.verdict is not Materiality.UNDECIDED:
        return ""
    if cell.images_to_decide is None:
        return "no number of images decides a rate this close to the tolerance"
    return (
        f"about {format_count(cell.images_to_decide)} images of {cell.true_class} (now {format_count(cell.num_images)})"
    )


def describe_effect(cause: RootCause, cue: str) -> str:
    """Return the Shapley value of one cue with its interval, in logits; a dash if it was not measured."""
    for found in cause.effects:
        if found.cue == cue:
            return join_intervals(found.effect, lambda e: f"{e.estimate:+.2f} [{e.low:+.2f}, {e.high:+.2f}]")
    return "—"


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
        f"{format_percent(view.true_probability, 0)}), {view.method} map of {height}x{width} cells from {view.layer}{degenerate}."
    )
