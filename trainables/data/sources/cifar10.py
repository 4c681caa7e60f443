"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images, 32x32 RGB, ten classes."""

import warnings
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from torchvision import datasets

from trainables.data.images import ImageSet
from trainables.data.sources.published import DEFAULT_ROOT, Archive, LabeledImages, build_image_set, load_published


def load_cifar10(path: str | None, *, seed: int = 0, num_images: Annotated[int, Field(ge=1)] | None = None) -> ImageSet:
    """Return CIFAR-10; the published test images are the official test set.

    Args:
        path: Folder that holds cifar-10-python.tar.gz or cifar-10-batches-py/, or into which it is downloaded
            (default "data").
        seed: Seed of the subset.
        num_images: Keep this many of the 50,000 training images, stratified.

    Raises:
        UserInputError: If the archive is missing and cannot be downloaded, with its name, URL and folder.

    The batches are pickles, which torchvision opens only if their MD5 is the published one.
    """
    root = Path(path or DEFAULT_ROOT).expanduser()
    archive = Archive(title="CIFAR-10", urls=(datasets.CIFAR10.url,), folder=root)
    is_present = (root / datasets.CIFAR10.base_folder).is_dir() or (root / datasets.CIFAR10.filename).is_file()
    train, test = load_published(archive, partial(_load_cifar10_part, root), is_present=is_present)
    return build_image_set("cifar10", train, test, num_images, seed)


def _load_cifar10_part(root: Path, train: bool) -> LabeledImages:
    with warnings.catch_warnings():
        # The published pickles hold arrays in an old format that newer NumPy warns about.
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        part = datasets.CIFAR10(root, train=train, download=True)
    return np.asarray(part.data, dtype=np.uint8), np.asarray(part.targets, dtype=np.int64)
