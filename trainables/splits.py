"""Stratified splits: train fits, search selects, confirm confirms, test is read once."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from search_spaces.errors import UserInputError
from trainables.images import ImageSet
from trainables.seeds import derive_seed

SPLITS = ("train", "search", "confirm", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Disjoint sets of sample ids.

    Attributes:
        train, search, confirm, test: sorted int64 indices into the image set.
        fingerprint: first 16 hex digits of SHA-256 over the data's fingerprint and the indices.
    """

    train: NDArray[np.int64]
    search: NDArray[np.int64]
    confirm: NDArray[np.int64]
    test: NDArray[np.int64]
    fingerprint: str

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the indices of one split by name; raise KeyError for an unknown one."""
        if split not in SPLITS:
            raise KeyError(split)
        indices: NDArray[np.int64] = getattr(self, split)
        return indices


def compute_data_fingerprint(image_set: ImageSet) -> str:
    """Return the first 16 hex digits of SHA-256 over images, labels and class names."""
    digest = hashlib.sha256()
    digest.update(repr((image_set.images.shape, image_set.class_names)).encode())
    digest.update(np.ascontiguousarray(image_set.images).data)
    digest.update(np.ascontiguousarray(image_set.labels).data)
    return digest.hexdigest()[:16]


def make_splits(
    image_set: ImageSet,
    *,
    seed: int,
    search_fraction: float,
    confirm_fraction: float,
    test_fraction: float | None,
    num_test_images: int | None = None,
) -> Splits:
    """Split by class proportions, as a pure function of the images and the arguments.

    Args:
        image_set: the images; an official test set becomes the test split, and only the rest is divided.
        seed: of the draws.
        search_fraction, confirm_fraction: of the images outside an official test set, in (0, 1).
        test_fraction: of all images; None where there is an official test set.
        num_test_images: take only this many of the official test set, stratified; None for all.

    Raises:
        UserInputError: if the fractions do not leave a training split, contradict an official test set, or a class is
            missing from a split.
    """
    _check_fractions(image_set, search_fraction, confirm_fraction, test_fraction, num_test_images)
    if image_set.official_test is not None:
        test = np.flatnonzero(image_set.official_test)
        rest = np.flatnonzero(~image_set.official_test)
        if num_test_images is not None and num_test_images < len(test):
            test, _ = _draw(image_set, test, num_test_images, seed, "test")
        reference = len(rest)
    else:
        everything = np.arange(len(image_set))
        test, rest = _draw(image_set, everything, round((test_fraction or 0.0) * len(image_set)), seed, "test")
        reference = len(image_set)
    search, rest = _draw(image_set, rest, round(search_fraction * reference), seed, "search")
    confirm, train = _draw(image_set, rest, round(confirm_fraction * reference), seed, "confirm")
    parts = {"train": train, "search": search, "confirm": confirm, "test": test}
    parts = {name: np.sort(indices).astype(np.int64) for name, indices in parts.items()}
    for name, indices in parts.items():
        _check_classes(image_set, name, indices)
    digest = hashlib.sha256(compute_data_fingerprint(image_set).encode())
    for indices in parts.values():
        digest.update(indices.tobytes())
        digest.update(b"|")
    return Splits(**parts, fingerprint=digest.hexdigest()[:16])


def _draw(
    image_set: ImageSet, pool: NDArray[np.int64], number: int, seed: int, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (drawn, left over), stratified by class."""
    labels = image_set.labels[pool]
    counts = np.bincount(labels, minlength=image_set.num_classes)
    few = [image_set.class_names[c] for c in range(image_set.num_classes) if counts[c] < 2]
    if few or not image_set.num_classes <= number <= len(pool) - image_set.num_classes:
        rule = f"the class {few[0]!r} has fewer than 2 images left" if few else f"{number} of {len(pool)} images"
        raise UserInputError(
            f"the {name} split cannot hold every class: {rule}; add images, drop the class, or change data.{name}_fraction"
        )
    left, drawn = train_test_split(
        pool, test_size=number, stratify=labels, random_state=derive_seed(seed, "split", name) % 2**32
    )
    return drawn, left


def _check_classes(image_set: ImageSet, name: str, indices: NDArray[np.int64]) -> None:
    present = np.bincount(image_set.labels[indices], minlength=image_set.num_classes)
    for c in np.flatnonzero(present == 0):
        raise UserInputError(
            f"the {name} split has no image of the class {image_set.class_names[c]!r}; "
            f"add images of it, drop the class, or make data.{name}_fraction larger"
        )


def _check_fractions(
    image_set: ImageSet,
    search_fraction: float,
    confirm_fraction: float,
    test_fraction: float | None,
    num_test_images: int | None,
) -> None:
    if image_set.official_test is not None and test_fraction is not None:
        raise UserInputError(
            f"{image_set.source} has an official test set, so data.test_fraction ({test_fraction}) must be left out; "
            "data.num_test_images takes a part of it"
        )
    if image_set.official_test is None:
        if test_fraction is None:
            raise UserInputError(f"{image_set.source} has no official test set; give data.test_fraction")
        if num_test_images is not None:
            raise UserInputError(
                f"{image_set.source} has no official test set; use data.test_fraction, not num_test_images"
            )
    total = search_fraction + confirm_fraction + (test_fraction or 0.0)
    if min(search_fraction, confirm_fraction) <= 0 or total >= 1:
        raise UserInputError(
            "search, confirm and test fractions must be above 0 and add up to less than 1, "
            f"but are {search_fraction}, {confirm_fraction}, {test_fraction or 0.0}"
        )
