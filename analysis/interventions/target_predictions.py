"""Predicted changes of targets, measured on the images that choose: the target without the cue that the models rely on.

One half of the test images chooses the targets and the predictions of interventions, and the other half judges them.

The target is what is worst on the images that choose, and would be less so on others even if nothing were done. So the choice is
repeated on one part of these images and models and measured on another part, all parts in turn (cross-fitting, Chernozhukov et
al. 2018, Econom. J. 21:C1). Without a cue, images are also unlike those of the training, and any error becomes another one. So
the change of a cell is that beyond the change of other wrong cells, for images whose confidence in the wrong class is the same.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy import special

from analysis.causes.cues import CUES, prepare_removal, remove_cues
from analysis.interventions.intervention import ChoosingModels
from analysis.interventions.values import Target, TargetKind
from analysis.shortcuts import swaps
from analysis.shortcuts.frequency_audit import measure_color_losses
from analysis.shortcuts.ring_audit import measure_narrowest_gaps
from analysis.shortcuts.values import NUM_DONORS
from analysis.statistics.families import Cell, Scale, compute_two_intervals
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import BoolArray, FloatArray, IntArray
from search_spaces.errors import UserInputError, list_some
from trainables.seeds import numpy_generator

# Images of each class on which the removal of cues is measured.
MAX_IMAGES_PER_CLASS = 200
# A half with fewer images of the target's classes cannot judge; all images do then, and the target counts as seen.
MIN_TARGET_IMAGES = 100
CONFIDENCE = 0.95
# Bounds of the confidences in a wrong class between which images are alike, those that fall into its cell and the others.
CONFIDENCES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)
# Fewest references, each of a model and an image, that say what is to be expected.
MIN_REFERENCES = 20


def find_choosing(sample_ids: IntArray, groups: IntArray | None, seed: int) -> BoolArray:
    """Return (N,) True for the images that choose; the others judge.

    The half of an image depends on the seed and on its sample id alone, or on its group, so that images that belong together stay
    together.

    Args:
        sample_ids: (N,) of the test images.
        groups: (N,) number of the group of each image; None where images are independent.
        seed: of the study.
    """
    units = sample_ids if groups is None else groups
    found, inverse = np.unique(units, return_inverse=True)
    is_choosing = [hashlib.sha256(f"{seed}/half/{unit}".encode()).digest()[0] % 2 == 0 for unit in found.tolist()]
    return np.asarray(is_choosing, dtype=bool)[inverse]


def mark_cells(labels: IntArray, predicted: IntArray, cells: Sequence[tuple[int, int]]) -> FloatArray:
    """Return (S, N) 1 where an image falls into one of the cells (true, predicted), from labels (N,) and predicted (S, N)."""
    marks = np.zeros(predicted.shape)
    for true, called in cells:
        marks += (labels == true) & (predicted == called)
    return marks


def measure_loss(
    kind: TargetKind,
    classify: swaps.Classify,
    audit_images: swaps.AuditImages,
    *,
    seed: int,
    num_donors: int = NUM_DONORS,
) -> swaps.SwapEffects:
    """Return what a swap or a removal costs: 1 where a model is correct only without it, -1 where only with it.

    Args:
        kind: "ring gap" or "color loss".
        classify: S models.
        audit_images: N images, which are also the donors.
        seed: of the donors; equal for models that are compared.
        num_donors: of each image, where it swaps; the cost is the mean over them.

    Raises:
        UserInputError: for a class with one image, and for images too small for a ring.
    """
    if kind is TargetKind.COLOR_LOSS:
        return measure_color_losses(classify, audit_images)
    assert kind is TargetKind.RING_GAP
    return measure_narrowest_gaps(classify, audit_images, seed=seed, num_donors=num_donors)


Choice = TypeVar("Choice")
Cells = frozenset[tuple[int, int]]


def cross_fit(
    choose: Callable[[IntArray, IntArray], Choice],
    measure: Callable[[Choice, IntArray, IntArray], tuple[FloatArray, IntArray]],
    num_models: int,
    audit_images: swaps.AuditImages,
    generator: np.random.Generator,
) -> Interval:
    """Return a mean change of what is chosen on some models and images, measured on other models and other images, at 95 %.

    Images and models are each halved, and every combination is measured once. A single model is not halved.

    Args:
        choose: from indices of models and of images to what they choose.
        measure: from that and indices of models (s,) and images to (s, m) changes and the indices of the m images behind them.
        num_models: S.
        audit_images: N images.
        generator: of the halves of the images.

    Raises:
        UserInputError: where a half has no image of what the other one chose.
    """
    model_half, image_half = np.arange(num_models) % 2, _halve_images(audit_images, generator)
    values, influence = np.zeros(num_models), np.zeros((num_models, len(image_half)))
    for half in np.unique(model_half):
        models = np.flatnonzero(model_half == half)
        others = np.flatnonzero(model_half != half) if num_models > 1 else models
        for part in (0, 1):
            chosen = choose(others, np.flatnonzero(image_half != part))
            changes, images = measure(chosen, models, np.flatnonzero(image_half == part))
            if not len(images):
                halves = [set(audit_images.labels[image_half == half].tolist()) for half in (0, 1)]
                lonely = [f"{audit_images.class_names[c]!r}" for c in sorted(halves[0] ^ halves[1])]
                raise UserInputError(
                    f"no prediction can be cross-fitted: of the images that choose, those of class {list_some(lonely)} all lie "
                    "in one half; choose another --target, or give more test images"
                )
            means = changes.mean(axis=1)
            values[models] += means / 2
            influence[np.ix_(models, images)] = (changes - means[:, None]) / (2 * len(images))
    used = np.flatnonzero(influence.any(axis=0)) if influence.any() else np.arange(len(image_half))
    cell = Cell(
        values=values,
        influence=len(used) * influence[:, used],
        labels=audit_images.labels[used],
        num_observations=len(used),
        groups=swaps.take_groups(audit_images.groups, used),
    )
    found = compute_two_intervals(cell, scale=Scale.DIFFERENCE, confidence=CONFIDENCE)
    # For new seeds and images, for one model for new images.
    return found.recipe or found.models


def _halve_images(audit_images: swaps.AuditImages, generator: np.random.Generator) -> IntArray:
    """Return the half of each image, 0 or 1: half of each class, or of the groups of images."""
    labels, groups = audit_images.labels, audit_images.groups
    units = np.arange(len(labels)) if groups is None else groups
    _, first, unit = np.unique(units, return_index=True, return_inverse=True)
    halves = np.empty(len(first), dtype=np.int64)
    halves[np.lexsort((generator.random(len(first)), labels[first]))] = np.arange(len(first)) % 2
    return halves[unit]


def predict_without_reliance(target: Target, models: ChoosingModels) -> Interval:
    """Return the change of a gap or a loss if it vanished, of as many classes as the target has: those with the largest one.

    Raises:
        UserInputError: for a class with one image, and for images too small for a ring.
    """
    audit_images, number = models.audit_images, len(target.classes)
    classify, labels = swaps.make_classifier(models.compute_logits), audit_images.labels
    # With several donors, their draw would be a part of the error that is not among the images.
    losses = measure_loss(target.kind, classify, audit_images, seed=models.seed, num_donors=1).values

    def choose(some: IntArray, images: IntArray) -> IntArray:
        classes = np.unique(labels[images])
        means = [losses[np.ix_(some, images[labels[images] == c])].mean() for c in classes]
        return classes[np.argsort(means, kind="stable")[::-1][:number]]

    def measure(classes: IntArray, some: IntArray, images: IntArray) -> tuple[FloatArray, IntArray]:
        own = images[np.isin(labels[images], classes)]
        return -losses[np.ix_(some, own)], own

    generator = numpy_generator(models.seed, "intervention", "halves")
    return cross_fit(choose, measure, len(losses), audit_images, generator)


def predict_without_cue(
    target: Target, cue: str | None, models: ChoosingModels, *, is_named: bool = False
) -> tuple[Interval, str]:
    """Return the change of the rate of as many cells as the target has when a cue is removed, and the name of the cue.

    Args:
        target: cells of the confusion matrix.
        cue: one of `CUES`; None for the cue whose removal lowers the rate most where the cells are chosen.
        models: of the control.
        is_named: whether the user named the cells, so that none are chosen: those of the target are measured.

    Raises:
        UserInputError: for images too small to remove cues from, for two classes, and for a class with one image.
    """
    index: Callable[[str], int] = models.audit_images.class_names.index
    cells: Cells = frozenset((index(true), index(called)) for true, called in target.cells)
    found = _remove_cues(cells, CUES if cue is None else (cue,), models)
    return found.predict(cells, numpy_generator(models.seed, "intervention", "halves"), is_named=is_named)


def _remove_cues(cells: Cells, cues: Sequence[str], models: ChoosingModels) -> "RemovedCues":
    """Return what the models predict for images of all classes without each cue, with donors of third classes."""
    labels = models.audit_images.labels
    classes = np.unique(labels)
    if len(classes) < 3:
        raise UserInputError("two classes have no other wrong cells to compare with")
    own = models.audit_images.take(swaps.thin_in_proportion(labels, classes, MAX_IMAGES_PER_CLASS * len(classes)))
    generator = numpy_generator(models.seed, "intervention", "cues")
    involved = {label for cell in cells for label in cell}
    donors = np.zeros(len(own.labels), dtype=np.int64)
    for label in classes:
        here = np.flatnonzero(own.labels == label)
        third = np.flatnonzero(~np.isin(labels, [*involved, label]))
        # Where the target's cells involve all classes there is no third one; rings then come from the other classes.
        donors[here] = generator.choice(third if len(third) else np.flatnonzero(labels != label), size=len(here))
    removal = prepare_removal(own.images, models.audit_images.images[donors], generator)
    # Removed in full: equal doses make cues comparable, but a fraction of the removal predicts a fraction of the effect.
    removal = replace(removal, doses=dict.fromkeys(CUES, 1.0))
    classify = swaps.make_classifier(models.compute_logits)
    return RemovedCues(
        images=own,
        donors=labels[donors],
        probabilities=special.softmax(np.asarray(models.compute_logits(own.images), dtype=np.float64), axis=2),
        predicted={cue: classify(remove_cues(own.images, frozenset([cue]), removal)) for cue in cues},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedCues:
    """What S models predict for N images of K classes with every cue, and without one of some cues.

    Attributes:
        images: the N images.
        donors: (N,) classes of the images whose rings replace theirs where the context is removed.
        probabilities: (S, N, K) with every cue.
        predicted: (S, N) classes by the cue that is removed.
    """

    images: swaps.AuditImages
    donors: IntArray
    probabilities: FloatArray
    predicted: Mapping[str, IntArray]

    def predict(self, cells: Cells, generator: np.random.Generator, *, is_named: bool = False) -> tuple[Interval, str]:
        """Return the cross-fitted change of as many cells as `cells`, and the cue that most of the parts choose.

        Args:
            cells: of the target, (true, predicted).
            generator: of the halves of the images.
            is_named: whether these cells are measured, whatever the images show.
        """
        cues: Counter[str] = Counter()

        def choose(models: IntArray, images: IntArray) -> tuple[Cells, str]:
            strongest = cells if is_named else self.find_strongest(len(cells), models, images)
            means = {cue: float(self.measure(strongest, cue, models, images)[0].sum()) for cue in self.predicted}
            cue = min(means, key=lambda cue: means[cue])
            cues[cue] += 1
            return strongest, cue

        def measure(chosen: tuple[Cells, str], models: IntArray, images: IntArray) -> tuple[FloatArray, IntArray]:
            return self.measure(*chosen, models, images)

        found = cross_fit(choose, measure, len(self.probabilities), self.images, generator)
        return found, cues.most_common(1)[0][0]

    def find_strongest(self, number: int, models: IntArray, images: IntArray) -> Cells:
        """Return the wrong cells with the highest rates on some models (s,) and images (n,)."""
        num_classes, labels = self.probabilities.shape[2], self.images.labels[images]
        counts = np.zeros((num_classes, num_classes))
        called = self.probabilities[np.ix_(models, images)].argmax(axis=2)
        np.add.at(counts, (np.broadcast_to(labels, called.shape), called), 1)
        rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        np.fill_diagonal(rates, -1)
        strongest = np.argsort(-rates, axis=None, kind="stable")[:number]
        return frozenset(zip(*(places.tolist() for places in np.unravel_index(strongest, rates.shape)), strict=True))

    def measure(self, cells: Cells, cue: str, models: IntArray, images: IntArray) -> tuple[FloatArray, IntArray]:
        """Return the change of the marks of some cells beyond that of references, and the images of their true classes.

        The references of an image and the cell that it may fall into are images and wrong cells that are not among `cells`, with
        the same confidence in the wrong class (`CONFIDENCES`), in or outside of the cell alike: of the same true class where
        there are `MIN_REFERENCES`, else of all, else of the nearest confidences that have some. Without any, nothing is
        subtracted. The class of an image's donor is no reference: its ring was put there.

        Args:
            cells: (true, predicted).
            cue: that is removed.
            models: (s,) indices.
            images: (n,) indices.

        Returns:
            (s, m) changes of the m images in the true classes of the cells, and the indices of these images.
        """
        labels, before = self.images.labels[images], self.probabilities[np.ix_(models, images)]
        one_hot = np.eye(before.shape[2], dtype=bool)
        was = one_hot[before.argmax(axis=2)]
        change = one_hot[self.predicted[cue][np.ix_(models, images)]].astype(np.float64) - was
        strata = np.digitize(before, CONFIDENCES) + (len(CONFIDENCES) + 1) * was
        is_target = np.zeros(one_hot.shape, dtype=bool)
        is_target[tuple(np.array(sorted(cells)).T)] = True
        is_reference = np.logical_not(is_target | one_hot)[labels] & ~one_hot[self.donors[images]]
        of_all = _fill(_average_strata(strata, change, is_reference))
        excess = np.zeros(before.shape[:2])
        for label in np.flatnonzero(is_target.any(axis=1)):
            own, called = labels == label, np.flatnonzero(is_target[label])
            of_class = _average_strata(strata[:, own], change[:, own], is_reference[own])
            expected = np.where(np.isnan(of_class), of_all, of_class)
            place = np.ix_(np.arange(len(models)), np.flatnonzero(own), called)
            excess[:, own] = (change[place] - expected[strata[place]]).sum(axis=2)
        chosen = np.asarray(is_target.any(axis=1))[labels]
        return excess[:, chosen], images[chosen]


def _average_strata(strata: IntArray, change: FloatArray, is_reference: BoolArray) -> FloatArray:
    """Return the mean change of the references by stratum; NaN below `MIN_REFERENCES`.

    Args:
        strata: (S, n, K) numbers of the strata.
        change: (S, n, K).
        is_reference: (n, K).
    """
    number, size = strata[:, is_reference].ravel(), 2 * (len(CONFIDENCES) + 1)
    counts = np.bincount(number, minlength=size)
    sums = np.bincount(number, weights=change[:, is_reference].ravel(), minlength=size)
    return np.where(counts >= MIN_REFERENCES, sums / np.maximum(counts, 1), np.nan)


def _fill(averages: FloatArray) -> FloatArray:
    """Return the means with those of the nearest strata, in or outside of the cell alike, in the place of NaN; 0 without any."""
    filled = np.zeros_like(averages)
    places = np.arange(len(averages) // 2)
    for own, half in zip(np.split(averages, 2), np.split(filled, 2), strict=True):
        known = np.flatnonzero(~np.isnan(own))
        if len(known):
            half[:] = np.interp(places, known, own[known])
    return filled
