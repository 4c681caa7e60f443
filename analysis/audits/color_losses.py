"""Accuracy that each class loses when its images are made gray."""

import numpy as np

from analysis.audits.ring_swaps import LUMA
from analysis.audits.swap_effects import AuditImages, Classify, SwapEffects, bound_classes
from analysis.findings.shortcut_findings import ColorLoss


def measure_color_losses(classify: Classify, audit_images: AuditImages) -> SwapEffects:
    """Return what gray images cost an arm's S models: 1 where one is correct only with color, -1 where only without.

    Args:
        classify: the arm's S models.
        audit_images: images that no model was trained on.
    """
    images, labels = audit_images.images, audit_images.labels
    gray = np.repeat((images.astype(np.float32) @ LUMA).round().astype(np.uint8)[..., None], 3, axis=3)
    correct, correct_gray = (np.asarray(classify(shown) == labels, dtype=np.float64) for shown in (images, gray))
    return audit_images.effects(correct - correct_gray)


def bound_color_losses(losses: SwapEffects) -> tuple[ColorLoss, ...]:
    """Return the loss of each present class, with intervals that are simultaneous over the classes.

    Raises:
        UserInputError: for a class with one image.
    """
    return tuple(ColorLoss(class_name=name, loss=loss) for name, loss in bound_classes(losses).items())
