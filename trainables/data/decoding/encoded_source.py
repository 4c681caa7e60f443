"""`EncodedSource`: decodes single images of a set, in any process of the machine."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError
from trainables.data.decoding.encoded_files import BadImageError, ImageSpans
from trainables.data.decoding.image_decoder import Shape, decode_image
from trainables.data.pixel_files import hash_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedSource:
    """What decodes the images of a set one by one; any process of the machine can have it.

    Attributes:
        spans: Where the N encoded images are.
        stored: How they are brought to one shape.
        side: (H, W) of the decoded images.
        digests: (N, 16) uint8, digest of each image's pixels.
    """

    spans: ImageSpans
    stored: Shape
    side: tuple[int, int]
    digests: NDArray[np.uint8]

    def decode(self, position: int) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 pixels of an image.

        Raises:
            BadImageError: If it cannot be decoded, or its pixels are not those that the study started with.
        """
        pixels, _ = decode_image(self.spans.read(position), self.stored)
        pixels = np.ascontiguousarray(pixels)
        if hash_bytes(pixels.data) != self.digests[position].tobytes():
            raise BadImageError("has other pixels than when the study started")
        return pixels

    def decode_all(self, positions: Sequence[int]) -> NDArray[np.uint8]:
        """Return (M, H, W, 3) uint8, decoded by this thread.

        Raises:
            StreamError: For the first image that cannot be used.
        """
        images = np.empty((len(positions), *self.side, 3), dtype=np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for place, position in enumerate(positions):
                self.decode_into(int(position), images[place])
        return images

    def decode_into(self, position: int, image: NDArray[np.uint8]) -> None:
        """Decode an image into a (H, W, 3) array; raise StreamError if it cannot be used."""
        try:
            image[...] = self.decode(position)
        except BadImageError as error:
            path = self.spans.paths[self.spans.files[position]]
            raise StreamError(f"image {position} of {path} {error}") from None


class StreamError(UserInputError):
    """An image that was sound when the study started cannot be read any more, or is another one."""

    def __init__(self, message: str) -> None:
        """Add what to do."""
        advice = "; leave the files of a study's images as they are while it runs"
        super().__init__(message if message.endswith(advice) else message + advice)
