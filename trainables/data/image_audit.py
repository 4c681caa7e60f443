"""Audit of an image set: shape, dtype, range and layout of each stage; duplicates, leaks and class balance."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.image_array import ImageArray, cut_content, read_images
from trainables.data.images import ImageSet, SkippedFile
from trainables.data.pixel_files import measure_facts
from trainables.data.problems import Problem, make_error
from trainables.data.splits import SPLIT_NAMES, Splits

MAX_BLANK_FRACTION = 0.01
MAX_LEAK_FRACTION = 0.01
MAX_CONFLICT_FRACTION = 0.01
# Gray levels by which the channels of a gray image may differ, as after compression, and the share of the images that are gray
# where a set is called gray.
GRAY_TOLERANCE, MIN_GRAY_SHARE = 2, 0.99


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


# A stage, and what is wrong with it.
Audited = tuple[AuditStage, list[Problem]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """The audit of an image set and its splits.

    Attributes:
        stages: The whole set, then one stage per split.
        num_duplicates: Images of the splits whose bytes equal those of another one, not counting the first of each kind.
        num_leaks: Images of the training split whose bytes also occur in another split.
        duplicates: Sorted sample ids of each set of equal images, those with two labels or in two splits included.
        conflicts: Those of `duplicates` that have more than one label.
        class_counts: Images per class, in the order of the class names, by split.
        found_problems: All problems, with the names of the images that have them.
    """

    stages: tuple[AuditStage, ...]
    num_duplicates: int
    num_leaks: int
    duplicates: tuple[tuple[int, ...], ...]
    conflicts: tuple[tuple[int, ...], ...]
    class_counts: Mapping[str, tuple[int, ...]]
    found_problems: tuple[Problem, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence per problem."""
        return tuple(map(str, self.found_problems))


def audit_image_set(image_set: ImageSet, splits: Splits) -> AuditReport:
    """Return the audit of `image_set` under `splits`; `check_image_set` raises for its problems.

    Args:
        image_set: all images.
        splits: their splits.
    """
    facts = measure_facts(image_set.images)
    used = np.concatenate([getattr(splits, name) for name in SPLIT_NAMES])
    labels, num_classes = image_set.labels, image_set.num_classes
    counts = {name: np.bincount(labels[getattr(splits, name)], minlength=num_classes) for name in SPLIT_NAMES}
    blank = np.sort(used[facts.lowest[used] == facts.highest[used]])
    duplicates = _find_duplicates(facts.digests, used)
    conflicts = tuple(ids for ids in duplicates if len(set(labels[list(ids)])) > 1)
    leaks = _find_leaks(facts.digests, splits)
    problems = [_describe_blank(blank, len(used), image_set), _describe_conflicts(conflicts, len(used), image_set)]
    stages = [
        _images_stage("images", image_set.images.shape, (facts.lowest, facts.highest), problems),
        _labels_stage(image_set),
        *_masks_stage(image_set),
    ]
    for name in SPLIT_NAMES:
        indices = getattr(splits, name)
        problems = [_describe_leaks(leaks, len(used) - len(indices), image_set)] if name == "train" else []
        shape = (len(indices), *image_set.images.shape[1:])
        stages.append(_images_stage(name, shape, (facts.lowest[indices], facts.highest[indices]), problems))
    return AuditReport(
        stages=tuple(stage for stage, _ in stages),
        num_duplicates=sum(len(ids) - 1 for ids in duplicates),
        num_leaks=len(leaks),
        duplicates=duplicates,
        conflicts=conflicts,
        class_counts={name: tuple(per_class.tolist()) for name, per_class in counts.items()},
        found_problems=tuple(problem for _, found in stages for problem in found),
    )


def check_image_set(image_set: ImageSet, splits: Splits) -> AuditReport:
    """Return the audit of an image set without problems; arguments as in `audit_image_set`.

    Raises:
        UserInputError: With all problems: more than 1 % blank images, more than 1 % equal images with different labels, training
            images in other splits amounting to more than 1 % of the held-out images, classes without images, or values
            that are not those of 8-bit images.
    """
    report = audit_image_set(image_set, splits)
    if report.found_problems:
        raise make_error("data", report.found_problems)
    return report


def drop_leaks(image_set: ImageSet, splits: Splits) -> tuple[Splits, tuple[SkippedFile, ...]]:
    """Return the splits without the training images that also occur in another split, and which those are."""
    leaks = _find_leaks(measure_facts(image_set.images).digests, splits)
    names = name_images(image_set, leaks)
    skipped = tuple(SkippedFile(name=name, reason="also in the search, confirm or test split") for name in names)
    train = np.setdiff1d(splits.train, np.array(leaks, dtype=np.int64))
    return dataclasses.replace(splits, train=train), skipped


def name_images(image_set: ImageSet, ids: Iterable[int]) -> tuple[str, ...]:
    """Return the names of the images' files, or "sample 7" where they were not files."""
    origin = image_set.origin
    return tuple(f"sample {i}" if origin is None else origin.names[i] for i in ids)


def are_gray(images: ImageArray, ids: NDArray[np.int64]) -> bool:
    """Return whether all images, or nearly all, have equal channels: no color; padding does not count.

    Args:
        images: (N, H, W, 3) uint8.
        ids: (M,) indices of those that are looked at, until too many of them have colors.
    """
    num_colored = 0
    for image in read_images(images, ids):
        content = cut_content(image)
        num_colored += bool((content.max(axis=2) - content.min(axis=2)).max() > GRAY_TOLERANCE)
        if num_colored > (1 - MIN_GRAY_SHARE) * len(ids):
            return False
    return len(ids) > 0


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


def hash_images(images: ImageArray, used: NDArray[np.int64]) -> dict[int, bytes]:
    """Return the digest of each used image's bytes, by sample id.

    Args:
        images: (N, H, W, 3) uint8.
        used: (M,) int64, sample ids.

    Returns:
        Sample id -> 16 bytes of SHA-256.
    """
    digests = measure_facts(images).digests
    return {int(i): digests[i] for i in np.sort(used)}


def _find_leaks(digests: Sequence[bytes], splits: Splits) -> list[int]:
    """Return the sorted training ids whose images occur in another split."""
    held_out = {digests[i] for name in SPLIT_NAMES if name != "train" for i in getattr(splits, name)}
    return [int(i) for i in splits.train if digests[i] in held_out]


def _find_duplicates(digests: Sequence[bytes], used: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    """Return the sorted ids of each set of equal images."""
    alike: dict[bytes, list[int]] = {}
    for i in np.sort(used):
        alike.setdefault(digests[i], []).append(int(i))
    return tuple(tuple(ids) for ids in alike.values() if len(ids) > 1)


def _make_stage(
    name: str, shape: tuple[int, ...], layout: str, ends: Sequence[NDArray[Any]], problems: Iterable[Problem | None]
) -> Audited:
    """Return the stage, whose problem is the rules of all problems, and the problems with the stage's name before the rule.

    The ends are arrays of which the first has the lowest value, and the second the highest one.
    """
    found = [problem for problem in problems if problem is not None]
    text = "; ".join(problem.rule for problem in found) or None
    limits = (float(ends[0].min()), float(ends[1].max())) if len(ends[0]) else (float("nan"), float("nan"))
    stage = AuditStage(name, tuple(shape), str(ends[0].dtype), *limits, layout, text)
    return stage, [dataclasses.replace(problem, rule=f"{name}: {problem.rule}") for problem in found]


def _images_stage(
    name: str, shape: tuple[int, ...], ends: Sequence[NDArray[np.uint8]], problems: Iterable[Problem | None]
) -> Audited:
    if not shape[0]:
        problems = [Problem("there are no images", (), "add images")]
    elif (highest := float(ends[1].max())) <= 1:
        rule = f"8-bit images are expected, but no value is above {highest:g}; were floats in [0, 1] rounded?"
        problems = [Problem(rule, (), "save the images with values up to 255")]
    return _make_stage(name, shape, "NHWC", ends, problems)


def _labels_stage(image_set: ImageSet) -> Audited:
    labels = image_set.labels
    missing = np.flatnonzero(np.bincount(labels, minlength=image_set.num_classes) == 0)
    names = tuple(image_set.class_names[k] for k in missing)
    problem = Problem(f"{len(names)} classes have no image", names, "drop them or add images") if names else None
    return _make_stage("labels", labels.shape, "N", (labels, labels), [problem])


def _masks_stage(image_set: ImageSet) -> list[Audited]:
    masks = image_set.masks
    if masks is None:
        return []
    problem = None
    if masks.shape != image_set.images.shape[:3]:
        rule = f"masks must have the images' shape {image_set.images.shape[:3]}, but have {masks.shape}"
        problem = Problem(rule, (), "correct them")
    elif len(empty := find_missing_objects(masks, image_set.labels)):
        names = name_images(image_set, empty.tolist())
        problem = Problem(f"{len(empty)} masks mark no object", names, "correct them")
    return [_make_stage("masks", masks.shape, "NHW", (masks, masks), [problem])]


def find_missing_objects(masks: NDArray[np.bool_], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sample ids of empty masks; those of a class without any object, such as tiles without a defect, are right.

    Args:
        masks: (N, H, W), True on the object.
        labels: (N,) classes of the images.
    """
    is_marked = masks.any(axis=(1, 2))
    has_objects = np.isin(labels, labels[is_marked]) if is_marked.any() else True
    return np.flatnonzero(~is_marked & has_objects)


def _describe_blank(blank: NDArray[np.int64], num_used: int, image_set: ImageSet) -> Problem | None:
    if len(blank) <= MAX_BLANK_FRACTION * num_used:
        return None
    rule = f"at most {MAX_BLANK_FRACTION:.0%} of the images may be blank (one constant color), but {len(blank)} of {num_used} are"
    return Problem(rule, name_images(image_set, blank.tolist()), "remove them")


def _describe_conflicts(conflicts: Sequence[tuple[int, ...]], num_used: int, image_set: ImageSet) -> Problem | None:
    num_images = sum(map(len, conflicts))
    if num_images <= MAX_CONFLICT_FRACTION * num_used:
        return None
    rule = (
        f"at most {MAX_CONFLICT_FRACTION:.0%} of the images may be equal to an image of another class, but {num_images} of "
        f"{num_used} are"
    )
    names = tuple(name_images(image_set, ids) for ids in conflicts)
    return Problem(rule, names, "keep each in its class and remove the other copies")


def _describe_leaks(leaks: list[int], num_held_out: int, image_set: ImageSet) -> Problem | None:
    if len(leaks) <= MAX_LEAK_FRACTION * num_held_out:
        return None
    rule = (
        f"training images that also occur in another split may be at most {MAX_LEAK_FRACTION:.0%} of the {num_held_out} "
        f"held-out images, but there are {len(leaks)}"
    )
    advice = 'remove the copies, or set data.on_bad_image = "skip" to train without them'
    return Problem(rule, name_images(image_set, leaks), advice)
