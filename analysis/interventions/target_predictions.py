"""Predicted changes of targets, measured on the images that choose: the target without the cue that the models rely on.

One half of the test images chooses the targets and the predictions of interventions, and the other half judges them.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.causes.confused_images import split_seeds
from analysis.causes.cues import CUES, CueRemoval, prepare_removal, remove_cues
from analysis.interventions.intervention import ChoosingModels
from analysis.interventions.values import Target, TargetKind
from analysis.shortcuts.frequency_audit import measure_color_losses
from analysis.shortcuts.ring_audit import measure_narrowest_gaps
from analysis.shortcuts.swaps import (
    AuditImages,
    Classify,
    Images,
    SwapEffects,
    bound_mean,
    make_classifier,
    thin_in_proportion,
)
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import FloatArray, IntArray
from trainables.seeds import numpy_generator

# Images of each class on which the removal of cues is measured.
MAX_IMAGES_PER_CLASS = 200
# A half with fewer images of the target's classes cannot judge; all images do then, and the target counts as seen.
MIN_TARGET_IMAGES = 100


def find_choosing(sample_ids: IntArray, groups: IntArray | None, seed: int) -> NDArray[np.bool_]:
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


def measure_loss(kind: TargetKind, classify: Classify, audit_images: AuditImages, *, seed: int) -> SwapEffects:
    """Return what a swap or a removal costs: 1 where a model is correct only without it, -1 where only with it.

    Args:
        kind: "ring gap" or "color loss".
        classify: S models.
        audit_images: N images, which are also the donors.
        seed: of the donors; equal for models that are compared.

    Raises:
        UserInputError: for a class with one image, and for images too small for a ring.
    """
    if kind is TargetKind.COLOR_LOSS:
        return measure_color_losses(classify, audit_images)
    assert kind is TargetKind.RING_GAP
    return measure_narrowest_gaps(classify, audit_images, seed=seed)


def predict_without_reliance(target: Target, models: ChoosingModels) -> Interval:
    """Return the change of a gap or a loss if it vanished: minus what it is now, with its interval at 95 %."""
    audit_images = models.audit_images
    losses = measure_loss(target.kind, make_classifier(models.compute_logits), audit_images, seed=models.seed)
    own = losses.of_classes(np.array([audit_images.class_names.index(name) for name in target.classes]))
    return _bound_change(replace(own, values=-own.values))


def predict_without_cue(target: Target, cue: str | None, models: ChoosingModels) -> tuple[Interval, str]:
    """Return the change of the rate of the target's cells when a cue is removed, and the name of the cue.

    Args:
        target: cells of the confusion matrix.
        cue: one of `CUES`; None for the cue whose removal lowers the rate most. The first third of the models chooses it then,
            and the others measure.
        models: of the control.

    Raises:
        UserInputError: for images too small to remove cues from, and for a class with one image.
    """
    own, removal, images = _prepare(target, models)
    labels = own.labels
    cells = [(own.class_names.index(true), own.class_names.index(called)) for true, called in target.cells]
    classify = make_classifier(models.compute_logits)

    def mark(shown: Images) -> FloatArray:
        return mark_cells(labels, classify(shown), cells)

    before = mark(remove_cues(images, frozenset(), removal))
    if cue is not None:
        change = mark(remove_cues(images, frozenset([cue]), removal)) - before
        return _bound_change(own.effects(change)), cue
    choosing, measuring = split_seeds(len(before))
    changes = {name: mark(remove_cues(images, frozenset([name]), removal)) - before for name in CUES}
    chosen = min(CUES, key=lambda name: float(changes[name][choosing].mean()))
    return _bound_change(own.effects(changes[chosen][measuring])), chosen


def _bound_change(changes: SwapEffects) -> Interval:
    """Return the mean of the changes at 95 %: for new seeds and images, for one model for new images."""
    found = bound_mean(changes)
    return found.recipe or found.models


def _prepare(target: Target, models: ChoosingModels) -> tuple[AuditImages, CueRemoval, Images]:
    """Return images of the target's classes, and the removal of cues from them, with donors of third classes."""
    audit_images = models.audit_images
    index: Callable[[str], int] = audit_images.class_names.index
    classes = np.array([index(name) for name in target.classes])
    # The measured effect is a mean over all images of these classes too.
    own = audit_images.take(thin_in_proportion(audit_images.labels, classes, MAX_IMAGES_PER_CLASS * len(classes)))
    generator = numpy_generator(models.seed, "intervention", "cues")
    involved = sorted({index(name) for cell in target.cells for name in cell})
    third = np.flatnonzero(~np.isin(audit_images.labels, involved))
    # With two classes there is no third one; rings then come from all images.
    donors = generator.choice(third if len(third) else len(audit_images.labels), size=len(own.labels))
    removal = prepare_removal(own.images, audit_images.images[donors], generator)
    # Removed in full: equal doses make cues comparable, but a fraction of the removal predicts a fraction of the effect.
    return own, replace(removal, doses=dict.fromkeys(CUES, 1.0)), own.images
