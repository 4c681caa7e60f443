"""The dimensional audit: shape, dtype, range and layout of every stage, duplicates, leaks and class balance."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.images import ImageSet
from trainables.splits import SPLITS, Splits

LAYOUTS: Mapping[str, int] = {"N": 1, "NK": 2, "NHWC": 4, "NCHW": 4}
MAX_BLANK_FRACTION = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStage:
    """One stage of the data's way to the model.

    Attributes:
        name: what it is.
        shape, dtype: as found.
        minimum, maximum: as found; NaN if there is no finite value.
        layout: expected order of the axes: "N", "NK", "NHWC" or "NCHW".
        problem: what is wrong, or None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    minimum: float
    maximum: float
    layout: str
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What the audit of an image set found.

    Attributes:
        stages: images, labels and the four splits.
        num_duplicates: images whose pixels stand earlier in the set, bit for bit.
        num_leaks: images of search, confirm or test whose pixels stand in the training split too.
        num_blank: images of one single colour.
        class_counts: split -> images per class, (K,).
    """

    stages: tuple[AuditStage, ...]
    num_duplicates: int
    num_leaks: int
    num_blank: int
    class_counts: Mapping[str, tuple[int, ...]]

    @property
    def problems(self) -> tuple[str, ...]:
        """Every stage's problem, with the stage's name."""
        return tuple(f"{stage.name}: {stage.problem}" for stage in self.stages if stage.problem)


def audit_image_set(image_set: ImageSet, splits: Splits) -> AuditReport:
    """Return the audit of the images as they were loaded and split."""
    hashes = np.array([hashlib.sha256(image.tobytes()).digest() for image in image_set.images])
    training = set(hashes[splits.train].tolist())
    held_out = np.concatenate([splits.search, splits.confirm, splits.test])
    flat = image_set.images.reshape(len(image_set), -1, 3)
    blank = int(np.count_nonzero((flat == flat[:, :1]).all(axis=(1, 2))))
    counts = {
        name: np.bincount(image_set.labels[splits.indices(name)], minlength=image_set.num_classes) for name in SPLITS
    }
    stages = [
        audit_batch("images", image_set.images, "NHWC", 0, 255, problem=_blank_problem(blank, len(image_set))),
        audit_batch("labels", image_set.labels, "N", 0, image_set.num_classes - 1),
    ]
    stages += [audit_batch(f"{n} split", splits.indices(n), "N", 0, len(image_set) - 1) for n in SPLITS]
    return AuditReport(
        stages=tuple(stages),
        num_duplicates=len(hashes) - len(np.unique(hashes)),
        num_leaks=sum(h in training for h in hashes[held_out].tolist()),
        num_blank=blank,
        class_counts={name: tuple(int(c) for c in found) for name, found in counts.items()},
    )


def audit_batch(
    name: str,
    values: torch.Tensor | NDArray[np.generic],
    layout: str,
    low: float,
    high: float,
    *,
    problem: str | None = None,
) -> AuditStage:
    """Return the audit of one array or tensor.

    Args:
        name: the stage's name.
        values: what to look at.
        layout: "N", "NK", "NHWC" or "NCHW"; images must have 3 channels.
        low, high: the values must lie in [low, high] and be finite.
        problem: one that is known already and stands if nothing worse is found.
    """
    array = values.detach().cpu().float().numpy() if isinstance(values, torch.Tensor) else values
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    minimum = float(finite.min()) if finite.size else float("nan")
    maximum = float(finite.max()) if finite.size else float("nan")
    found = _find_problem(array, finite.size, minimum, maximum, layout, low, high)
    return AuditStage(
        name=name,
        shape=tuple(values.shape),
        dtype=str(values.dtype).removeprefix("torch."),
        minimum=minimum,
        maximum=maximum,
        layout=layout,
        problem=found or problem,
    )


def _find_problem(
    array: NDArray[np.generic], num_finite: int, minimum: float, maximum: float, layout: str, low: float, high: float
) -> str | None:
    if array.ndim != LAYOUTS[layout]:
        return f"needs the axes {layout}, but has {array.ndim}"
    if layout in {"NHWC", "NCHW"} and array.shape[layout.index("C")] != 3:
        return f"needs 3 channels in {layout}, but has {array.shape[layout.index('C')]}"
    if num_finite < array.size:
        return f"{array.size - num_finite} values are NaN or inf"
    if not array.size:
        return "is empty"
    if minimum < low or maximum > high:
        return f"must lie in [{low:g}, {high:g}]"
    return None


def _blank_problem(num_blank: int, num_images: int) -> str | None:
    if num_blank > MAX_BLANK_FRACTION * num_images:
        return f"{num_blank} images are one single colour"
    return None
