"""`ImageSet`: labeled images, usually as one uint8 array, which all trials of a node read in place."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import list_some, refuse_any
from trainables.data.image_array import ImageArray, LazyImages
from trainables.data.near_duplicates import NearDuplicates

# How photographs become squares.
Aspect: TypeAlias = Literal["crop", "pad", "squash"]
# Kinds of files that `describe_skipped` names.
MAX_SKIPPED_KINDS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedFile:
    """A file of an image set that is not used.

    Attributes:
        name: path below the set's folder, or the file and row.
        reason: why it is not used, such as "not an image" or "cannot be decoded (truncated)".
    """

    name: str
    reason: str


def describe_skipped(files: Sequence[SkippedFile]) -> str:
    """Return how many files are not used and why, such as "412 files are not used: 400 .heic (not an image), ..."."""
    reasons = (file.reason.partition(" (")[0].partition(";")[0] for file in files)
    kinds = (PurePosixPath(file.name).suffix.lower() or "without suffix" for file in files)
    counts = Counter(zip(kinds, reasons, strict=True)).most_common()
    listed = ", ".join(f"{number} {kind} ({reason})" for (kind, reason), number in counts[:MAX_SKIPPED_KINDS])
    more = f", {sum(n for _, n in counts[MAX_SKIPPED_KINDS:])} others" if len(counts) > MAX_SKIPPED_KINDS else ""
    return f"{len(files)} {'file is' if len(files) == 1 else 'files are'} not used: {listed}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOrigin:
    """Where images came from, before they were decoded to one size.

    Attributes:
        names: N file names (path below the set's folder, or the file and row).
        sizes: (N, 2) int32, width and height in pixels before resizing, after the rotation that EXIF asks for.
        kinds: number of images by kind, such as {"RGB": 380, "grayscale": 3, "CMYK": 1, "EXIF-rotated": 2}.
        skipped: files that are not used.
        notes: what else is to be said about the files, such as "12 masks left out as images; ...".
        decode_as: returns (M, S, S, 3) uint8 images of ascending sample ids for each of several values of `data.aspect`; None
            where nothing says the side.
    """

    names: tuple[str, ...]
    sizes: NDArray[np.int32]
    kinds: Mapping[str, int]
    skipped: tuple[SkippedFile, ...] = ()
    notes: tuple[str, ...] = ()
    decode_as: Callable[[NDArray[np.int64], Sequence[Aspect]], Mapping[Aspect, NDArray[np.uint8]]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Labeled images. The sample id of an image is its index.

    Attributes:
        images: (N, H, W, 3) uint8, RGB, channels last; an array, or images that are decoded when they are read.
        labels: (N,) int64 in [0, K).
        class_names: K names, indexed by the labels.
        source: Name of the source ("cifar10", "planted", ...), for records and reports. `load_image_set` sets that of a
            custom source.
        official_test: (N,) bool, True for images of the published test set; None if there is none.
        masks: (N, H, W) bool, True on the object; None if the source has no masks.
        class_groups: Named groups of classes from the data set's description, such as
            {"rigid": (...), "deformable": (...)}.
        groups: (N,) int64, number of the group of images that each belongs to, such as its patient; None where images are
            independent.
        group_names: Names of the groups, indexed by their numbers; empty if there are none.
        official_validation: (N,) bool, True for images of the published validation set, which become the search and confirm
            splits; None if there is none.
        origin: Where the images came from; None if they were not files.
        near_duplicates: Which images show the same; None where nobody looked.

    Raises:
        UserInputError: With all that is wrong: shapes and dtypes that do not match, labels out of range, names that are not
            distinct.
    """

    images: ImageArray
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    source: str = ""
    official_test: NDArray[np.bool_] | None = None
    masks: NDArray[np.bool_] | None = None
    class_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: NDArray[np.int64] | None = None
    group_names: tuple[str, ...] = ()
    official_validation: NDArray[np.bool_] | None = None
    origin: ImageOrigin | None = None
    near_duplicates: NearDuplicates | None = None

    def __post_init__(self) -> None:
        refuse_any(_list_problems(self))

    def __len__(self) -> int:
        return len(self.images)

    def name_group(self, group: int) -> str:
        """Return the name of a group, or its number if it has no name."""
        return self.group_names[group] if self.group_names else str(group)

    @property
    def units(self) -> NDArray[np.int64] | None:
        """(N,) numbers, equal for images that stay in one split: those of a group, near-duplicates; None where there are none."""
        found = self.near_duplicates
        if found is None or not len(found.sizes):
            return self.groups
        if self.groups is None:
            return found.groups
        # Imported here, because it is slow and only groups of both kinds need it.
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        names, groups = np.unique(self.groups, return_inverse=True)
        # A graph of groups and of groups of near-duplicates, which every image joins.
        edges = (np.ones(len(self)), (groups, len(names) + found.groups))
        size = len(names) + len(self)
        joined = connected_components(coo_array(edges, shape=(size, size)), directed=False)[1]
        return joined[groups].astype(np.int64)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)


def _list_problems(image_set: ImageSet) -> list[str]:
    """Return a message for each attribute that is not as `ImageSet` describes it."""
    images: Any = image_set.images
    is_array = isinstance(images, np.ndarray | LazyImages)
    if not is_array or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        return [f"images must be (N, H, W, 3) uint8, but are {_describe(images)}"]
    n = len(images)
    names: Any = image_set.class_names
    problems = []
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        problems.append(f"class_names must be a name per class, but are {names!r:.80}")
    elif len(set(names)) < len(names):
        repeated = sorted(name for name, count in Counter(names).items() if count > 1)
        problems.append(f"class names must be distinct, but {list_some(map(repr, repeated))} repeat")
    for values, what in ((image_set.labels, "labels"), (image_set.groups, "numbers of groups")):
        if values is not None and not _has_form(values, n, "iu"):
            problems.append(f"{n} images need {n} {what}, integers, but got shape {_describe(values)}")
    flags = {"official_test": image_set.official_test, "official_validation": image_set.official_validation}
    for name, is_chosen in flags.items():
        if is_chosen is not None and not _has_form(is_chosen, n, "b"):
            problems.append(f"{name} must be ({n},) bool, but is {_describe(is_chosen)}")
    labels = image_set.labels
    if n and not problems and (labels.min() < 0 or labels.max() >= len(names)):
        problems.append(f"labels must be in [0, {len(names)}), but range from {labels.min()} to {labels.max()}")
    return problems


def _has_form(values: Any, n: int, kinds: str) -> bool:
    return isinstance(values, np.ndarray) and values.shape == (n,) and values.dtype.kind in kinds


def _describe(values: Any) -> str:
    kind = type(values).__name__
    if hasattr(values, "shape") and hasattr(values, "dtype"):
        return f"{tuple(values.shape)} {values.dtype}{'' if isinstance(values, np.ndarray) else f' of {kind}'}"
    return f"of type {kind}"
