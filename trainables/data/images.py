"""`ImageSet`: labeled images as one uint8 array, which all trials of a node read in place."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedFile:
    """A file of an image set that is not used.

    Attributes:
        name: path below the set's folder, or the file and row.
        reason: why it is not used, such as "not an image" or "cannot be decoded (truncated)".
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOrigin:
    """Where images came from, before they were decoded to one size.

    Attributes:
        names: N file names (path below the set's folder, or the file and row).
        sizes: (N, 2) int32, width and height in pixels before resizing, after the rotation that EXIF asks for.
        kinds: number of images by kind, such as {"RGB": 380, "grayscale": 3, "CMYK": 1, "EXIF-rotated": 2}.
        skipped: files that are not used.
    """

    names: tuple[str, ...]
    sizes: NDArray[np.int32]
    kinds: Mapping[str, int]
    skipped: tuple[SkippedFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Labeled images. The sample id of an image is its index.

    Attributes:
        images: (N, H, W, 3) uint8, RGB, channels last.
        labels: (N,) int64 in [0, K).
        class_names: K names, indexed by the labels.
        source: Name of the source ("cifar10", "planted", ...), for records and reports.
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

    Raises:
        UserInputError: If shapes or dtype do not match, or a label is out of range.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    source: str
    official_test: NDArray[np.bool_] | None = None
    masks: NDArray[np.bool_] | None = None
    class_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: NDArray[np.int64] | None = None
    group_names: tuple[str, ...] = ()
    official_validation: NDArray[np.bool_] | None = None
    origin: ImageOrigin | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] != 3:
            raise UserInputError(f"images must be (N, H, W, 3) uint8, but are {self.images.shape} {self.images.dtype}")
        if self.labels.shape != (n,):
            raise UserInputError(f"{n} images need {n} labels, but got shape {self.labels.shape}")
        if self.groups is not None and self.groups.shape != (n,):
            raise UserInputError(f"{n} images need {n} numbers of groups, but got shape {self.groups.shape}")
        if n and (self.labels.min() < 0 or self.labels.max() >= self.num_classes):
            raise UserInputError(
                f"labels must be in [0, {self.num_classes}), but range from {self.labels.min()} to {self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def name_group(self, group: int) -> str:
        """Return the name of a group, or its number if it has no name."""
        return self.group_names[group] if self.group_names else str(group)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)
