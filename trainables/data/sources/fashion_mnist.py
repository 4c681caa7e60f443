"""Fashion-MNIST (Xiao et al. 2017): 60,000 training and 10,000 test images, 28x28 grayscale, ten classes."""

import pickle
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from torchvision import datasets

from search_spaces.errors import UserInputError
from trainables.data.images import ImageSet
from trainables.data.sources.published import DEFAULT_ROOT, Archive, LabeledImages, build_image_set, load_published

# Raised by torchvision's IDX reader for files that are not IDX.
MALFORMED = (AssertionError, ValueError, KeyError, TypeError, pickle.UnpicklingError)


def load_fashion_mnist(
    path: str | None, *, seed: int = 0, num_images: Annotated[int, Field(ge=1)] | None = None
) -> ImageSet:
    """Return Fashion-MNIST; the published test images are the official test set.

    The grayscale images are replicated into three equal channels.

    Args:
        path: Folder that holds FashionMNIST/raw/ with the four files (compressed or not), or into which they are
            downloaded (default "data").
        seed: Seed of the subset.
        num_images: Keep this many of the 60,000 training images, stratified.

    Raises:
        UserInputError: If the files are missing and cannot be downloaded, with their names, URL and folder.
    """
    root = Path(path or DEFAULT_ROOT).expanduser()
    folder = root / "FashionMNIST" / "raw"
    names = [name for name, _ in datasets.FashionMNIST.resources]
    archive = Archive(
        title="Fashion-MNIST", urls=tuple(datasets.FashionMNIST.mirrors[0] + name for name in names), folder=folder
    )
    train, test = load_published(
        archive,
        partial(_load_fashion_part, root),
        is_present=all((folder / name).is_file() or (folder / name).with_suffix("").is_file() for name in names),
        malformed=MALFORMED,
    )
    if train[0].shape[1:] != test[0].shape[1:]:
        raise UserInputError(f"Fashion-MNIST's files in {folder} hold images of different sizes; {archive.advice}")
    return build_image_set("fashion_mnist", train, test, num_images, seed)


def _load_fashion_part(root: Path, train: bool) -> LabeledImages:
    part = datasets.FashionMNIST(root, train=train, download=True)
    images, labels = part.data.numpy(), part.targets.numpy()
    if images.ndim != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise ValueError(f"images {images.shape} {images.dtype} and labels {labels.shape} do not belong together")
    return images, labels.astype(np.int64)
