"""Fashion-MNIST (Xiao et al. 2017): 60,000 training and 10,000 test images, 28x28 grayscale, ten classes."""

import pickle
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torchvision import datasets

from search_spaces.errors import UserInputError
from trainables.data.images import ImageSet
from trainables.data.sources.decoding import allocate_images
from trainables.data.sources.descriptions import load_descriptions
from trainables.data.sources.published import DEFAULT_ROOT, Archive, check_reachable, load_published
from trainables.data.sources.subset import choose_subset

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
    if not all((folder / name).is_file() or (folder / name).with_suffix("").is_file() for name in names):
        check_reachable(archive)
    (train, train_labels), (test, test_labels) = load_published(
        archive, lambda: (_load_part(root, train=True), _load_part(root, train=False)), MALFORMED
    )
    if train.shape[1:] != test.shape[1:]:
        raise UserInputError(f"Fashion-MNIST's files in {folder} hold images of different sizes; {archive.advice}")
    labels = np.concatenate([train_labels, test_labels])
    official_test = np.arange(len(labels)) >= len(train_labels)
    kept = choose_subset(labels, official_test, num_images, seed)
    gray = np.concatenate([train[kept[kept < len(train)]], test])
    images = allocate_images(len(gray), *gray.shape[1:])
    images[:] = gray[..., None]
    description = load_descriptions()["fashion_mnist"]
    return ImageSet(
        images=images,
        labels=labels[kept],
        class_names=description.class_names,
        source="fashion_mnist",
        official_test=official_test[kept],
        class_groups=description.groups,
    )


def _load_part(root: Path, *, train: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    part = datasets.FashionMNIST(root, train=train, download=True)
    images, labels = part.data.numpy(), part.targets.numpy()
    if images.ndim != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise ValueError(f"images {images.shape} {images.dtype} and labels {labels.shape} do not belong together")
    return images, labels.astype(np.int64)
