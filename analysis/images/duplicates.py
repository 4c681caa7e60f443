"""Images that occur more than once: exact duplicates, and near-duplicates by perceptual hash."""

from collections.abc import Sequence

import numpy as np
from imagehash import phash
from numpy.typing import NDArray
from PIL import Image

from analysis.images.values import MAX_DISTANCE, MIN_CORRELATION, ImagePair
from trainables.data.image_array import ImageArray, cut_content, read_images
from trainables.data.image_audit import hash_images
from trainables.data.splits import SPLIT_NAMES, Splits

THUMBNAIL_SIDE = 16
# Pairs whose hashes are compared at once.
CHUNK_PAIRS = 4_000_000


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


def find_near_duplicates(images: ImageArray, labels: NDArray[np.int64], splits: Splits) -> tuple[ImagePair, ...]:
    """Return the pairs of images of the splits that are nearly equal, as after compression, resizing or a change of brightness.

    The perceptual hashes (ImageHash's phash, 64 bits) differ in at most `MAX_DISTANCE` bits, and gray thumbnails correlate by at
    least `MIN_CORRELATION`, which excludes smooth images whose hashes agree by chance. Equal images are left out.

    Args:
        images: (N, H, W, 3) uint8.
        labels: (N,) classes.
        splits: of the images.

    Returns:
        The pairs in the order of `find_exact_duplicates`, but nearer ones first.
    """
    split_of = name_splits(splits, len(images))
    used = np.flatnonzero(split_of != "")
    hashes, thumbnails = _describe_images(images, used)
    digests = hash_images(images, used)
    pairs = []
    chunk = max(1, CHUNK_PAIRS // max(1, len(used)))
    for start in range(0, len(used), chunk):
        distances = np.bitwise_count(hashes[start : start + chunk, None] ^ hashes[None, start:])
        for i, j in zip(*np.nonzero(distances <= MAX_DISTANCE), strict=True):
            first, second = start + i, start + j
            if j <= i or thumbnails[first] @ thumbnails[second] < MIN_CORRELATION:
                continue
            a, b = int(used[first]), int(used[second])
            if digests[a] != digests[b]:
                pairs.append(_make_pair(a, b, labels, split_of, int(distances[i, j])))
    return sort_pairs(pairs)


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


def _describe_images(images: ImageArray, used: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Return (M,) hashes, and (M, P) gray thumbnails whose products are correlations; those of blank images are zero."""
    hashes = np.empty(len(used), dtype=np.uint64)
    thumbnails = np.empty((len(used), THUMBNAIL_SIDE**2), dtype=np.float32)
    for place, image in enumerate(read_images(images, used)):
        gray = Image.fromarray(cut_content(image)).convert("L")
        hashes[place] = int(str(phash(gray)), 16)
        thumbnails[place] = np.asarray(gray.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)).ravel()
    thumbnails -= thumbnails.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(thumbnails, axis=1, keepdims=True)
    return hashes, np.divide(thumbnails, norms, out=np.zeros_like(thumbnails), where=norms > 0)
