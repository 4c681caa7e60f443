"""Effects of swapping a part of the images within and across classes, which the ring and frequency audits share.

An audit first measures arrays, (S, N) over models and images, and then judges them. So the arrays of S models also hold the audit
of each model alone, without another forward pass.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.audits.ring_swaps import Images, draw_partners
from analysis.findings.interval import Interval, TwoIntervals
from analysis.findings.shortcut_findings import GAP_TOLERANCE, AuditVerdict
from analysis.statistics.families import Scale, class_cells, compute_family, compute_two_intervals, mean_cell
from analysis.statistics.metrics import FloatArray, IntArray

ALPHA = 0.05
# Return the (S, n) classes that the arm's S models predict for (n, H, W, 3) images.
Classify = Callable[[Images], IntArray]
# Return (n, H, W, 3) images in which a part comes from the donors, also (n, H, W, 3).
Swap = Callable[[Images, Images], Images]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditImages:
    """The images of an audit.

    Attributes:
        images: (N, H, W, 3) uint8.
        labels: (N,) int64 in [0, K).
        class_names: K names.
        masks: (N, H, W) bool, True on the object; None where the masks are not known.
        groups: (N,) number of each image's group, where images were sampled in groups.
    """

    images: Images
    labels: IntArray
    class_names: tuple[str, ...]
    masks: NDArray[np.bool_] | None = None
    groups: IntArray | None = None

    def effects(self, values: FloatArray) -> "SwapEffects":
        """Return (S, N) values of these images as effects."""
        return SwapEffects(values=values, labels=self.labels, class_names=self.class_names, groups=self.groups)

    def take(self, indices: IntArray) -> "AuditImages":
        """Return the images with these indices."""
        return AuditImages(
            images=self.images[indices],
            labels=self.labels[indices],
            class_names=self.class_names,
            masks=None if self.masks is None else self.masks[indices],
            groups=take_groups(self.groups, indices),
        )

    def thin(self, number: int, classes: IntArray | None = None) -> IntArray:
        """Return the sorted indices of about `number` images: equally many of each class, at least two, the first ones.

        Args:
            number: of images.
            classes: that they belong to; all by default.
        """
        classes = np.unique(self.labels) if classes is None else classes
        each = max(2, number // len(classes))
        return np.sort(np.concatenate([np.flatnonzero(self.labels == c)[:each] for c in classes]))


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapEffects:
    """What a swap or a removal of a part of n images changes in what S models predict.

    Attributes:
        values: (S, n), such as 1 where a model is correct only before, and -1 where it is correct only after.
        labels: (n,) int64 in [0, K).
        class_names: K names.
        groups: (n,) number of each image's group; None where images are independent.
    """

    values: FloatArray
    labels: IntArray
    class_names: tuple[str, ...]
    groups: IntArray | None = None

    def take(self, chosen: IntArray | NDArray[np.bool_]) -> "SwapEffects":
        """Return the effects on some images."""
        groups = take_groups(self.groups, chosen)
        return replace(self, values=self.values[:, chosen], labels=self.labels[chosen], groups=groups)

    def of_classes(self, classes: IntArray) -> "SwapEffects":
        """Return the effects on images of some classes."""
        return self.take(np.isin(self.labels, classes))

    def take_first(self) -> "SwapEffects":
        """Return the effects on the first model."""
        return replace(self, values=self.values[:1])


def thin_in_proportion(labels: IntArray, classes: IntArray, number: int) -> IntArray:
    """Return the sorted indices of about `number` images of some classes, as many of each as its share of them, at least two.

    Args:
        labels: (N,) classes of the images.
        classes: that they belong to.
        number: of images; all if there are no more.
    """
    members = [np.flatnonzero(labels == c) for c in classes]
    share = min(1.0, number / max(sum(map(len, members)), 1))
    return np.sort(np.concatenate([own[: max(2, math.ceil(share * len(own)))] for own in members]))


def take_groups(groups: IntArray | None, indices: IntArray | NDArray[np.bool_]) -> IntArray | None:
    """Return the groups of some images; None where images are independent."""
    return None if groups is None else groups[indices]


def make_classifier(compute_logits: Callable[[Images], FloatArray]) -> Classify:
    """Return the function that maps images to the classes that the models predict, from that to their (S, n, K) logits."""

    def classify(images: Images) -> IntArray:
        return np.asarray(compute_logits(images).argmax(axis=2), dtype=np.int64)

    return classify


def measure_gaps(
    classify: Classify,
    audit_images: AuditImages,
    swap: Swap,
    generator: np.random.Generator,
    targets: IntArray | None = None,
) -> SwapEffects:
    """Return how swaps across classes change what is predicted correctly, against swaps within the class.

    Args:
        classify: the arm's S models.
        audit_images: N images, which are also the donors.
        swap: takes a part of each image from its donor.
        generator: of the donors.
        targets: (n,) indices of the images that are classified; all N by default.

    Returns:
        1 where a model is correct only after the swap within the class, -1 where only after the swap across classes.

    Raises:
        UserInputError: if a class has only one image, or there is only one class.
    """
    # One donor each: averaging over several would hide that donors are a sample too.
    targets = np.arange(len(audit_images.labels)) if targets is None else targets
    images, labels = audit_images.images, audit_images.labels
    correct = []
    for same_class in (True, False):
        donors = draw_partners(labels, generator, same_class=same_class)[targets]
        swapped = swap(images[targets], images[donors])
        correct.append(np.asarray(classify(swapped) == labels[targets], dtype=np.float64))
    return SwapEffects(
        values=correct[0] - correct[1],
        labels=labels[targets],
        class_names=audit_images.class_names,
        groups=take_groups(audit_images.groups, targets),
    )


def bound_classes(
    effects: SwapEffects, *, scale: Scale = Scale.DIFFERENCE, is_simultaneous: bool = True
) -> dict[str, TwoIntervals]:
    """Return the mean of each class by its name, with its intervals at 95 %.

    Args:
        effects: of S models; S = 1 gives no interval for the recipe.
        scale: range of the values.
        is_simultaneous: whether the intervals hold for all classes together.

    Returns:
        Those of the present classes, in the order of `class_names`.

    Raises:
        UserInputError: for a class with one image.
    """
    cells = class_cells(effects.values, effects.labels, effects.groups)
    confidence = 1 - ALPHA / (max(len(cells), 1) if is_simultaneous else 1)
    names = [effects.class_names[label] for label in np.unique(effects.labels)]
    return dict(zip(names, compute_family(cells, scale=scale, confidence=confidence), strict=True))


def bound_mean(effects: SwapEffects, *, scale: Scale = Scale.DIFFERENCE) -> TwoIntervals:
    """Return the mean over all images with its intervals at 95 %; the arguments are those of `bound_classes`."""
    cell = mean_cell(effects.values, effects.labels, effects.groups)
    return compute_two_intervals(cell, scale=scale, confidence=1 - ALPHA)


def judge_gap(gap: Interval) -> AuditVerdict:
    """Return FAIL where the whole interval lies above the tolerance, PASS where it lies below, else UNDECIDED."""
    if gap.low > GAP_TOLERANCE:
        return AuditVerdict.FAIL
    return AuditVerdict.PASS if gap.high < GAP_TOLERANCE else AuditVerdict.UNDECIDED


def judge_both(gap: TwoIntervals) -> tuple[AuditVerdict | None, AuditVerdict | None]:
    """Return the verdicts of `judge_gap` for these models and for the recipe; None where there is no interval."""
    models, recipe = (None if interval is None else judge_gap(interval) for interval in (gap.models, gap.recipe))
    return models, recipe


def judge_classes(verdicts: Iterable[AuditVerdict | None]) -> AuditVerdict | None:
    """Return FAIL if a class fails, PASS if every class passes, else UNDECIDED; None where the verdicts are."""
    found = set(verdicts)
    if None in found:
        return None
    if AuditVerdict.FAIL in found:
        return AuditVerdict.FAIL
    return AuditVerdict.PASS if found == {AuditVerdict.PASS} else AuditVerdict.UNDECIDED
