"""The Clever Hans audit: does an arm rely on the object or on the background? It swaps the outer ring between images.

The background gap of a class is its accuracy with rings of the same class minus that with rings of another class; both kinds of
images have the same seam. A ring contains pixels of the object too, so the gap is an upper bound on the effect of the
background. A failure is confirmed if it also shows on images whose ring contains no object: according to their masks or,
without masks, on those with the fewest edges in the ring. Few edges do not prove that no object reaches a wide ring, so without
masks a failure at a wider ring must also show on such images of the narrowest ring.

A pull of two classes is how much more often images of one are predicted as the other when their ring comes from the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from analysis.shortcuts import swaps
from analysis.shortcuts.ring_regions import RegionGaps, measure_regions, name_region
from analysis.shortcuts.values import GAP_TOLERANCE, NUM_DONORS, AuditVerdict, ClassAudit, PairPull, RingAudit
from analysis.statistics.families import Scale, compute_family
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import BoolArray, IntArray
from trainables.data.augmentation.mixing import RING_FRACTIONS, make_ring
from trainables.data.padding import lay_mask
from trainables.seeds import numpy_generator

# A failure is not confirmed by fewer images of a class without object in the ring.
MIN_OBJECT_FREE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RingMeasurement(swaps.Measurements):
    """What S models predict for N images with swapped rings of one width.

    Attributes:
        ring_pixels: width of the ring.
        gaps: as in `measure_gaps`.
        free_gaps: of the images whose ring contains no object, of classes with enough of them, with donors among them.
        free_by: how they were identified.
        ring_only: 1 where a model is correct from the ring alone, with the center filled, else 0.
        regions: gaps by region of the ring; None where no class fails.
        narrowest: measurement of the narrowest ring, which must confirm a failure too; None for that ring, and with masks.
    """

    ring_pixels: int
    gaps: swaps.SwapEffects
    free_gaps: swaps.SwapEffects
    free_by: str
    ring_only: swaps.SwapEffects
    regions: RegionGaps | None
    narrowest: "RingMeasurement | None" = None


def measure_rings(
    classify: swaps.Classify, audit_images: swaps.AuditImages, *, seed: int = 0
) -> tuple[RingMeasurement, ...]:
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


def _measure_ring(
    classify: swaps.Classify, audit_images: swaps.AuditImages, fraction: float, seed: int
) -> RingMeasurement:
    images = audit_images.images
    ring = make_ring(images.shape[1], images.shape[2], fraction)
    gaps = _measure_ring_gaps(classify, audit_images, ring, seed, "all")
    free, free_by = _find_object_free(audit_images, ring)
    free_gaps = gaps.take(free)
    if len(free):
        # The last argument seeds the donors, so it does not change.
        free_gaps = _measure_ring_gaps(classify, audit_images.take(free), ring, seed, "quiet")
    color = images.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    is_correct = audit_images.classify(classify, swaps.fill_center(images, ring, color)) == audit_images.labels
    failing = (_find_failing(gaps), _find_failing(gaps.take_first()))
    return RingMeasurement(
        ring_pixels=int(ring[:, ring.shape[1] // 2].sum()) // 2,
        gaps=gaps,
        free_gaps=free_gaps,
        free_by=free_by,
        ring_only=audit_images.effects(np.asarray(is_correct, dtype=np.float64)),
        regions=measure_regions(classify, audit_images, ring, failing, seed=seed) if any(map(len, failing)) else None,
    )


def measure_narrowest_gaps(
    classify: swaps.Classify, audit_images: swaps.AuditImages, *, seed: int = 0, num_donors: int = NUM_DONORS
) -> swaps.SwapEffects:
    """Return the gaps of the narrowest ring alone, as `measure_rings` does; the arguments are those of `measure_gaps`."""
    images = audit_images.images
    ring = make_ring(images.shape[1], images.shape[2], RING_FRACTIONS[0])
    return _measure_ring_gaps(classify, audit_images, ring, seed, "all", num_donors)


def judge_ring(measured: RingMeasurement) -> RingAudit:
    """Return the audit of one ring width: intervals and verdicts, for these models and for the recipe.

    Args:
        measured: of S models; with one there are no intervals for the recipe.

    Raises:
        UserInputError: for a class with one image.
    """
    classes, failing = _judge_classes(measured), _find_failing(measured.gaps)
    labels = measured.gaps.labels
    return RingAudit(
        ring_pixels=measured.ring_pixels,
        gap=swaps.bound_mean(measured.gaps),
        ring_only_accuracy=swaps.bound_mean(measured.ring_only, scale=Scale.PROPORTION),
        chance=float(np.unique(labels, return_counts=True)[1].max() / len(labels)),
        classes=classes,
        verdict=swaps.judge_classes(c.verdict for c in classes),
        recipe_verdict=swaps.judge_classes(c.recipe_verdict for c in classes),
        object_free_by=measured.free_by,
        num_object_free=len(measured.free_gaps.labels),
        region=name_region(measured.regions, failing) if measured.regions is not None and len(failing) else "",
    )


def _judge_classes(measured: RingMeasurement) -> tuple[ClassAudit, ...]:
    confirming = [
        swaps.bound_classes(ring.free_gaps, is_simultaneous=False)
        for ring in (measured, measured.narrowest)
        if ring is not None
    ]
    shares = swaps.bound_classes(measured.ring_only, scale=Scale.PROPORTION, is_simultaneous=False)
    classes = []
    for name, gap in swaps.bound_classes(measured.gaps).items():
        verdict, recipe_verdict = swaps.judge_both(gap)
        shown = [found.get(name) for found in confirming]
        classes.append(
            ClassAudit(
                class_name=name,
                gap=gap,
                verdict=verdict,
                recipe_verdict=recipe_verdict,
                object_free_gap=shown[0],
                is_confirmed=_confirm(verdict, [None if free is None else free.models for free in shown]),
                recipe_confirmed=_confirm(recipe_verdict, [None if free is None else free.recipe for free in shown]),
                ring_only_accuracy=shares[name],
            )
        )
    return tuple(classes)


def _find_failing(gaps: swaps.SwapEffects) -> IntArray:
    """Return the classes that fail for these models."""
    verdicts = [swaps.judge_gap(gap.models) for gap in swaps.bound_classes(gaps).values()]
    return np.unique(gaps.labels)[[verdict is AuditVerdict.FAIL for verdict in verdicts]]


def _confirm(verdict: AuditVerdict | None, free_gaps: Sequence[Interval | None]) -> bool | None:
    """Return whether a failure also shows without object in the ring: all gaps above 0 and larger than the tolerance."""
    if verdict is not AuditVerdict.FAIL:
        return None
    return all(gap is not None and gap.low > 0 and gap.estimate > GAP_TOLERANCE for gap in free_gaps)


def _measure_ring_gaps(
    classify: swaps.Classify,
    audit_images: swaps.AuditImages,
    ring: BoolArray,
    seed: int,
    name: str,
    num_donors: int = NUM_DONORS,
) -> swaps.SwapEffects:
    generator = numpy_generator(seed, f"ring {int(ring.sum())} {name}")
    swap = partial(swaps.swap_ring, ring=ring)
    return swaps.measure_gaps(classify, audit_images, swap, generator, num_donors=num_donors)


def _find_object_free(audit_images: swaps.AuditImages, ring: BoolArray) -> tuple[IntArray, str]:
    """Return the images whose ring contains no object, of classes with enough of them, and how that is known."""
    if audit_images.masks is not None:
        free, reason = ~(audit_images.masks & lay_mask(ring, audit_images.images)).any(axis=(1, 2)), "masks"
    else:
        free, reason = swaps.find_few_edges(audit_images.images, audit_images.labels, ring), "fewest edges in the ring"
    counts = np.bincount(audit_images.labels[free], minlength=len(audit_images.class_names))
    kept = np.flatnonzero(free & (counts[audit_images.labels] >= MIN_OBJECT_FREE))
    return kept[audit_images.take(kept).find_partnered()], reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PullMeasurement(swaps.Measurements):
    """The pull of one class's rings on images of another.

    Attributes:
        true_class: name of the class of the images.
        ring_class: name of the class of the rings.
        pulls: with one donor 1 where a model predicts `ring_class` only with its ring, -1 where only with a ring of a third
            class; with several the mean.
    """

    true_class: str
    ring_class: str
    pulls: swaps.SwapEffects


def measure_pull(
    classify: swaps.Classify, audit_images: swaps.AuditImages, one: int, other: int, *, seed: int = 0
) -> PullMeasurement:
    """Return the pull P(other | ring of other) - P(other | ring of a third class) on images of `one`.

    Args:
        classify: the arm's S models; one is enough.
        audit_images: images that no model was trained on, of three classes at least, also in a fold.
        one: class of the images.
        other: class of the rings.
        seed: of the choice of donors.
    """
    images, labels, names = audit_images.images, audit_images.labels, audit_images.class_names
    ring = make_ring(images.shape[1], images.shape[2], RING_FRACTIONS[0])
    generator = numpy_generator(seed, f"pull {one} {other}")
    is_kind = (labels == one, labels == other, ~np.isin(labels, (one, other)))
    folds = np.zeros(len(labels), dtype=np.int64) if audit_images.folds is None else audit_images.folds
    targets, drawn = [], []
    for fold in np.unique(folds):
        some, *sources = (np.flatnonzero((folds == fold) & kind) for kind in is_kind)
        if all(map(len, sources)):
            targets.append(some)
            drawn.append([_draw_donors(source, len(some), generator) for source in sources for _ in range(NUM_DONORS)])
    own, donors = np.concatenate(targets), [np.concatenate(parts) for parts in zip(*drawn, strict=True)]

    def is_pulled(rows: IntArray) -> BoolArray:
        swapped = swaps.swap_ring(images[own], images[rows], ring)
        return np.asarray(audit_images.classify(classify, swapped, own) == other)

    pulls = audit_images.compare_donors(own, donors, is_pulled)
    return PullMeasurement(true_class=names[one], ring_class=names[other], pulls=pulls)


def bound_pulls(measured: Sequence[PullMeasurement]) -> tuple[PairPull, ...]:
    """Return the pulls of one arm as a family, each with its intervals at 95 %.

    Raises:
        UserInputError: for a class with one image.
    """
    cells = [pull.pulls.make_cell() for pull in measured]
    bounded = compute_family(cells, scale=Scale.DIFFERENCE, confidence=1 - swaps.ALPHA)
    return tuple(
        PairPull(true_class=pull.true_class, ring_class=pull.ring_class, pull=found)
        for pull, found in zip(measured, bounded, strict=True)
    )


def _draw_donors(donors: IntArray, number: int, generator: np.random.Generator) -> IntArray:
    """Return `number` donors in random order, all used equally often, give or take one."""
    rounds = -(-number // len(donors))
    return np.concatenate([generator.permutation(donors) for _ in range(rounds)])[:number]
