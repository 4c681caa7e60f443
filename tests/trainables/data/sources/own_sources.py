"""Sources as somebody else would write them, the faulty ones too."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data.images import ImageSet

NAMES = ("cat", "dog")


def make(**changes: Any) -> ImageSet:
    """Return twelve images of two classes, with labels of 32 bits and a list of names."""
    images = np.random.default_rng(changes.pop("seed", 0)).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(12, dtype=np.int32) % 2
    return ImageSet(**{"images": images, "labels": labels, "class_names": list(NAMES), **changes})


def load(path: str | None = None, *, year: int, seed: int, months: tuple[int, ...] = ()) -> ImageSet:
    """Return images and remember the arguments in their groups' names."""
    return make(seed=seed, group_names=(repr(path), str(year), repr(months)))


def load_small() -> ImageSet:
    """Take no argument at all."""
    return make()


def load_at_size(image_size: int, on_bad_image: str) -> ImageSet:
    """Remember the study's settings."""
    return make(group_names=(str(image_size), on_bad_image))


def load_anything(**options: Any) -> ImageSet:
    """Take every option."""
    return make(group_names=tuple(sorted(options)))


def load_transposed() -> ImageSet:
    """Return images that are not contiguous."""
    return make(images=np.zeros((8, 8, 12, 3), np.uint8).transpose(2, 0, 1, 3))


def load_mapped() -> ImageSet:
    """Return images that NumPy maps from a file with a header."""
    path = Path(tempfile.mkdtemp()) / "images.npy"
    np.save(path, make().images)
    return make(images=np.load(path, mmap_mode="r"))


def load_arrays() -> object:
    """Return what is no ImageSet."""
    return np.zeros((12, 8, 8, 3)), np.zeros(12)


def load_floats() -> ImageSet:
    """Return images in [0, 1]."""
    return make(images=np.zeros((12, 8, 8, 3), np.float32))


def load_wrong() -> ImageSet:
    """Return labels and names that are wrong."""
    return make(labels=np.zeros(12), class_names=("cat", "cat"), official_test=np.zeros(11, bool))


def load_out_of_range() -> ImageSet:
    """Return labels that begin at one."""
    return make(labels=np.arange(12) % 2 + 1)


def load_with_error() -> ImageSet:
    """Fail as somebody's code may."""
    return make(**{}["images"])


BUILT_IN = dict
