"""Sentences on the confusions of classes, and on groups of classes."""

from analysis.findings.class_findings import (
    CONFUSION_TOLERANCE,
    ArmConfusions,
    DirectedConfusion,
    GroupContrast,
    Materiality,
)
from analysis.report.number_formats import format_count, format_percent
from search_spaces.errors import list_some

# Confusions that a sentence names; the table has the others.
MAX_NAMED = 15


def describe_clusters(found: ArmConfusions, arm: str) -> str:
    """Return the clusters of classes that an arm confuses, with their stability."""
    if not found.confused_pairs:
        return f"{arm} confuses no pair of classes more often than expected by chance."
    if not found.clusters:
        return (
            "The pairs below are confused more often than expected by chance, but no cluster of classes appears in at least "
            "95 % of the bootstrap samples."
        )
    named = "; ".join(
        f"{', '.join(c.classes)} (in {format_percent(c.stability, 0)} of the bootstrap samples)" for c in found.clusters
    )
    return f"Clusters of confused classes: {named}."


def describe_directed(found: ArmConfusions) -> str:
    """Return how many directed confusions are material, and over how many cells the intervals are simultaneous."""
    material = [c for c in found.directed if c.verdict is Materiality.MATERIAL]
    named = list_some((f"{c.true_class} predicted as {c.predicted_class}" for c in material), MAX_NAMED, "; ")
    return (
        f"Confusions of more than {format_percent(CONFUSION_TOLERANCE, 0)} of the true class, for these models: "
        f"{named or 'none'}. The intervals hold jointly for all {found.num_directed} cells."
    )


def describe_images_to_decide(cell: DirectedConfusion) -> str:
    """Return how many images of the true class would decide an undecided confusion; "" for a decided one."""
    if cell.verdict is not Materiality.UNDECIDED:
        return ""
    if cell.images_to_decide is None:
        return "no number of images decides a rate this close to the tolerance"
    return (
        f"about {format_count(cell.images_to_decide)} images of {cell.true_class} (now {format_count(cell.num_images)})"
    )


def describe_contrast(contrast: GroupContrast, arm: str) -> str:
    """Return the difference in F1 between two groups of classes, with its permutation test over classes."""
    one, other = contrast.groups
    return (
        f"{arm}: mean F1 of the {one} classes minus mean F1 of the {other} classes: {100 * contrast.difference:+.1f} pp "
        f"(exact permutation test over {contrast.num_classes} classes: p = {contrast.p_value:.3f}; smallest attainable p: "
        f"{contrast.smallest_p:.3f})."
    )


FILTERS = {
    "clusters": describe_clusters,
    "directed": describe_directed,
    "decision": describe_images_to_decide,
    "contrast": describe_contrast,
}
