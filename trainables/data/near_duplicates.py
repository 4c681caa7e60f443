"""Images that show the same: copies that were compressed, resized or brightened, and one object under several lights.

Candidates are found by a perceptual hash and verified by their pixels. Whole numbers are compared, so that every machine finds
the same, and images are ordered by their content, so that the order of files changes nothing.
"""

from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search_spaces.errors import UserInputError
from trainables.data.all_cores import map_on_all_cores
from trainables.data.image_array import ImageArray, cut_content, read_images
from trainables.data.pixel_files import measure_facts, recall

# Bits of 64 in which the hashes of two candidates may differ, and the correlation that their descriptions must have. Measured
# (2026-12-01): of 700 images of CIFAR-10, at least 99 % are found again after JPEG at quality 30, half the side, gain 0.6 or 1.2,
# gamma 1.4, noise of 5 levels, or light from a side (0.7 to 1.2); of those with a border of one pixel cut off, half. Of 55,000
# images of CIFAR-10, 667 are in 322 groups, none with two labels. Of 2,527 photographs of refuse, 34 pairs are alike, of which
# three are of different bottles or cans. 100,000 images of 64 px take 18 s of one core and 0.2 GB.
MAX_DISTANCE = 10
MIN_CORRELATION = 0.92
# Standard deviation of the logarithm of gray below which an image shows nothing that could be compared: one percent of contrast.
MIN_CONTRAST = 0.01
# Side of the gray thumbnails, and of the corner of their cosine transforms that is compared.
THUMBNAIL_SIDE, KEPT_SIDE = 32, 16
# Terms of a cosine transform of this order or lower are taken for light: its strength, its direction and its falloff.
LIGHT_ORDER = 2
# Gray levels that are added before the logarithm, so that the noise of dark pixels counts little.
DARK_LEVEL = 16
# To be raised with every change of what is found.
VERSION = 1
# More pairs of images that look alike are no copies: they have something in common that the user can name.
MAX_PAIRS = 2_000_000
# Thumbnails that are transformed at once, and pairs: rows and columns of hashes that fit into a core's cache, and descriptions.
CHUNK_THUMBNAILS, CHUNK_ROWS, CHUNK_COLUMNS, CHUNK_PAIRS = 4096, 64, 2048, 16_384

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates:
    """Which of N images show the same.

    Attributes:
        groups: (N,) the first image of the group that each belongs to: itself where it is in none. Equal images are in one group.
        pairs: (P, 3) two images of unequal pixels, the smaller number first, and the bits in which their hashes differ: every
            image of a group with the first of it, and images that look alike but are in two groups, since others of these differ.
    """

    groups: Numbers
    pairs: Numbers

    @property
    def sizes(self) -> Numbers:
        """Number of images of each group of two or more, the largest first."""
        counts = np.bincount(self.groups)
        return np.sort(counts[counts > 1])[::-1]

    def to_bytes(self) -> bytes:
        """Return groups and pairs, one after the other."""
        return np.concatenate([self.groups, self.pairs.ravel()]).astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, num_images: int) -> "NearDuplicates":
        """Return what `to_bytes` wrote."""
        values = np.frombuffer(data, dtype="<i8").astype(np.int64)
        return cls(groups=values[:num_images], pairs=values[num_images:].reshape(-1, 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Descriptions:
    """What is compared of M images of unequal content, in the order of their digests.

    Attributes:
        hashes: (M,) uint64, signs of the 64 lowest terms of the cosine transform beside those of the light.
        terms: (M, 256) int8, terms of the cosine transform, the largest of each image 127; all 0 without contrast.
        norms: (M,) int64, sums of their squares.
    """

    hashes: NDArray[np.uint64]
    terms: NDArray[np.int8]
    norms: Numbers

    def correlate(self, pairs: Numbers) -> NDArray[np.float64]:
        """Return the (P,) correlations of (P, 2) pairs. The sums of whole numbers below 2 ** 24 are exact in single precision."""
        products = np.empty(len(pairs))
        for start in range(0, len(pairs), CHUNK_PAIRS):
            part = self.terms[pairs[start : start + CHUNK_PAIRS]].astype(np.float32)
            products[start : start + CHUNK_PAIRS] = np.einsum("ij,ij->i", part[:, 0], part[:, 1])
        norms: NDArray[np.float64] = np.sqrt(self.norms[pairs].prod(axis=1).astype(np.float64))
        correlations: NDArray[np.float64] = products / norms
        return correlations

    def are_alike(self, group: list[int], other: list[int]) -> bool:
        """Return whether each image of a group correlates with each of another one."""
        products = self.terms[group].astype(np.float32) @ self.terms[other].astype(np.float32).T
        norms = np.sqrt((self.norms[group][:, None] * self.norms[other]).astype(np.float64))
        return bool((products.astype(np.float64) / norms >= MIN_CORRELATION).all())


def group_near_duplicates(images: ImageArray) -> NearDuplicates:
    """Return the groups of images that show the same; what is found is kept beside the file of the pixels, where there is one.

    Logarithms of gray thumbnails of 32 px are compared by their cosine transforms without the terms of the light (up to order 2),
    so that its strength and direction and the contrast do not matter. Candidates are images whose hashes, the signs of the 64
    lowest terms, differ in at most `MAX_DISTANCE` bits; those that correlate by `MIN_CORRELATION` or more are alike. Of images
    below 16 px only equal ones are joined.

    Groups are joined from the most alike pair on, where each image of one is alike to each of the other (complete linkage): of
    three images in a chain whose ends differ, two are joined. All that a chain connects may be different objects, and so may all
    that one image between them is alike to.

    Args:
        images: (N, H, W, 3) uint8.

    Raises:
        UserInputError: If more than `MAX_PAIRS` pairs are alike.
    """
    found = recall(images, f"near-duplicates-{VERSION}", lambda: _search(images).to_bytes())
    return NearDuplicates.from_bytes(found, len(images))


def _search(images: ImageArray) -> NearDuplicates:
    digests = np.frombuffer(b"".join(measure_facts(images).digests), dtype=">u8").reshape(len(images), -1)
    # From here on, an image stands for all with its pixels.
    _, ids, contents = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    described = _describe(images, ids)
    # Smaller images have too few pixels: a sixth of the handwritten digits of 8 px would be joined to others.
    is_detailed = min(images.shape[1:3]) >= KEPT_SIDE
    alike = _find_pairs(described) if is_detailed else np.empty((0, 2), dtype=np.int64)
    owners = _link(described, alike)
    lowest = np.full(len(ids), len(images))
    np.minimum.at(lowest, owners, ids)
    groups = lowest[owners]
    with_first = np.stack([np.searchsorted(np.sort(ids), groups), np.arange(len(ids))], axis=1)
    with_first[:, 0] = np.argsort(ids)[with_first[:, 0]]
    pairs = np.concatenate([with_first[groups != ids], alike[owners[alike[:, 0]] != owners[alike[:, 1]]]])
    distances = np.bitwise_count(described.hashes[pairs[:, 0]] ^ described.hashes[pairs[:, 1]])
    rows = np.column_stack([np.sort(ids[pairs], axis=1), distances]).astype(np.int64)
    return NearDuplicates(groups=groups[contents.ravel()], pairs=rows[np.lexsort((rows[:, 1], rows[:, 0]))])


def _describe(images: ImageArray, ids: Numbers) -> _Descriptions:
    """Return the descriptions of images, in the order of `ids`."""
    ascending = np.argsort(ids)
    shown = read_images(images, ids[ascending])
    thumbnails = map_on_all_cores(_shrink, shown, len(ids), "looking for near-duplicates")
    hashes, terms = np.empty(len(ids), np.uint64), np.empty((len(ids), KEPT_SIDE**2), np.int8)
    for start in range(0, len(ids), CHUNK_THUMBNAILS):
        places = ascending[start : start + CHUNK_THUMBNAILS]
        hashes[places], terms[places] = _transform(np.stack(list(islice(thumbnails, len(places)))))
    norms = np.einsum("ij,ij->i", terms, terms, dtype=np.int64)
    return _Descriptions(hashes=hashes, terms=terms, norms=norms)


def _shrink(_: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a gray square thumbnail of the content of an image."""
    gray = Image.fromarray(np.ascontiguousarray(cut_content(image))).convert("L")
    return np.asarray(gray.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR))


def _transform(thumbnails: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.int8]]:
    """Return the (B,) hashes and the (B, 256) terms of (B, 32, 32) thumbnails."""
    # Imported here, because it is slow and many commands read no images.
    from scipy.fft import dctn

    logs = np.log(np.arange(256) + DARK_LEVEL)[thumbnails]
    terms = dctn(logs, axes=(1, 2), norm="ortho")[:, :KEPT_SIDE, :KEPT_SIDE].reshape(len(thumbnails), -1)
    rows, columns = np.divmod(np.arange(KEPT_SIDE**2), KEPT_SIDE)
    terms[:, rows + columns <= LIGHT_ORDER] = 0
    terms[np.linalg.norm(terms, axis=1) < MIN_CONTRAST * THUMBNAIL_SIDE] = 0
    # Less than a millionth is nothing: otherwise terms that are 0 would have the sign of an error of rounding.
    terms = np.rint(terms * 2**20)
    order = np.lexsort((rows, rows + columns))
    hashed = order[(rows + columns)[order] > LIGHT_ORDER][:64]
    hashes = np.ascontiguousarray(np.packbits(terms[:, hashed] > 0, axis=1)).view(">u8")[:, 0].astype(np.uint64)
    largest = np.maximum(np.abs(terms).max(axis=1, keepdims=True), 1)
    return hashes, np.rint(terms * 127 / largest).astype(np.int8)


def _find_pairs(described: _Descriptions) -> Numbers:
    """Return the (P, 2) pairs that are alike, the smaller position first."""
    shown = np.flatnonzero(described.norms)
    hashes = described.hashes[shown]

    counts: list[int] = []

    def compare(_: int, start: int) -> Numbers:
        """Return the pairs of a chunk of rows with all that follow."""
        found = [np.empty((0, 2), dtype=np.int64)]
        for left in range(start, len(shown), CHUNK_COLUMNS):
            bits = hashes[start : start + CHUNK_ROWS, None] ^ hashes[None, left : left + CHUNK_COLUMNS]
            # Of flat arrays, since NumPy's `nonzero` of two axes takes twice the time of all the rest.
            rows, columns = np.divmod(np.flatnonzero(np.bitwise_count(bits) <= MAX_DISTANCE), bits.shape[1])
            pairs = np.stack([start + rows, left + columns], axis=1)
            pairs = shown[pairs[pairs[:, 0] < pairs[:, 1]]]
            found.append(pairs[described.correlate(pairs) >= MIN_CORRELATION])
            counts.append(len(found[-1]))
            if counts[-1] and sum(counts) > MAX_PAIRS:
                raise UserInputError(
                    f"more than {MAX_PAIRS:,} pairs of images look alike; name what such images have in common as data.group, "
                    'and set data.near_duplicates = "ignore"'
                )
        return np.concatenate(found)

    starts = range(0, len(shown), CHUNK_ROWS)
    found = list(map_on_all_cores(compare, starts, len(starts), "comparing images"))
    return np.concatenate([np.empty((0, 2), dtype=np.int64), *found])


def _link(described: _Descriptions, alike: Numbers) -> Numbers:
    """Return (M,) the group of each image: complete linkage, from the most alike pair on."""
    owners = list(range(len(described.norms)))
    members: dict[int, list[int]] = {}
    apart: set[tuple[int, int]] = set()
    order = np.lexsort((alike[:, 1], alike[:, 0], -described.correlate(alike)))
    for first, second in zip(*alike[order].T.tolist(), strict=True):
        kept, joined = sorted((owners[first], owners[second]))
        if kept == joined or (kept, joined) in apart:
            continue
        group, other = members.get(kept, [kept]), members.get(joined, [joined])
        if described.are_alike(group, other):
            members[kept] = group + other
            for image in other:
                owners[image] = kept
        else:
            apart.add((kept, joined))
    return np.array(owners, dtype=np.int64)
