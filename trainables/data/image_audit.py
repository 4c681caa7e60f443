"""Audit of an image set: shape, dtype, range and layout of each stage; duplicates, leaks and class balance."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_spaces.errors import UserInputError
from trainables.data.images import ImageSet
from trainables.data.splits import SPLIT_NAMES, Splits

MAX_BLANK_FRACTION = 0.01
MAX_LEAK_FRACTION = 0.01
MAX_CLASS_RATIO = 100.0
NUM_NAMED = 5


@dataclass(frozen=True, slots=True)
class AuditStage:
    """One stage of the data.

    Attributes:
        name: Name of the stage ("images", "labels", a split's name, "evaluation input", ...).
        shape: Shape of the array.
        dtype: Name of its dtype, without the library's prefix.
        minimum: Lowest value; NaN if there is none.
        maximum: Highest value; NaN if there is none.
        layout: One letter per dimension: N images, C channels, H rows, W columns, K classes.
        problem: Description of a problem, or None.
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
    """The audit of an image set and its splits.

    Attributes:
        stages: The whole set, then one stage per split.
        num_blank: Images of the splits that have one constant color.
        num_duplicates: Images of the splits whose bytes equal those of another one, not counting the first of each kind.
        num_leaks: Images of the training split whose bytes also occur in another split.
        class_counts: Images per class, in the order of the class names, by split.
        problems: Descriptions of all problems.
    """

    stages: tuple[AuditStage, ...]
    num_blank: int
    num_duplicates: int
    num_leaks: int
    class_counts: Mapping[str, tuple[int, ...]]
    problems: tuple[str, ...]


def audit_image_set(image_set: ImageSet, splits: Splits) -> AuditReport:
    """Return the audit of `image_set` under `splits`; `check_image_set` raises for its problems."""
    flat = image_set.images.reshape(len(image_set), -1)
    lowest, highest = flat.min(axis=1), flat.max(axis=1)
    used = np.concatenate([getattr(splits, name) for name in SPLIT_NAMES])
    digests = hash_images(image_set.images, used)
    counts = {
        name: np.bincount(image_set.labels[getattr(splits, name)], minlength=image_set.num_classes)
        for name in SPLIT_NAMES
    }
    blank = np.sort(used[lowest[used] == highest[used]])
    leaks = _find_leaks(digests, splits)
    stages = [
        _images_stage("images", image_set.images.shape, lowest, highest, _describe_blank(blank, len(used))),
        _labels_stage(image_set),
        *_masks_stage(image_set),
    ]
    for name in SPLIT_NAMES:
        indices = getattr(splits, name)
        problem = _describe_leaks(leaks, len(used) - len(indices)) if name == "train" else None
        problem = problem or _describe_imbalance(counts[name], image_set.class_names)
        shape = (len(indices), *image_set.images.shape[1:])
        stages.append(_images_stage(name, shape, lowest[indices], highest[indices], problem))
    return AuditReport(
        stages=tuple(stages),
        num_blank=len(blank),
        num_duplicates=len(used) - len(set(digests.values())),
        num_leaks=len(leaks),
        class_counts={name: tuple(int(c) for c in per_class) for name, per_class in counts.items()},
        problems=tuple(f"{stage.name}: {stage.problem}" for stage in stages if stage.problem),
    )


def check_image_set(image_set: ImageSet, splits: Splits) -> AuditReport:
    """Return the audit of an image set without problems.

    Raises:
        UserInputError: With the first problem: more than 1 % blank images, training images in other splits amounting to more
            than 1 % of the held-out images, a class with over 100 times the images of another, or values that are not
            those of 8-bit images.
    """
    report = audit_image_set(image_set, splits)
    if report.problems:
        raise UserInputError(report.problems[0])
    return report


def audit_batch(name: str, tensor: Tensor, layout: str, low: float, high: float) -> AuditStage:
    """Return the audit of a model's input tensor.

    Args:
        name: Name of the stage.
        tensor: Any shape; float32 or bfloat16 is expected.
        layout: One letter per dimension; "C" must have 3 channels.
        low: Lowest allowed value.
        high: Highest allowed value.

    Returns:
        The stage; `problem` names a wrong number of dimensions or channels, a wrong dtype, NaN or inf, or a value
        outside [low, high].
    """
    values = tensor.detach().float()
    finite = values[torch.isfinite(values)]
    minimum, maximum = (float(finite.min()), float(finite.max())) if finite.numel() else (float("nan"), float("nan"))
    return AuditStage(
        name=name,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        minimum=minimum,
        maximum=maximum,
        layout=layout,
        problem=_describe_batch(tensor, layout, values.numel() - finite.numel(), minimum, maximum, low, high),
    )


def _describe_batch(
    tensor: Tensor, layout: str, num_not_finite: int, minimum: float, maximum: float, low: float, high: float
) -> str | None:
    if tensor.ndim != len(layout):
        return (
            f"the layout {layout} has {len(layout)} dimensions, but the shape {tuple(tensor.shape)} has {tensor.ndim}"
        )
    if "C" in layout and tensor.shape[layout.index("C")] != 3:
        return f"3 channels are expected at C of {layout}, but the shape is {tuple(tensor.shape)}"
    if tensor.dtype not in (torch.float32, torch.bfloat16):
        return f"float32 or bfloat16 is expected, but the dtype is {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.numel() == 0:
        return "there are no values"
    if num_not_finite:
        return f"{num_not_finite} of {tensor.numel()} values are NaN or infinite"
    if minimum < low or maximum > high:
        return f"values must be in [{low:g}, {high:g}], but range from {minimum:g} to {maximum:g}"
    return None


def hash_images(images: NDArray[np.uint8], used: NDArray[np.int64]) -> dict[int, bytes]:
    """Return the digest of each used image's bytes, by sample id.

    Args:
        images: (N, H, W, 3) uint8.
        used: (M,) int64, sample ids.

    Returns:
        Sample id -> 16 bytes of BLAKE2b.
    """
    return {
        int(i): hashlib.blake2b(np.ascontiguousarray(images[i]).data, digest_size=16).digest() for i in np.sort(used)
    }


def _find_leaks(digests: Mapping[int, bytes], splits: Splits) -> list[int]:
    """Return the sorted training ids whose images occur in another split."""
    held_out = {digests[int(i)] for name in SPLIT_NAMES if name != "train" for i in getattr(splits, name)}
    return [int(i) for i in splits.train if digests[int(i)] in held_out]


def _images_stage(
    name: str, shape: tuple[int, ...], lowest: NDArray[np.uint8], highest: NDArray[np.uint8], problem: str | None
) -> AuditStage:
    minimum = float(lowest.min()) if len(lowest) else float("nan")
    maximum = float(highest.max()) if len(highest) else float("nan")
    if maximum <= 1:
        problem = f"8-bit images are expected, but no value is above {maximum:g}; were floats in [0, 1] rounded?"
    return AuditStage(
        name, tuple(shape), "uint8", minimum, maximum, "NHWC", problem if shape[0] else "there are no images"
    )


def _labels_stage(image_set: ImageSet) -> AuditStage:
    labels = image_set.labels
    missing = np.flatnonzero(np.bincount(labels, minlength=image_set.num_classes) == 0)
    names = ", ".join(image_set.class_names[k] for k in missing[:NUM_NAMED])
    low, high = (float(labels.min()), float(labels.max())) if len(labels) else (float("nan"), float("nan"))
    problem = f"{len(missing)} classes have no image ({names}); drop them or add images" if len(missing) else None
    return AuditStage("labels", labels.shape, str(labels.dtype), low, high, "N", problem)


def _masks_stage(image_set: ImageSet) -> list[AuditStage]:
    masks = image_set.masks
    if masks is None:
        return []
    empty = int((~masks.reshape(len(masks), -1).any(axis=1)).sum())
    problem = f"{empty} masks mark no object" if empty else None
    if masks.shape != image_set.images.shape[:3]:
        problem = f"masks must have the images' shape {image_set.images.shape[:3]}, but have {masks.shape}"
    return [AuditStage("masks", masks.shape, str(masks.dtype), float(masks.min()), float(masks.max()), "NHW", problem)]


def _describe_blank(blank: NDArray[np.int64], num_used: int) -> str | None:
    if len(blank) <= MAX_BLANK_FRACTION * num_used:
        return None
    return (
        f"at most {MAX_BLANK_FRACTION:.0%} of the images may be blank (one constant color), but {len(blank)} of "
        f"{num_used} are (sample ids {_name_some(blank.tolist())}); remove them"
    )


def _describe_leaks(leaks: list[int], num_held_out: int) -> str | None:
    if len(leaks) <= MAX_LEAK_FRACTION * num_held_out:
        return None
    return (
        f"training images that also occur in another split may be at most {MAX_LEAK_FRACTION:.0%} of the {num_held_out} "
        f"held-out images, but there are {len(leaks)} (sample ids {_name_some(leaks)}); remove duplicates from the source"
    )


def _describe_imbalance(counts: NDArray[np.int64], class_names: tuple[str, ...]) -> str | None:
    rare, frequent = int(counts.argmin()), int(counts.argmax())
    if counts[frequent] <= MAX_CLASS_RATIO * counts[rare]:
        return None
    return (
        f"a class may have at most {MAX_CLASS_RATIO:g} times the images of another, but {class_names[frequent]!r} has "
        f"{counts[frequent]} and {class_names[rare]!r} {counts[rare]}; add images of the rare class or drop it"
    )


def _name_some(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:NUM_NAMED])) + (", ..." if len(ids) > NUM_NAMED else "")
