"""The Clever Hans audit: does an arm read the object or the background? It swaps the outer ring between images.

The background gap of a class is its accuracy with a ring from the same class minus that with a ring from another class; both
carry the same seam. A ring holds object pixels too, so the gap is an upper bound of what the background is worth; a failure is
confirmed where it also shows on images whose ring holds no object: by their masks, or where the ring has the fewest edges.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from analysis.audits.cues import LUMA
from analysis.audits.ring_regions import find_region
from analysis.audits.ring_swaps import RING_FRACTIONS, fill_centre, find_quiet, make_ring, swap_ring
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
from analysis.statistics.crossed_interval import compute_crossed_interval, compute_proportion_interval
from analysis.statistics.metrics import FloatArray, IntArray
from trainables.seeds import numpy_generator

# Below this many images of a class without object in the ring, nothing is confirmed.
FEWEST_QUIET = 10


def audit_rings(classify: Classify, what: AuditImages, *, seed: int = 0) -> tuple[RingAudit, ...]:
    """Return the audit of an arm, one part per width of the ring, the narrower first.

    Args:
        classify: the arm's S >= 2 models.
        what: images that no model was trained on.
        seed: of the choice of donors.

    Raises UserInputError for one seed, a class with one image, and images too small for a ring.
    """
    return tuple(_audit_ring(classify, what, fraction, seed) for fraction in RING_FRACTIONS)


def _audit_ring(classify: Classify, what: AuditImages, fraction: float, seed: int) -> RingAudit:
    labels, num_classes = what.labels, len(what.class_names)
    ring = make_ring(what.images.shape[1], what.images.shape[2], fraction)
    gaps = _measure_ring_gaps(classify, what, ring, seed, "all")
    quiet, reason = _find_object_free(what, ring)
    quiet_gaps = _measure_ring_gaps(classify, what.take(quiet), ring, seed, "quiet") if len(quiet) else None
    color = what.images.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    ring_only = np.asarray(classify(fill_centre(what.images, ring, color)) == labels, dtype=np.float64)
    present = np.unique(labels)
    confidence = 1 - ALPHA / len(present)
    classes = []
    for label in present:
        own = labels == label
        gap = compute_mean_interval(gaps[:, own], labels[own], num_classes, confidence)
        quiet_gap = None
        if quiet_gaps is not None and (labels[quiet] == label).sum() >= FEWEST_QUIET:
            quiet_own = labels[quiet] == label
            quiet_gap = compute_mean_interval(
                quiet_gaps[:, quiet_own], labels[quiet][quiet_own], num_classes, 1 - ALPHA
            )
        verdict = judge_gap(gap)
        classes.append(
            ClassAudit(
                class_name=what.class_names[int(label)],
                gap=gap,
                verdict=verdict,
                object_free_gap=quiet_gap,
                is_confirmed=_is_confirmed(quiet_gap) if verdict is AuditVerdict.FAIL else None,
                ring_only_accuracy=_share(ring_only[:, own], labels[own], num_classes),
            )
        )
    verdict = judge_classes(classes)
    return RingAudit(
        ring_pixels=int(ring[:, ring.shape[1] // 2].sum()) // 2,
        gap=compute_mean_interval(gaps, labels, num_classes, 1 - ALPHA),
        ring_only_accuracy=_share(ring_only, labels, num_classes),
        chance=1 / len(present),
        classes=tuple(classes),
        verdict=verdict,
        object_free_by=reason,
        num_object_free=len(quiet),
        region=find_region(classify, what, ring, seed=seed) if verdict is AuditVerdict.FAIL else "",
    )


def judge_classes(classes: Sequence[ClassAudit]) -> AuditVerdict:
    """Return FAIL if a class fails, PASS if every class passes, else UNDECIDED; the classes' intervals hold together."""
    verdicts = {c.verdict for c in classes}
    if AuditVerdict.FAIL in verdicts:
        return AuditVerdict.FAIL
    return AuditVerdict.PASS if verdicts == {AuditVerdict.PASS} else AuditVerdict.UNDECIDED


def measure_colour_losses(classify: Classify, what: AuditImages) -> tuple[ColourLoss, ...]:
    """Return how much accuracy each class loses when its images are made grey.

    Raises UserInputError for one seed and a class with one image.
    """
    grey = np.repeat((what.images.astype(np.float32) @ LUMA).round().astype(np.uint8)[..., None], 3, axis=3)
    right = [np.asarray(classify(images) == what.labels, dtype=np.float64) for images in (what.images, grey)]
    lost = right[0] - right[1]
    present = np.unique(what.labels)
    losses = []
    for label in present:
        own = what.labels == label
        interval = compute_mean_interval(
            lost[:, own], what.labels[own], len(what.class_names), 1 - ALPHA / len(present)
        )
        losses.append(ColourLoss(class_name=what.class_names[int(label)], loss=interval))
    return tuple(losses)


def measure_pull(
    classify: Classify, what: AuditImages, one: int, other: int, *, fraction: float = RING_FRACTIONS[0], seed: int = 0
) -> PairPull:
    """Return how far a ring of the class `other` pulls images of the class `one` towards it.

    It is P(other | ring from other) - P(other | ring from a third class), on images of `one`. Raises UserInputError
    where there is no third class, for one seed, and for classes with one image.
    """
    labels, names = what.labels, what.class_names
    ring = make_ring(what.images.shape[1], what.images.shape[2], fraction)
    generator = numpy_generator(seed, f"pull {one} {other}")
    own = np.flatnonzero(labels == one)
    towards, third = np.flatnonzero(labels == other), np.flatnonzero(~np.isin(labels, (one, other)))
    said = [
        classify(swap_ring(what.images[own], what.images[_draw_donors(donors, len(own), generator)], ring)) == other
        for donors in (towards, third)
    ]
    effect = compute_mean_interval(np.asarray(said[0], dtype=np.float64) - said[1], labels[own], len(names), 1 - ALPHA)
    return PairPull(true_class=names[one], ring_class=names[other], pull=effect)


def _draw_donors(donors: IntArray, number: int, generator: np.random.Generator) -> IntArray:
    """Return `number` of the donors in random order, each as seldom as possible."""
    rounds = -(-number // len(donors))
    return np.concatenate([generator.permutation(donors) for _ in range(rounds)])[:number]


def _measure_ring_gaps(
    classify: Classify, what: AuditImages, ring: NDArray[np.bool_], seed: int, name: str
) -> FloatArray:
    generator = numpy_generator(seed, f"ring {int(ring.sum())} {name}")
    return measure_gaps(classify, what, partial(swap_ring, ring=ring), generator)


def _find_object_free(what: AuditImages, ring: NDArray[np.bool_]) -> tuple[IntArray, str]:
    """Return the images whose ring holds no object, of classes with enough of them, and how that is known."""
    if what.masks is not None:
        free, reason = ~(what.masks & ring).any(axis=(1, 2)), "masks"
    else:
        free, reason = find_quiet(what.images, what.labels, ring), "fewest edges in the ring"
    counts = np.bincount(what.labels[free], minlength=len(what.class_names))
    kept = np.flatnonzero(free & (counts[what.labels] >= FEWEST_QUIET))
    return (kept if len(np.unique(what.labels[kept])) >= 2 else kept[:0]), reason


def _is_confirmed(gap: Interval | None) -> bool:
    """Whether a failure also shows without object in the ring: an effect for certain, and as large as matters."""
    return gap is not None and gap.low > 0 and gap.estimate > TOLERANCE


def _share(values: FloatArray, labels: IntArray, num_classes: int) -> Interval:
    means = values.mean(axis=1)
    found = compute_crossed_interval(means, values - means[:, None], labels, num_classes, 1 - ALPHA)
    return compute_proportion_interval(found, num_seeds=len(means), num_observations=len(labels), confidence=1 - ALPHA)
