"""The Clever Hans audit: does an arm rely on the object or on the background? It swaps the outer ring between images.

The background gap of a class is its accuracy with rings of the same class minus that with rings of another class; both kinds of
images have the same seam. A ring contains pixels of the object too, so the gap is an upper bound on the effect of the
background. A failure is confirmed if it also shows on images whose ring contains no object: according to their masks or,
without masks, on those with the fewest edges in the ring. Few edges do not prove that no object reaches a wide ring, so without
masks a failure at a wider ring must also show on such images of the narrowest ring.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from analysis.audits.ring_regions import RegionGaps, measure_regions, name_region
from analysis.audits.ring_swaps import fill_center, find_few_edges, swap_ring
from analysis.audits.swap_effects import (
    ALPHA,
    AuditImages,
    Classify,
    bound_classes,
    bound_mean,
    judge_both,
    judge_classes,
    measure_gaps,
    take_groups,
)
from analysis.findings.interval import Interval, TwoIntervals
from analysis.findings.shortcut_findings import GAP_TOLERANCE, AuditVerdict, ClassAudit, RingAudit
from analysis.statistics.families import Scale, class_cells, compute_family
from analysis.statistics.metrics import FloatArray, IntArray
from trainables.data.rings import RING_FRACTIONS, make_ring
from trainables.seeds import numpy_generator

# A failure is not confirmed by fewer images of a class without object in the ring.
MIN_OBJECT_FREE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RingMeasurement:
    """What S models predict for N images with swapped rings of one width.

    Attributes:
        ring_pixels: width of the ring.
        class_names: K names.
        labels: (N,) classes.
        gaps: (S, N) as in `measure_gaps`.
        free_labels: (M,) classes of the images whose ring contains no object, of classes with enough of them.
        free_gaps: (S, M) of these images, with donors among them.
        free_by: how they were identified.
        ring_only: (S, N) 1 where a model is correct from the ring alone, with the center filled, else 0.
        regions: gaps by region of the ring; None where no class fails.
        groups: (N,) number of each image's group; None where images are independent.
        free_groups: (M,) the same for the images whose ring contains no object.
        narrowest: measurement of the narrowest ring, which must confirm a failure too; None for that ring, and with masks.
    """

    ring_pixels: int
    class_names: tuple[str, ...]
    labels: IntArray
    gaps: FloatArray
    free_labels: IntArray
    free_gaps: FloatArray
    free_by: str
    ring_only: FloatArray
    regions: RegionGaps | None
    groups: IntArray | None = None
    free_groups: IntArray | None = None
    narrowest: "RingMeasurement | None" = None

    def take_first(self) -> "RingMeasurement":
        """Return what the first model predicts."""
        return replace(
            self,
            gaps=self.gaps[:1],
            free_gaps=self.free_gaps[:1],
            ring_only=self.ring_only[:1],
            regions=self.regions and self.regions.take_first(),
            narrowest=self.narrowest and self.narrowest.take_first(),
        )


def audit_rings(classify: Classify, audit_images: AuditImages, *, seed: int = 0) -> tuple[RingAudit, ...]:
    """Return the audits of an arm, one per ring width, the narrowest first; see `measure_rings` and `judge_ring`."""
    return tuple(judge_ring(measured) for measured in measure_rings(classify, audit_images, seed=seed))


def measure_rings(classify: Classify, audit_images: AuditImages, *, seed: int = 0) -> tuple[RingMeasurement, ...]:
    """Return the measurements of an arm, one per ring width, the narrowest first.

    Args:
        classify: the arm's S models; one is enough.
        audit_images: images that no model was trained on.
        seed: of the choice of donors.

    Raises:
        UserInputError: for a class with one image, and images too small for a ring.
    """
    narrow, *wide = (_measure_ring(classify, audit_images, fraction, seed) for fraction in RING_FRACTIONS)
    narrowest = narrow if audit_images.masks is None else None
    return (narrow, *(replace(ring, narrowest=narrowest) for ring in wide))


def _measure_ring(classify: Classify, audit_images: AuditImages, fraction: float, seed: int) -> RingMeasurement:
    images, labels = audit_images.images, audit_images.labels
    ring = make_ring(images.shape[1], images.shape[2], fraction)
    gaps = _measure_ring_gaps(classify, audit_images, ring, seed, "all")
    free, free_by = _find_object_free(audit_images, ring)
    free_gaps = np.zeros((len(gaps), 0))
    if len(free):
        # The last argument seeds the donors, so it does not change.
        free_gaps = _measure_ring_gaps(classify, audit_images.take(free), ring, seed, "quiet")
    color = images.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    ring_only = np.asarray(classify(fill_center(images, ring, color)) == labels, dtype=np.float64)
    groups = audit_images.groups
    failing = (_find_failing(gaps, labels, groups), _find_failing(gaps[:1], labels, groups))
    return RingMeasurement(
        ring_pixels=int(ring[:, ring.shape[1] // 2].sum()) // 2,
        class_names=audit_images.class_names,
        labels=labels,
        gaps=gaps,
        free_labels=labels[free],
        free_gaps=free_gaps,
        free_by=free_by,
        ring_only=ring_only,
        regions=measure_regions(classify, audit_images, ring, failing, seed=seed) if any(map(len, failing)) else None,
        groups=groups,
        free_groups=take_groups(groups, free),
    )


def measure_narrowest_gaps(classify: Classify, audit_images: AuditImages, *, seed: int = 0) -> FloatArray:
    """Return (S, N) gaps of the narrowest ring alone, as `measure_rings` measures them; the arguments are those of it."""
    images = audit_images.images
    ring = make_ring(images.shape[1], images.shape[2], RING_FRACTIONS[0])
    return _measure_ring_gaps(classify, audit_images, ring, seed, "all")


def judge_ring(measured: RingMeasurement) -> RingAudit:
    """Return the audit of one ring width: intervals and verdicts, for these models and for the recipe.

    Args:
        measured: of S models; with one there are no intervals for the recipe.

    Raises:
        UserInputError: for a class with one image.
    """
    labels, groups = measured.labels, measured.groups
    classes = _judge_classes(measured)
    failing = _find_failing(measured.gaps, labels, groups)
    region = ""
    if len(failing):
        assert measured.regions is not None
        region = name_region(measured.regions, failing)
    return RingAudit(
        ring_pixels=measured.ring_pixels,
        gap=bound_mean(measured.gaps, labels, groups),
        ring_only_accuracy=bound_mean(measured.ring_only, labels, groups, scale=Scale.PROPORTION),
        chance=float(np.unique(labels, return_counts=True)[1].max() / len(labels)),
        classes=classes,
        verdict=judge_classes(c.verdict for c in classes),
        recipe_verdict=judge_classes(c.recipe_verdict for c in classes),
        object_free_by=measured.free_by,
        num_object_free=len(measured.free_labels),
        region=region,
    )


def _judge_classes(measured: RingMeasurement) -> tuple[ClassAudit, ...]:
    labels, groups = measured.labels, measured.groups
    gaps, free_gaps = bound_classes(measured.gaps, labels, groups), _bound_object_free(measured)
    confirming = [free_gaps] if measured.narrowest is None else [free_gaps, _bound_object_free(measured.narrowest)]
    shares = compute_family(
        class_cells(measured.ring_only, labels, groups), scale=Scale.PROPORTION, confidence=1 - ALPHA
    )
    classes = []
    for label, gap, ring_only in zip(np.unique(labels).tolist(), gaps, shares, strict=True):
        verdict, recipe_verdict = judge_both(gap)
        shown = [found.get(label) for found in confirming]
        classes.append(
            ClassAudit(
                class_name=measured.class_names[label],
                gap=gap,
                verdict=verdict,
                recipe_verdict=recipe_verdict,
                object_free_gap=free_gaps.get(label),
                is_confirmed=_confirm(verdict, [None if free is None else free.models for free in shown]),
                recipe_confirmed=_confirm(recipe_verdict, [None if free is None else free.recipe for free in shown]),
                ring_only_accuracy=ring_only,
            )
        )
    return tuple(classes)


def _find_failing(gaps: FloatArray, labels: IntArray, groups: IntArray | None) -> IntArray:
    """Return the classes that fail for these models."""
    verdicts = [judge_both(gap)[0] for gap in bound_classes(gaps, labels, groups)]
    return np.unique(labels)[[verdict is AuditVerdict.FAIL for verdict in verdicts]]


def _bound_object_free(measured: RingMeasurement) -> dict[int, TwoIntervals]:
    """Return the gaps of classes with enough images without object in the ring, each at 95 %."""
    cells = class_cells(measured.free_gaps, measured.free_labels, measured.free_groups)
    bounded = compute_family(cells, scale=Scale.DIFFERENCE, confidence=1 - ALPHA)
    return dict(zip(np.unique(measured.free_labels).tolist(), bounded, strict=True))


def _confirm(verdict: AuditVerdict | None, free_gaps: Sequence[Interval | None]) -> bool | None:
    """Return whether a failure also shows without object in the ring: all gaps above 0 and larger than the tolerance."""
    if verdict is not AuditVerdict.FAIL:
        return None
    return all(gap is not None and gap.low > 0 and gap.estimate > GAP_TOLERANCE for gap in free_gaps)


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
