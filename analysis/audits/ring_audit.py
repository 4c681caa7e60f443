"""The Clever Hans audit: does an arm rely on the object or on the background? It swaps the outer ring between images.

The background gap of a class is its accuracy with rings of the same class minus that with rings of another class; both kinds of
images have the same seam. A ring contains pixels of the object too, so the gap is an upper bound on the effect of the
background. A failure is confirmed if it also shows on images whose ring contains no object: according to their masks or,
without masks, on those with the fewest edges in the ring.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from analysis.audits.cues import LUMA
from analysis.audits.ring_regions import find_region
from analysis.audits.ring_swaps import RING_FRACTIONS, fill_center, find_few_edges, make_ring, swap_ring
from analysis.audits.swap_effects import (
    ALPHA,
    TOLERANCE,
    AuditImages,
    Classify,
    compute_mean_interval,
    judge_gap,
    measure_gaps,
)
from analysis.findings.forensic_findings import AuditVerdict, ClassAudit, ColourLoss, PairPull, RingAudit
from analysis.findings.interval import Interval
from analysis.statistics.crossed_interval import compute_share_interval
from analysis.statistics.metrics import FloatArray, IntArray
from trainables.seeds import numpy_generator

# A failure is not confirmed by fewer images of a class without object in the ring.
MIN_OBJECT_FREE = 10


def audit_rings(classify: Classify, audit_images: AuditImages, *, seed: int = 0) -> tuple[RingAudit, ...]:
    """Return the audits of an arm, one per ring width, the narrowest first.

    Args:
        classify: the arm's S >= 2 models.
        audit_images: images that no model was trained on.
        seed: of the choice of donors.

    Raises:
        UserInputError: for one seed, a class with one image, and images too small for a ring.
    """
    return tuple(_audit_ring(classify, audit_images, fraction, seed) for fraction in RING_FRACTIONS)


def _audit_ring(classify: Classify, audit_images: AuditImages, fraction: float, seed: int) -> RingAudit:
    images, labels, num_classes = audit_images.images, audit_images.labels, len(audit_images.class_names)
    ring = make_ring(images.shape[1], images.shape[2], fraction)
    gaps = _measure_ring_gaps(classify, audit_images, ring, seed, "all")
    free, reason = _find_object_free(audit_images, ring)
    free_labels, free_gaps = labels[free], np.zeros((len(gaps), 0))
    if len(free):
        # The last argument seeds the donors, so it does not change.
        free_gaps = _measure_ring_gaps(classify, audit_images.take(free), ring, seed, "quiet")
    color = images.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    ring_only = np.asarray(classify(fill_center(images, ring, color)) == labels, dtype=np.float64)
    present = np.unique(labels)
    classes = []
    for label in present:
        own, free_own = labels == label, free_labels == label
        gap = compute_mean_interval(gaps[:, own], labels[own], num_classes, 1 - ALPHA / len(present))
        free_gap = None
        if free_own.sum() >= MIN_OBJECT_FREE:
            free_gap = compute_mean_interval(free_gaps[:, free_own], free_labels[free_own], num_classes)
        verdict = judge_gap(gap)
        classes.append(
            ClassAudit(
                class_name=audit_images.class_names[int(label)],
                gap=gap,
                verdict=verdict,
                object_free_gap=free_gap,
                is_confirmed=_is_confirmed(free_gap) if verdict is AuditVerdict.FAIL else None,
                ring_only_accuracy=compute_share_interval(ring_only[:, own], labels[own], num_classes, 1 - ALPHA),
            )
        )
    verdict = judge_classes(classes)
    return RingAudit(
        ring_pixels=int(ring[:, ring.shape[1] // 2].sum()) // 2,
        gap=compute_mean_interval(gaps, labels, num_classes),
        ring_only_accuracy=compute_share_interval(ring_only, labels, num_classes, 1 - ALPHA),
        chance=1 / len(present),
        classes=tuple(classes),
        verdict=verdict,
        object_free_by=reason,
        num_object_free=len(free),
        region=find_region(classify, audit_images, ring, seed=seed) if verdict is AuditVerdict.FAIL else "",
    )


def judge_classes(classes: Sequence[ClassAudit]) -> AuditVerdict:
    """Return FAIL if a class fails, PASS if every class passes, else UNDECIDED; the classes' intervals are simultaneous."""
    verdicts = {c.verdict for c in classes}
    if AuditVerdict.FAIL in verdicts:
        return AuditVerdict.FAIL
    return AuditVerdict.PASS if verdicts == {AuditVerdict.PASS} else AuditVerdict.UNDECIDED


def measure_color_losses(classify: Classify, audit_images: AuditImages) -> tuple[ColourLoss, ...]:
    """Return the accuracy that each class loses when its images are made gray.

    Args:
        classify: the arm's S >= 2 models.
        audit_images: images that no model was trained on.

    Raises:
        UserInputError: for one seed, and for a class with one image.
    """
    images, labels, names = audit_images.images, audit_images.labels, audit_images.class_names
    gray = np.repeat((images.astype(np.float32) @ LUMA).round().astype(np.uint8)[..., None], 3, axis=3)
    correct, correct_gray = (np.asarray(classify(shown) == labels, dtype=np.float64) for shown in (images, gray))
    lost = correct - correct_gray
    present = np.unique(labels)
    losses = []
    for label in present:
        own = labels == label
        interval = compute_mean_interval(lost[:, own], labels[own], len(names), 1 - ALPHA / len(present))
        losses.append(ColourLoss(class_name=names[int(label)], loss=interval))
    return tuple(losses)


def measure_pull(classify: Classify, audit_images: AuditImages, one: int, other: int, *, seed: int = 0) -> PairPull:
    """Return how much more often images of class `one` are predicted as `other` when their ring comes from `other`.

    The pull is P(other | ring of other) - P(other | ring of a third class) on images of `one`.

    Args:
        classify: the arm's S >= 2 models.
        audit_images: images that no model was trained on, of three classes at least.
        one: class of the images.
        other: class of the rings.
        seed: of the choice of donors.

    Raises:
        UserInputError: for one seed, and for a class with one image.
    """
    images, labels, names = audit_images.images, audit_images.labels, audit_images.class_names
    ring = make_ring(images.shape[1], images.shape[2], RING_FRACTIONS[0])
    generator = numpy_generator(seed, f"pull {one} {other}")
    own = np.flatnonzero(labels == one)
    pulled = []
    for donors in (np.flatnonzero(labels == other), np.flatnonzero(~np.isin(labels, (one, other)))):
        drawn = _draw_donors(donors, len(own), generator)
        pulled.append(np.asarray(classify(swap_ring(images[own], images[drawn], ring)) == other, dtype=np.float64))
    effect = compute_mean_interval(pulled[0] - pulled[1], labels[own], len(names))
    return PairPull(true_class=names[one], ring_class=names[other], pull=effect)


def _draw_donors(donors: IntArray, number: int, generator: np.random.Generator) -> IntArray:
    """Return `number` donors in random order, all used equally often, give or take one."""
    rounds = -(-number // len(donors))
    return np.concatenate([generator.permutation(donors) for _ in range(rounds)])[:number]


def _measure_ring_gaps(
    classify: Classify, audit_images: AuditImages, ring: NDArray[np.bool_], seed: int, name: str
) -> FloatArray:
    generator = numpy_generator(seed, f"ring {int(ring.sum())} {name}")
    return measure_gaps(classify, audit_images, partial(swap_ring, ring=ring), generator)


def _find_object_free(audit_images: AuditImages, ring: NDArray[np.bool_]) -> tuple[IntArray, str]:
    """Return the images whose ring contains no object, of classes with enough of them, and how that is known."""
    if audit_images.masks is not None:
        free, reason = ~(audit_images.masks & ring).any(axis=(1, 2)), "masks"
    else:
        free, reason = find_few_edges(audit_images.images, audit_images.labels, ring), "fewest edges in the ring"
    counts = np.bincount(audit_images.labels[free], minlength=len(audit_images.class_names))
    kept = np.flatnonzero(free & (counts[audit_images.labels] >= MIN_OBJECT_FREE))
    return (kept if len(np.unique(audit_images.labels[kept])) >= 2 else kept[:0]), reason


def _is_confirmed(gap: Interval | None) -> bool:
    """Return whether a failure also shows without object in the ring: a gap above 0 and larger than the tolerance."""
    return gap is not None and gap.low > 0 and gap.estimate > TOLERANCE
