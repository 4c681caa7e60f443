"""Data sets that torchvision downloads: their archives, and advice for machines without network access."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError, first_line
from trainables.data.decoding.decoded_images import allocate_images
from trainables.data.images import ImageSet
from trainables.data.sources.descriptions import load_descriptions
from trainables.data.sources.subset import choose_subset

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
