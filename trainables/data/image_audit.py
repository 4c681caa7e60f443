"""The dimensional audit: shape, dtype, range and layout of every stage; duplicates, leaks and class balance."""

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
    """What one stage of the data looks like.

    Attributes:
        name: of the stage ("images", "labels", a split's name, "evaluation input", ...).
        shape: of the array.
        dtype: name of its dtype, without the library's prefix.
        minimum: lowest value; NaN if there is none.
        maximum: highest value; NaN if there is none.
        layout: one letter per dimension: N images, C channels, H rows, W columns, K classes.
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
    """The audit of an image set and its splits.

    Attributes:
        stages: the whole set, then one stage per split.
        num_blank: images of one constant colour, of those in a split.
        num_duplicates: images of a split whose bytes equal those of an earlier one, in any split.
        num_leaks: images of the training split whose bytes also occur in another split.
        class_counts: images per class, in the order of the class names, by split.
        problems: everything that is wrong, in words; empty if nothing is.
    """

    stages: tuple[AuditStage, ...]
    num_blank: int
    num_duplicates: int
    num_leaks: int
    class_counts: Mapping[str, tuple[int, ...]]
    problems: tuple[str, ...]


def audit_image_set(image_set: ImageSet, splits: Splits) -> AuditReport:
    """Return the audit of `image_set` under `splits`; nothing is raised, see `check_image_set`."""
    flat = image_set.images.reshape(len(image_set), -1)
    lowest, highest = flat.min(axis=1), flat.max(axis=1)
    used = np.concatenate([getattr(splits, name) for name in SPLIT_NAMES])
    digests = _hash_images(image_set.images, used)
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
    """Return the audit; raise UserInputError with its first problem if it has one.

    Problems are: more than 1 % blank images, training images in another split that are more than 1 % of the images held
    out, a class with over 100 times the images of another, a range that cannot be that of 8-bit images.
    """
    report = audit_image_set(image_set, splits)
    if report.problems:
        raise UserInputError(report.problems[0])
    return report


def audit_batch(name: str, tensor: Tensor, layout: str, low: float, high: float) -> AuditStage:
    """Return the audit of a tensor that a model sees.

    Args:
        name: of the stage.
        tensor: any shape; float32 or bfloat16 is expected.
        layout: one letter per dimension; "C" must have 3 channels.
        low: lowest value allowed.
        high: highest value allowed.

    Returns:
        The stage; `problem` names a wrong number of dimensions or channels, a wrong dtype, NaN or inf, or a value out
        of [low, high].
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
        return "it is empty"
    if num_not_finite:
        return f"{num_not_finite} of {tensor.numel()} values are NaN or infinite"
    if minimum < low or maximum > high:
        return f"values must lie in [{low:g}, {high:g}], but reach from {minimum:g} to {maximum:g}"
    return None


def _hash_images(images: NDArray[np.uint8], used: NDArray[np.int64]) -> dict[int, bytes]:
    """Digest of each used image's bytes, by sample id."""
    return {
        int(i): hashlib.blake2b(np.ascontiguousarray(images[i]).data, digest_size=16).digest() for i in np.sort(used)
    }


def _find_leaks(digests: Mapping[int, bytes], splits: Splits) -> list[int]:
    """Sorted training ids whose bytes occur in another split."""
    held_out = {digests[int(i)] for name in SPLIT_NAMES if name != "train" for i in getattr(splits, name)}
    return [int(i) for i in splits.train if digests[int(i)] in held_out]


def _images_stage(
    name: str, shape: tuple[int, ...], lowest: NDArray[np.uint8], highest: NDArray[np.uint8], problem: str | None
) -> AuditStage:
    minimum = float(lowest.min()) if len(lowest) else float("nan")
    maximum = float(highest.max()) if len(highest) else float("nan")
    if maximum <= 1:
        problem = f"8-bit images are expected, but no value is above {maximum:g}; were floats in [0, 1] rounded?"
    return AuditStage(name, tuple(shape), "uint8", minimum, maximum, "NHWC", problem if shape[0] else "it is empty")


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
        f"at most {MAX_BLANK_FRACTION:.0%} of the images may be blank (one constant colour), but {len(blank)} of "
        f"{num_used} are (sample ids {_name_some(blank.tolist())}); remove them"
    )


def _describe_leaks(leaks: list[int], num_held_out: int) -> str | None:
    if len(leaks) <= MAX_LEAK_FRACTION * num_held_out:
        return None
    return (
        f"training images that stand in another split too may be at most {MAX_LEAK_FRACTION:.0%} of the {num_held_out} "
        f"images held out, but are {len(leaks)} (sample ids {_name_some(leaks)}); remove duplicates from the source"
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
