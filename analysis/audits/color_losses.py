"""Accuracy that each class loses when its images are made gray."""

from dataclasses import dataclass, replace

import numpy as np

from analysis.audits.cues import LUMA
from analysis.audits.swap_effects import AuditImages, Classify, bound_classes
from analysis.findings.shortcut_findings import ColorLoss
from analysis.statistics.metrics import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorMeasurement:
    """What gray images cost S models.

    Attributes:
        class_names: K names.
        labels: (N,) classes.
        losses: (S, N) 1 where a model is correct only with color, -1 where only without.
        groups: (N,) number of each image's group; None where images are independent.
    """

    class_names: tuple[str, ...]
    labels: IntArray
    losses: FloatArray
    groups: IntArray | None = None

    def take_first(self) -> "ColorMeasurement":
        """Return what they cost the first model."""
        return replace(self, losses=self.losses[:1])


def measure_color_losses(classify: Classify, audit_images: AuditImages) -> ColorMeasurement:
    """Return what gray images cost an arm's S models; `audit_images` are images that no model was trained on."""
    images, labels = audit_images.images, audit_images.labels
    gray = np.repeat((images.astype(np.float32) @ LUMA).round().astype(np.uint8)[..., None], 3, axis=3)
    correct, correct_gray = (np.asarray(classify(shown) == labels, dtype=np.float64) for shown in (images, gray))
    return ColorMeasurement(
        class_names=audit_images.class_names, labels=labels, losses=correct - correct_gray, groups=audit_images.groups
    )


def bound_color_losses(measured: ColorMeasurement) -> tuple[ColorLoss, ...]:
    """Return the loss of each present class, with intervals that are simultaneous over the classes.

    Raises:
        UserInputError: for a class with one image.
    """
    bounded = bound_classes(measured.losses, measured.labels, measured.groups)
    names = [measured.class_names[label] for label in np.unique(measured.labels)]
    return tuple(ColorLoss(class_name=name, loss=loss) for name, loss in zip(names, bounded, strict=True))
