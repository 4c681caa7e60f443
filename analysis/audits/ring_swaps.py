"""Images whose outer ring is taken from another image, and the donors of these rings."""

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.metrics import IntArray
from search_spaces.errors import UserInputError

Images = NDArray[np.uint8]
FEW_EDGES_SHARE = 1 / 3
# ITU-R BT.601.
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def swap_ring(images: Images, donors: Images, ring: NDArray[np.bool_]) -> Images:
    """Return `images` with the ring of `donors`, both (n, H, W, 3)."""
    return np.where(ring[None, :, :, None], donors, images)


def fill_center(images: Images, ring: NDArray[np.bool_], color: NDArray[np.uint8]) -> Images:
    """Return (n, H, W, 3) images whose center, everything inside the ring, has one color (3,)."""
    return np.where(ring[None, :, :, None], images, color)


def draw_partners(labels: IntArray, generator: np.random.Generator, *, same_class: bool) -> IntArray:
    """Return a random donor for each image, of its own class or of another class.

    Every image is the donor of exactly one other, so that the donors add no variance by repetition. Only where one class has
    more than half of the images are images of the other classes used several times.

    Args:
        labels: (N,) classes.
        generator: of the choice.
        same_class: whether donors come from the image's own class.

    Returns:
        (N,) indices of the donors.

    Raises:
        UserInputError: if a class has only one image, or there is only one class.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2 or len(classes) < 2:
        problem = f"class {classes[counts.argmin()]} has one" if len(classes) > 1 else "there is only one class"
        raise UserInputError(f"ring swaps need two classes and two images of each, but {problem}")
    if not same_class:
        return _match_other_classes(labels, generator, evenly=2 * counts.max() <= len(labels))
    partners = np.empty(len(labels), dtype=np.int64)
    for label in classes:
        # Another position of a random order: never the image itself.
        order = generator.permutation(np.flatnonzero(labels == label))
        partners[order] = np.roll(order, int(generator.integers(1, len(order))))
    return partners


def _match_other_classes(labels: IntArray, generator: np.random.Generator, *, evenly: bool) -> IntArray:
    """Return donors of other classes, each image once where `evenly`: a random permutation, fixed by random exchanges."""
    partners = generator.permutation(len(labels))
    while len(clashes := np.flatnonzero(labels[partners] == labels)):
        others = generator.integers(len(labels), size=len(clashes))
        if not evenly:
            partners[clashes] = others
            continue
        for one, other in zip(clashes.tolist(), others.tolist(), strict=True):
            partners[[one, other]] = partners[[other, one]]
    return partners


def find_few_edges(images: Images, labels: IntArray, ring: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the third of each class with the fewest edges in the ring.

    Edges are measured by the absolute differences between the gray values of neighboring pixels inside the ring.

    Args:
        images: (N, H, W, 3) uint8.
        labels: (N,) classes.
        ring: (H, W) bool, True in the ring.

    Returns:
        (N,) bool, True for these images.
    """
    gray = images.astype(np.float32).mean(axis=3)
    total = np.zeros(len(images))
    for axis, both in ((1, ring[1:] & ring[:-1]), (2, ring[:, 1:] & ring[:, :-1])):
        total += (np.abs(np.diff(gray, axis=axis)) * both).sum(axis=(1, 2))
    few_edges = np.zeros(len(images), dtype=bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        few_edges[own[np.argsort(total[own], kind="stable")[: max(2, round(FEW_EDGES_SHARE * len(own)))]]] = True
    return few_edges
