"""Images that occur more than once: pairs of equal and of nearly equal ones, and the splits and labels that they have."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.images.values import ImagePair
from trainables.data.image_array import ImageArray
from trainables.data.image_audit import hash_images
from trainables.data.images import ImageSet
from trainables.data.near_duplicates import group_near_duplicates
from trainables.data.splits import SPLIT_NAMES, Splits


def find_exact_duplicates(images: ImageArray, labels: NDArray[np.int64], splits: Splits) -> tuple[ImagePair, ...]:
    """Return each image of the splits whose pixels equal those of an earlier one, with the first of them.

    A copy is paired with the first image of its kind in another split as well, if there is one.

    Args:
        images: (N, H, W, 3) uint8.
        labels: (N,) classes.
        splits: of the images.

    Returns:
        The pairs across splits first, then those with different labels, then by sample id.
    """
    split_of = name_splits(splits, len(images))
    used = np.flatnonzero(split_of != "")
    kinds: dict[bytes, list[int]] = {}
    for image, digest in sorted(hash_images(images, used).items()):
        kinds.setdefault(digest, []).append(image)
    pairs = []
    for members in kinds.values():
        for place, image in enumerate(members[1:], start=1):
            other = next((m for m in members[:place] if split_of[m] != split_of[image]), members[0])
            pairs.append(_make_pair(other, image, labels, split_of, None))
    return sort_pairs(pairs)


def find_near_duplicates(image_set: ImageSet, splits: Splits) -> tuple[ImagePair, ...]:
    """Return the pairs of images of the splits that show the same, see `group_near_duplicates`; equal images are left out.

    Each image of a group is paired with the first of it, and images that look alike but are in two groups with each other.

    Args:
        image_set: the images; where nobody looked for near-duplicates, this does.
        splits: of the images.

    Returns:
        The pairs in the order of `find_exact_duplicates`, but nearer ones first.
    """
    split_of = name_splits(splits, len(image_set))
    found = image_set.near_duplicates or group_near_duplicates(image_set.images)
    used = found.pairs[(split_of[found.pairs[:, :2]] != "").all(axis=1)]
    return sort_pairs([_make_pair(a, b, image_set.labels, split_of, distance) for a, b, distance in used.tolist()])


def name_splits(splits: Splits, num_images: int) -> NDArray[np.str_]:
    """Return the name of each image's split, or "" if it is in none; (N,)."""
    found = np.full(num_images, "", dtype="<U8")
    for name in SPLIT_NAMES:
        found[getattr(splits, name)] = name
    return found


def sort_pairs(pairs: Sequence[ImagePair]) -> tuple[ImagePair, ...]:
    """Return pairs across splits first, then those with different labels, then the nearest."""
    return tuple(sorted(pairs, key=lambda p: (not p.is_across, not p.is_conflict, p.distance or 0, p.first, p.second)))


def find_copies(pairs: Sequence[ImagePair]) -> NDArray[np.int64]:
    """Return the sample ids of the second image of every pair, sorted: without them no pair is left."""
    return np.unique(np.array([pair.second for pair in pairs], dtype=np.int64))


def _make_pair(
    first: int, second: int, labels: NDArray[np.int64], split_of: NDArray[np.str_], distance: int | None
) -> ImagePair:
    return ImagePair(
        first=first,
        second=second,
        splits=(str(split_of[first]), str(split_of[second])),
        labels=(int(labels[first]), int(labels[second])),
        distance=distance,
    )
