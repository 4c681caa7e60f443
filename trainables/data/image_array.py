"""Images that are read by index: an array in memory or mapped from a file, or `LazyImages`, which make the pixels when asked."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray


class LazyImages(ABC):
    """(N, H, W, 3) uint8 images that are decoded when they are read; indexing by the first axis, as in an array, returns them.

    Attributes:
        shape: (N, H, W, 3).
        pixel_file: Where their pixels would be kept, named after their content; what is computed from them is kept beside it.
    """

    shape: tuple[int, ...]
    pixel_file: Path

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Type of a value."""
        return np.dtype(np.uint8)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the pixels would take."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        ids = np.arange(len(self))[key]
        return self.read(ids[None])[0] if ids.ndim == 0 else self.read(ids)

    @abstractmethod
    def read(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return (M, H, W, 3) uint8 images."""


ImageArray: TypeAlias = NDArray[np.uint8] | LazyImages

# Lazy images that are read at once: a few hundred MB of photographs.
CHUNK_IMAGES = 1024


def read_images(images: ImageArray, ids: Iterable[int] | NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Yield (H, W, 3) uint8 images one by one; lazy ones are read in chunks.

    Args:
        images: (N, H, W, 3) uint8.
        ids: Indices.
    """
    if isinstance(images, LazyImages):
        numbers = np.array(list(ids), dtype=np.int64)
        for first in range(0, len(numbers), CHUNK_IMAGES):
            yield from images.read(numbers[first : first + CHUNK_IMAGES])
    else:
        for number in ids:
            yield images[number]


# The color of what pads images to squares: 255 times the mean of ImageNet, rounded. It is one color for all images, so that
# padding says nothing of an image but its shape; it is next to 0 after the normalization, as the padding of convolutions is, and
# timm's `crop_mode = "border"` pads alike. The mean color of an image's own border would repeat its background where no swap of
# rings can remove it.
PAD_COLOR = (124, 116, 104)


def has_padding(images: NDArray[np.uint8]) -> bool:
    """Return whether one of (N, H, W, 3) images is padded: its first or last row or column has `PAD_COLOR` alone."""
    color = np.array(PAD_COLOR, dtype=np.uint8)
    # Corners first: an edge is looked at where they have the color.
    found = images[(images[:, (0, -1), (0, -1)] == color).all(axis=2).any(axis=1)]
    edges = (found[:, 0], found[:, -1], found[:, :, 0], found[:, :, -1])
    return any(bool((edge == color).all(axis=(1, 2)).any()) for edge in edges)


def cut_content(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the content of an (H, W, 3) image: without rows and columns at its borders that have `PAD_COLOR` alone."""
    if not has_padding(image[None]):
        return image
    is_content = (image != np.array(PAD_COLOR, dtype=np.uint8)).any(axis=2)
    rows, columns = (np.flatnonzero(is_content.any(axis=axis)) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else image
