"""The outer ring of an image, taken from another image: what is left of the answer shows what the ring was worth."""

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.metrics import IntArray
from search_spaces.errors import UserInputError

Images = NDArray[np.uint8]
# Widths of the ring as parts of the image's side: 4 and 6 of 32 pixels.
RING_FRACTIONS = (4 / 32, 6 / 32)
QUIET_SHARE = 1 / 3


def make_ring(height: int, width: int, fraction: float) -> NDArray[np.bool_]:
    """Return (H, W) bool, True in the outer ring of round(fraction * shorter side) pixels, at least one.

    Raises UserInputError if no centre would be left.
    """
    pixels = max(1, round(fraction * min(height, width)))
    if 2 * pixels >= min(height, width):
        raise UserInputError(f"a ring of {pixels} pixels leaves nothing of {height}x{width}")
    ring = np.ones((height, width), dtype=bool)
    ring[pixels:-pixels, pixels:-pixels] = False
    return ring


def swap_ring(images: Images, donors: Images, ring: NDArray[np.bool_]) -> Images:
    """Return `images` with the ring of `donors`, both (n, H, W, 3)."""
    return np.where(ring[None, :, :, None], donors, images)


def fill_centre(images: Images, ring: NDArray[np.bool_], color: NDArray[np.uint8]) -> Images:
    """Return (n, H, W, 3) `images` with one colour (3,) in the place of everything inside the ring."""
    return np.where(ring[None, :, :, None], images, color)


def draw_partners(labels: IntArray, generator: np.random.Generator, *, same_class: bool) -> IntArray:
    """Return (N,) indices of a random other image for each: of its own class, or of another class.

    Every image is the partner of exactly one, so that images with their partners vary like images alone; only where one class
    has more than half of the images do those of other classes serve several times. Raises UserInputError where a class has one
    image only, or there is one class only.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2 or len(classes) < 2:
        what = f"class {classes[counts.argmin()]} has one" if len(classes) > 1 else "there is one class only"
        raise UserInputError(f"ring swaps need two classes and two images of each, but {what}")
    if not same_class:
        return _match_other_classes(labels, generator, evenly=2 * counts.max() <= len(labels))
    partners = np.empty(len(labels), dtype=np.int64)
    for label in classes:
        # Another position of a random order: never the image itself.
        order = generator.permutation(np.flatnonzero(labels == label))
        partners[order] = np.roll(order, int(generator.integers(1, len(order))))
    return partners


def _match_other_classes(labels: IntArray, generator: np.random.Generator, *, evenly: bool) -> IntArray:
    """Return partners of other classes, each image once where `evenly`: a random order, mended by random exchanges."""
    partners = generator.permutation(len(labels))
    while len(clashes := np.flatnonzero(labels[partners] == labels)):
        others = generator.integers(len(labels), size=len(clashes))
        if not evenly:
            partners[clashes] = others
            continue
        for one, other in zip(clashes.tolist(), others.tolist(), strict=True):
            partners[[one, other]] = partners[[other, one]]
    return partners


def find_quiet(images: Images, labels: IntArray, ring: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (N,) bool, True for the third of each class with the fewest edges in the ring.

    Edges are the mean absolute difference between neighbouring pixels' grey values, both inside the ring.
    """
    grey = images.astype(np.float32).mean(axis=3)
    total = np.zeros(len(images))
    for axis in (1, 2):
        both = np.logical_and(*_neighbours(ring, axis - 1))
        one, other = _neighbours(grey, axis)
        total += (np.abs(one - other) * both).sum(axis=(1, 2))
    quiet = np.zeros(len(images), dtype=bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        quiet[own[np.argsort(total[own], kind="stable")[: max(2, round(QUIET_SHARE * len(own)))]]] = True
    return quiet


def _neighbours(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    length = array.shape[axis]
    return np.take(array, range(length - 1), axis=axis), np.take(array, range(1, length), axis=axis)
