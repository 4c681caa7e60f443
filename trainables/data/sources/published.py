"""CIFAR-10, Fashion-MNIST and digits: the archives that torchvision downloads, and advice where there is no network."""

import http.client
import pickle
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.datasets import load_digits as load_sklearn_digits
from torchvision import datasets

from search_spaces.errors import UserInputError, first_line
from trainables.data.decoding.decoded_images import allocate_images
from trainables.data.images import ImageSet
from trainables.data.sources.labeled_files import choose_subset, load_descriptions

DEFAULT_ROOT = "data"
TIMEOUT_SECONDS = 15.0
NETWORK_ERRORS = (OSError, http.client.HTTPException)

Errors = tuple[type[Exception], ...]
# (N, H, W, 3) or (N, H, W) uint8, and (N,) int64.
LabeledImages = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The published files of one data set.

    Attributes:
        title: Name in messages.
        urls: URLs of the files.
        folder: Folder of the files.
    """

    title: str
    urls: tuple[str, ...]
    folder: Path

    @property
    def advice(self) -> str:
        """Advice on fetching the files by hand."""
        names = ", ".join(url.rsplit("/", 1)[-1] for url in self.urls)
        base = self.urls[0].rsplit("/", 1)[0]
        return f"fetch {names} from {base}/ and put {'it' if len(self.urls) == 1 else 'them'} into {self.folder}"


def _check_reachable(archive: Archive) -> None:
    """Check that the archive's server answers, since torchvision has no time-out and leaves empty folders behind."""
    request = urllib.request.Request(archive.urls[0], method="HEAD", headers={"User-Agent": "abstudy"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            pass
    except NETWORK_ERRORS as error:
        reason = getattr(error, "reason", None) or error
        raise UserInputError(
            f"{archive.title} is missing and cannot be downloaded ({first_line(reason)}); {archive.advice}"
        ) from None


def load_published(
    archive: Archive, load: Callable[[bool], LabeledImages], *, is_present: bool, malformed: Errors = ()
) -> tuple[LabeledImages, LabeledImages]:
    """Return the training and the test images.

    Args:
        archive: Archive to name in the error.
        load: Returns the training images for True, the test images for False. Calls torchvision, which checks the files' MD5,
            unpacks archives and downloads missing files.
        is_present: Whether the files are there already.
        malformed: Further errors that `load` raises for damaged files.

    Raises:
        UserInputError: If files are missing and their server does not answer, or if files are damaged and cannot be
            downloaded again. (torchvision raises RuntimeError for a wrong MD5 and OSError for the network.)
    """
    if not is_present:
        _check_reachable(archive)
    expected: Errors = (RuntimeError, *NETWORK_ERRORS, *malformed)
    try:
        return load(True), load(False)
    except expected as error:
        raise UserInputError(
            f"{archive.title} in {archive.folder} cannot be read ({first_line(error)}); remove it, then {archive.advice}"
        ) from None


def build_image_set(
    source: str, train: LabeledImages, test: LabeledImages, num_images: int | None, seed: int
) -> ImageSet:
    """Return the images of a described data set; the published test images are the official test set.

    Args:
        source: Name of the source, which is also that of its description.
        train: Published training images and their labels; grayscale images are replicated into three equal channels.
        test: Published test images and their labels, of the same size.
        num_images: Keep this many of the training images, stratified; None keeps all.
        seed: Seed of the subset.
    """
    labels = np.concatenate([train[1], test[1]])
    official_test = np.arange(len(labels)) >= len(train[1])
    kept = choose_subset(labels, official_test, num_images, seed)
    images = np.concatenate([train[0][kept[kept < len(train[0])]], test[0]])
    if images.ndim == 3:
        gray, images = images, allocate_images(*images.shape)
        images[:] = gray[..., None]
    description = load_descriptions()[source]
    return ImageSet(
        images=images,
        labels=labels[kept],
        class_names=description.class_names,
        source=source,
        official_test=official_test[kept],
        class_groups=description.groups,
    )


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


HIGHEST_LEVEL = 16


def load_digits(*, seed: int = 0, num_images: Annotated[int, Field(ge=1)] | None = None) -> ImageSet:
    """Return the digits: gray levels 0..16 scaled to 0..255 and replicated into three equal channels.

    Args:
        seed: Seed of the subset.
        num_images: Keep this many of the 1,797 images, stratified.

    Raises:
        UserInputError: If `num_images` is out of range.
    """
    bunch = load_sklearn_digits()
    labels = np.asarray(bunch.target, dtype=np.int64)
    kept = choose_subset(labels, None, num_images, seed)
    gray = np.rint(bunch.images[kept] * (255 / HIGHEST_LEVEL)).astype(np.uint8)
    description = load_descriptions()["digits"]
    return ImageSet(
        images=np.repeat(gray[..., None], 3, axis=3),
        labels=labels[kept],
        class_names=description.class_names,
        source="digits",
        class_groups=description.groups,
    )
