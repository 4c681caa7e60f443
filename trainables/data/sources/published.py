"""CIFAR-10, Fashion-MNIST and digits: the archives that torchvision downloads, and advice where there is no network."""

import http.client
import pickle
import urllib.error
import urllib.request
import warnings
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torchvision import datasets

from search_spaces.errors import UserInputError, first_line
from trainables.data.decoding.decoded_images import allocate_images
from trainables.data.images import ImageSet
from trainables.data.sources.labeled_files import ImageSource

DEFAULT_ROOT = "data"
TIMEOUT_SECONDS = 15.0
NETWORK_ERRORS = (OSError, http.client.HTTPException)
HIGHEST_LEVEL = 16

# (N, H, W, 3) or (N, H, W) uint8, and (N,) int64.
LabeledImages = tuple[NDArray[np.uint8], NDArray[np.int64]]


class PublishedSource(ImageSource):
    """A described data set that torchvision downloads; the published test images are the official test set.

    Grayscale images are replicated into three equal channels. `num_images` counts the published training images.

    Attributes:
        title: Name in messages.
        urls: URLs of the files.
        unpacked: What each file becomes.
        subfolder: Folder of the files below the one that torchvision takes.
        malformed: Further errors that torchvision raises for damaged files.
        path: Folder that holds the files, or into which they are downloaded; by default "data".

    Raises:
        UserInputError: If files are missing and their server does not answer, or if files are damaged and cannot be downloaded
            again, with their names, URL and folder. (torchvision raises RuntimeError for a wrong MD5 and OSError for the
            network.)
    """

    title: ClassVar[str]
    urls: ClassVar[tuple[str, ...]]
    unpacked: ClassVar[tuple[str, ...]]
    subfolder: ClassVar[str] = ""
    malformed: ClassVar[tuple[type[Exception], ...]] = ()

    path: str | None = None

    @property
    def root(self) -> Path:
        """The folder that torchvision takes."""
        return Path(self.path or DEFAULT_ROOT).expanduser()

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.root / self.subfolder

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the files."""
        return tuple(url.rsplit("/", 1)[-1] for url in self.urls)

    @abstractmethod
    def read_part(self, train: bool) -> LabeledImages:
        """Return the training or test images; torchvision checks MD5 sums, unpacks archives and downloads missing files."""

    @property
    def advice(self) -> str:
        """Advice on fetching the files by hand."""
        names, base = ", ".join(self.file_names), self.urls[0].rsplit("/", 1)[0]
        return f"fetch {names} from {base}/ and put {'it' if len(self.urls) == 1 else 'them'} into {self.folder}"

    def load(self) -> ImageSet:
        """Return the images."""
        train, test = self._read_parts()
        if train[0].shape[1:] != test[0].shape[1:]:
            raise UserInputError(f"{self.title}'s files in {self.folder} hold images of different sizes; {self.advice}")
        labels = np.concatenate([train[1], test[1]])
        official_test = np.arange(len(labels)) >= len(train[1])
        kept = self.choose_subset(labels, official_test)
        images = np.concatenate([train[0][kept[kept < len(train[0])]], test[0]])
        if images.ndim == 3:
            gray, images = images, allocate_images(*images.shape)
            images[:] = gray[..., None]
        return self.describe(images, labels[kept], official_test=official_test[kept])

    def _read_parts(self) -> tuple[LabeledImages, LabeledImages]:
        """Return the training and the test images."""
        kinds = zip(self.file_names, self.unpacked, strict=True)
        if not all((self.folder / name).exists() or (self.folder / other).exists() for name, other in kinds):
            self._check_reachable()
        expected: tuple[type[Exception], ...] = (RuntimeError, *NETWORK_ERRORS, *self.malformed)
        try:
            return self.read_part(True), self.read_part(False)
        except expected as error:
            raise UserInputError(
                f"{self.title} in {self.folder} cannot be read ({first_line(error)}); remove it, then {self.advice}"
            ) from None

    def _check_reachable(self) -> None:
        """Check that the server answers, since torchvision has no time-out and leaves empty folders behind."""
        request = urllib.request.Request(self.urls[0], method="HEAD", headers={"User-Agent": "abstudy"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
                pass
        except NETWORK_ERRORS as error:
            reason = getattr(error, "reason", None) or error
            raise UserInputError(
                f"{self.title} is missing and cannot be downloaded ({first_line(reason)}); {self.advice}"
            ) from None


class Cifar10Source(PublishedSource):
    """CIFAR-10: cifar-10-python.tar.gz or cifar-10-batches-py/, with 50,000 training images.

    The batches are pickles, which torchvision opens only if their MD5 is the published one.
    """

    name = "cifar10"
    title = "CIFAR-10"
    urls = (datasets.CIFAR10.url,)
    unpacked = (datasets.CIFAR10.base_folder,)

    def read_part(self, train: bool) -> LabeledImages:
        """Return the images of five batches or of the test batch."""
        with warnings.catch_warnings():
            # The published pickles hold arrays in an old format that newer NumPy warns about.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            part = datasets.CIFAR10(self.root, train=train, download=True)
        return np.asarray(part.data, dtype=np.uint8), np.asarray(part.targets, dtype=np.int64)


class FashionMnistSource(PublishedSource):
    """Fashion-MNIST: FashionMNIST/raw/ with the four files (compressed or not), with 60,000 training images."""

    name = "fashion_mnist"
    title = "Fashion-MNIST"
    urls = tuple(datasets.FashionMNIST.mirrors[0] + name for name, _ in datasets.FashionMNIST.resources)
    unpacked = tuple(name.removesuffix(".gz") for name, _ in datasets.FashionMNIST.resources)
    subfolder = "FashionMNIST/raw"
    # Of torchvision's reader for files that are not IDX.
    malformed = (AssertionError, ValueError, KeyError, TypeError, pickle.UnpicklingError)

    def read_part(self, train: bool) -> LabeledImages:
        """Return the images of two files."""
        part = datasets.FashionMNIST(self.root, train=train, download=True)
        images, labels = part.data.numpy(), part.targets.numpy()
        if images.ndim != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise ValueError(f"images {images.shape} {images.dtype} and labels {labels.shape} do not belong together")
        return images, labels.astype(np.int64)


class DigitsSource(ImageSource):
    """The 1,797 digits: gray levels 0..16 scaled to 0..255 and replicated into three equal channels."""

    name = "digits"

    def load(self) -> ImageSet:
        """Return the images."""
        bunch = load_digits()
        labels = np.asarray(bunch.target, dtype=np.int64)
        kept = self.choose_subset(labels)
        gray = np.rint(bunch.images[kept] * (255 / HIGHEST_LEVEL)).astype(np.uint8)
        return self.describe(np.repeat(gray[..., None], 3, axis=3), labels[kept])
