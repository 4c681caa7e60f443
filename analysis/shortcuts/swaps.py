"""Swaps of a part of the images within and across classes: their rings and donors, and the effects that audits bound.

An audit first measures arrays, (S, N) over models and images, and then judges them. So the arrays of S models also hold the
audit of each model alone, without another forward pass.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from analysis.shortcuts.values import GAP_TOLERANCE, NUM_DONORS, AuditVerdict
from analysis.statistics.families import Cell, Pairs, Scale, compute_family, compute_two_intervals, mean_cell
from analysis.statistics.interval import Interval, TwoIntervals
from analysis.statistics.metrics import BoolArray, FloatArray, IntArray
from search_spaces.errors import UserInputError, list_some
from trainables.data.padding import lay_mask, move_content

Images = NDArray[np.uint8]
FEW_EDGES_SHARE = 1 / 3
# ITU-R BT.601.
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def swap_ring(images: Images, donors: Images, ring: BoolArray) -> Images:
    """Return `images` with the ring of `donors`, both (n, H, W, 3).

    The ring lies in the content of padded images, and the content of the donor is stretched onto that of the image.
    """
    return np.where(lay_mask(ring, images)[..., None], move_content(donors, images), images)


def fill_center(images: Images, ring: BoolArray, color: NDArray[np.uint8]) -> Images:
    """Return (n, H, W, 3) images whose center, everything inside the ring, has one color (3,); padding stays as it is."""
    return np.where(lay_mask(~ring, images)[..., None], color, images)


def draw_donors(
    labels: IntArray, generator: np.random.Generator, number: int, *, same_class: bool, folds: IntArray | None = None
) -> IntArray:
    """Return random donors for each image, of its own class or of other classes.

    Every image is the donor of as many others, so that the donors add no variance by repetition. Only where one class has more
    than half of the images are images of the other classes used more often. Those of the own class differ as long as it has
    enough images, and are then taken again.

    Args:
        labels: (N,) classes.
        generator: of the choice.
        number: of donors for each image.
        same_class: whether donors come from the image's own class.
        folds: (N,) folds, of which each has donors of its own; None without folds.

    Returns:
        (number, N) indices of the donors.

    Raises:
        UserInputError: naming each class with a single image, or if there is only one class, of all or of a fold.
    """
    if folds is not None:
        donors = np.empty((number, len(labels)), dtype=np.int64)
        for fold in np.unique(folds):
            own = np.flatnonzero(folds == fold)
            donors[:, own] = own[draw_donors(labels[own], generator, number, same_class=same_class)]
        return donors
    classes, counts = np.unique(labels, return_counts=True)
    lonely = list_some(map(str, classes[counts < 2].tolist()))
    if lonely or len(classes) < 2:
        problem = f"class {lonely} has one" if len(classes) > 1 else "there is only one class"
        raise UserInputError(f"swaps need donors, two classes and two images of each, but {problem}")
    donors = np.empty((number, len(labels)), dtype=np.int64)
    if not same_class:
        for row in donors:
            row[:] = _match_other_classes(labels, generator, evenly=2 * counts.max() <= len(labels))
        return donors
    for label in classes:
        # Other positions of a random order: never the image itself.
        order = generator.permutation(np.flatnonzero(labels == label))
        shifts = np.resize(1 + generator.permutation(len(order) - 1), number)
        donors[:, order] = [np.roll(order, shift) for shift in shifts]
    return donors


def _match_other_classes(labels: IntArray, generator: np.random.Generator, *, evenly: bool) -> IntArray:
    """Return donors of other classes, each image once where `evenly`: a random permutation, fixed by random exchanges."""
    partners = generator.permutation(len(labels))
    while len(clashes := np.flatnonzero(labels[partners] == labels)):
        others = generator.integers(len(labels), size=len(clashes))
        if not evenly:
            partners[clashes] = others
            continue
        for one, other in zip(clashes.tolist(), others.tolist(), strict=True):
            partners[[one, other]] = partners[[other, one]]
    return partners


def find_few_edges(images: Images, labels: IntArray, ring: BoolArray) -> BoolArray:
    """Return the third of each class with the fewest edges in the ring.

    Edges are measured by the absolute differences between the gray values of neighboring pixels inside the ring, which lies in
    the content of padded images; their mean counts, since rings differ in size there.

    Args:
        images: (N, H, W, 3) uint8.
        labels: (N,) classes.
        ring: (H, W) bool, True in the ring.

    Returns:
        (N,) bool, True for these images.
    """
    gray = images.astype(np.float32).mean(axis=3)
    rings, total, counts = lay_mask(ring, images), np.zeros(len(images)), np.zeros(1)
    for axis, both in ((1, rings[:, 1:] & rings[:, :-1]), (2, rings[:, :, 1:] & rings[:, :, :-1])):
        total += (np.abs(np.diff(gray, axis=axis)) * both).sum(axis=(1, 2))
        counts = counts + both.sum(axis=(1, 2))
    total /= np.maximum(counts, 1)
    few_edges = np.zeros(len(images), dtype=bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        few_edges[own[np.argsort(total[own], kind="stable")[: max(2, round(FEW_EDGES_SHARE * len(own)))]]] = True
    return few_edges


ALPHA = 0.05
# Return the (S, n) classes that the arm's S models predict for (n, H, W, 3) images. With a second argument, (n,) folds, the model
# of each image's fold predicts it alone, and S is 1.
Classify = Callable[..., IntArray]
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
        folds: (N,) which of the arm's models has not seen each image; None where none of them has seen any.
    """

    images: Images
    labels: IntArray
    class_names: tuple[str, ...]
    masks: BoolArray | None = None
    groups: IntArray | None = None
    folds: IntArray | None = None

    @property
    def strata(self) -> IntArray:
        """(N,) numbers, equal for images of one class and fold."""
        return self.labels if self.folds is None else self.folds * len(self.class_names) + self.labels

    def classify(self, classify: Classify, changed: Images, rows: IntArray | slice = slice(None)) -> IntArray:
        """Return the (S, n) classes of changed images, each by models that have not seen it; `rows` says which they were."""
        return classify(changed) if self.folds is None else classify(changed, self.folds[rows])

    def divide(self, num_models: int) -> list[IntArray]:
        """Return the indices of the images that each model judges: all of them, or with folds those of its own."""
        every = np.arange(len(self.labels))
        return [every if self.folds is None else np.flatnonzero(self.folds == number) for number in range(num_models)]

    def find_partnered(self) -> IntArray:
        """Return the indices of the images for which there is a donor of their class and one of another class in their fold."""
        strata, inverse, counts = np.unique(self.strata, return_inverse=True, return_counts=True)
        has_twin, folds = counts >= 2, strata // len(self.class_names)
        return np.flatnonzero((has_twin & (np.bincount(folds, weights=has_twin)[folds] >= 2))[inverse])

    def effects(self, values: FloatArray) -> "SwapEffects":
        """Return (S, N) values of these images as effects."""
        return SwapEffects(values=values, labels=self.labels, class_names=self.class_names, groups=self.groups)

    def compare_donors(
        self, targets: IntArray, donors: Sequence[IntArray], is_hit: Callable[[IntArray], BoolArray]
    ) -> "SwapEffects":
        """Return the share of hits with the first half of the donors minus that with the second half, as effects.

        Args:
            targets: (n,) indices of the images.
            donors: 2 k times (n,) indices of their donors.
            is_hit: from (n,) donors to (S, n) hits.
        """
        number = len(donors) // 2
        hits = np.stack([is_hit(row) for row in donors], axis=2).astype(np.float64)
        values = hits * np.repeat([1.0, -1.0], number) / number
        by_donor = DonorEffects(
            values=values, images=targets, donors=np.stack(donors, axis=1), labels=self.labels, groups=self.groups
        )
        return SwapEffects(
            values=values.sum(axis=2),
            labels=self.labels[targets],
            class_names=self.class_names,
            groups=take_groups(self.groups, targets),
            by_donor=by_donor,
        )

    def take(self, indices: IntArray) -> "AuditImages":
        """Return the images with these indices."""
        names = ("images", "labels", "masks", "groups", "folds")
        taken: dict[str, Any] = {name: take_groups(getattr(self, name), indices) for name in names}
        return replace(self, **taken)

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
class DonorEffects:
    """What each of the m donors of n images adds to the effects; images and donors are a sample both.

    Attributes:
        values: (S, n, m), whose sums over the donors are the effects.
        images: (n,) indices of the images among the N of the audit.
        donors: (n, m) indices of their donors likewise.
        labels: (N,) classes.
        groups: (N,) number of each image's group; None where images are independent.
    """

    values: FloatArray
    images: IntArray
    donors: IntArray
    labels: IntArray
    groups: IntArray | None

    def take(self, chosen: IntArray | BoolArray) -> "DonorEffects":
        """Return those on some images."""
        images, donors = self.images[chosen], self.donors[chosen]
        return replace(self, values=self.values[:, chosen], images=images, donors=donors)

    def make_cell(self) -> Cell:
        """Return the mean effect, whose variance is that of both factors: an image counts by its effects and by its donations."""
        num_images, each = self.donors.shape
        pairs = np.stack([np.repeat(self.images, each), self.donors.ravel()])
        units, places = np.unique(pairs, return_inverse=True)
        influence = (self.values - self.values.mean(axis=1, keepdims=True)).reshape(len(self.values), -1)
        sums = np.stack([np.bincount(places.ravel(), np.tile(row, 2), len(units)) for row in influence])
        sampled = pairs if self.groups is None else self.groups[pairs]
        return Cell(
            values=self.values.sum(axis=2).mean(axis=1),
            influence=sums * len(units) / num_images,
            labels=self.labels[units],
            num_observations=num_images,
            groups=take_groups(self.groups, units),
            pairs=Pairs(
                influence=influence * each,
                ids=sampled.min(axis=0) * (sampled.max() + 1) + sampled.max(axis=0),
                each=each / 2,
                freedom=len(np.unique(sampled[0])) - 1,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapEffects:
    """What a swap or a removal of a part of n images changes in what S models predict.

    Attributes:
        values: (S, n), such as 1 where a model is correct only before, and -1 where it is correct only after.
        labels: (n,) int64 in [0, K).
        class_names: K names.
        groups: (n,) number of each image's group; None where images are independent.
        by_donor: what each donor adds; None where nothing comes from another image.
    """

    values: FloatArray
    labels: IntArray
    class_names: tuple[str, ...]
    groups: IntArray | None = None
    by_donor: DonorEffects | None = None

    def take(self, chosen: IntArray | BoolArray) -> "SwapEffects":
        """Return the effects on some images."""
        values, labels = self.values[:, chosen], self.labels[chosen]
        groups, by_donor = take_groups(self.groups, chosen), self.by_donor and self.by_donor.take(chosen)
        return replace(self, values=values, labels=labels, groups=groups, by_donor=by_donor)

    def of_classes(self, classes: IntArray) -> "SwapEffects":
        """Return the effects on images of some classes."""
        return self.take(np.isin(self.labels, classes))

    def take_first(self) -> "SwapEffects":
        """Return the effects on the first model."""
        return self.with_values(self.values[:1], None if self.by_donor is None else self.by_donor.values[:1])

    def minus(self, other: "SwapEffects") -> "SwapEffects":
        """Return the differences to other effects on the same images with the same donors."""
        own, others = self.by_donor, other.by_donor
        by_donor = None if own is None or others is None else own.values - others.values
        return self.with_values(self.values - other.values, by_donor)

    def with_values(self, values: FloatArray, by_donor: FloatArray | None) -> "SwapEffects":
        """Return other effects on these images, (S, n), with what each donor adds, (S, n, m)."""
        kept = None if self.by_donor is None or by_donor is None else replace(self.by_donor, values=by_donor)
        return replace(self, values=values, by_donor=kept)

    def make_cell(self) -> Cell:
        """Return the mean over the images. Those of a single image or group, which say nothing about others, need no donors."""
        units = np.arange(len(self.labels)) if self.groups is None else self.groups
        if self.by_donor is None or len(np.unique(units)) < 2:
            return mean_cell(self.values, self.labels, self.groups)
        return self.by_donor.make_cell()

    def make_class_cells(self) -> list[Cell]:
        """Return the mean of each present class, in increasing order."""
        return [self.take(self.labels == label).make_cell() for label in np.unique(self.labels)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """The base of what S models predict: fields of effects, of other measurements, and of tuples and mappings of them."""

    def take_first(self) -> Self:
        """Return what the first model predicts."""
        return replace(self, **{field.name: _take_first(getattr(self, field.name)) for field in fields(self)})


def _take_first(found: Any) -> Any:
    if isinstance(found, SwapEffects | Measurements):
        return found.take_first()
    if isinstance(found, Mapping):
        return {name: _take_first(one) for name, one in found.items()}
    return tuple(map(_take_first, found)) if isinstance(found, tuple) else found


def average_effects(found: Sequence[SwapEffects]) -> SwapEffects:
    """Return the mean of effects on the same images with the same donors, of the same number of models."""
    by_donor = [one.by_donor.values for one in found if one.by_donor is not None]
    mean = np.mean([one.values for one in found], axis=0)
    return found[0].with_values(mean, np.mean(by_donor, axis=0) if by_donor else None)


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


def take_groups(groups: IntArray | None, indices: IntArray | BoolArray) -> IntArray | None:
    """Return the groups of some images; None where images are independent."""
    return None if groups is None else groups[indices]


def make_classifier(compute_logits: Callable[..., FloatArray]) -> Classify:
    """Return the function that maps images to the classes that the models predict, from that to their (S, n, K) logits."""

    def classify(images: Images, *folds: IntArray) -> IntArray:
        return np.asarray(compute_logits(images, *folds).argmax(axis=2), dtype=np.int64)

    return classify


def measure_gaps(
    classify: Classify,
    audit_images: AuditImages,
    swap: Swap,
    generator: np.random.Generator,
    targets: IntArray | None = None,
    num_donors: int = NUM_DONORS,
) -> SwapEffects:
    """Return how swaps across classes change what is predicted correctly, against swaps within the class.

    Args:
        classify: the arm's S models.
        audit_images: N images, which are also the donors.
        swap: takes a part of each image from its donor.
        generator: of the donors.
        targets: (n,) indices of the images that are classified; all N by default.
        num_donors: of each image, of its class and as many of others.

    Returns:
        With one donor 1 where a model is correct only after the swap within the class, -1 where only after the swap across
        classes; with several the mean.

    Raises:
        UserInputError: if a class has only one image, or there is only one class.
    """
    targets = np.arange(len(audit_images.labels)) if targets is None else targets
    images, labels = audit_images.images, audit_images.labels
    within, across = (
        draw_donors(labels, generator, num_donors, same_class=same_class, folds=audit_images.folds)[:, targets]
        for same_class in (True, False)
    )

    def is_correct(row: IntArray) -> BoolArray:
        swapped = swap(images[targets], images[row])
        return np.asarray(audit_images.classify(classify, swapped, targets) == labels[targets])

    return audit_images.compare_donors(targets, [*within, *across], is_correct)


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
    cells = effects.make_class_cells()
    confidence = 1 - ALPHA / (max(len(cells), 1) if is_simultaneous else 1)
    names = [effects.class_names[label] for label in np.unique(effects.labels)]
    return dict(zip(names, compute_family(cells, scale=scale, confidence=confidence), strict=True))


def bound_mean(effects: SwapEffects, *, scale: Scale = Scale.DIFFERENCE) -> TwoIntervals:
    """Return the mean over all images with its intervals at 95 %; the arguments are those of `bound_classes`."""
    return compute_two_intervals(effects.make_cell(), scale=scale, confidence=1 - ALPHA)


def judge_gap(gap: Interval) -> AuditVerdict:
    """Return FAIL where the whole interval lies above the tolerance, PASS where it lies below, else UNDECIDED."""
    if gap.low > GAP_TOLERANCE:
        return AuditVerdict.FAIL
    return AuditVerdict.PASS if gap.high < GAP_TOLERANCE else AuditVerdict.UNDECIDED


def judge_both(gap: TwoIntervals) -> tuple[AuditVerdict, AuditVerdict | None]:
    """Return the verdicts of `judge_gap` for these models and for the recipe; None where it has no interval."""
    return judge_gap(gap.models), None if gap.recipe is None else judge_gap(gap.recipe)


@overload
def judge_classes(verdicts: Iterable[AuditVerdict]) -> AuditVerdict: ...


@overload
def judge_classes(verdicts: Iterable[AuditVerdict | None]) -> AuditVerdict | None: ...


def judge_classes(verdicts: Iterable[AuditVerdict | None]) -> AuditVerdict | None:
    """Return FAIL if a class fails, PASS if every class passes, else UNDECIDED; None where the verdicts are."""
    found = set(verdicts)
    if None in found:
        return None
    if AuditVerdict.FAIL in found:
        return AuditVerdict.FAIL
    return AuditVerdict.PASS if found == {AuditVerdict.PASS} else AuditVerdict.UNDECIDED
