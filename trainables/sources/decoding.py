"""Decoding one image, with every way in which it can be bad turned into an error that names it."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search_spaces.errors import UserInputError

MAX_PIXELS = 64 * 1024 * 1024


def decode_image(data: bytes, where: str, native_size: int | None = None) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 RGB.

    Args:
        data: an encoded image.
        where: the image's name in errors.
        native_size: resize to this side (bicubic) in pixels; None keeps the size.

    Raises:
        UserInputError: naming the image, if it cannot be decoded, is no RGB image, or has over 64 million pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserInputError(
                        f"{where} has {image.width}x{image.height} pixels; images have at most {MAX_PIXELS}"
                    )
                if image.mode in {"L", "1", "LA", "I", "I;16", "F"}:
                    raise UserInputError(
                        f"{where} is grayscale (mode {image.mode}) in an RGB set; convert it to RGB or remove it"
                    )
                if image.mode != "RGB":
                    raise UserInputError(
                        f"{where} has mode {image.mode}, but images must be RGB; convert it or remove it"
                    )
                image.load()
                size = image.size if native_size is None else (native_size, native_size)
                resized = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
                return np.asarray(resized, dtype=np.uint8)
    except UserInputError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds; each means that this image cannot be read
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserInputError(f"{where} cannot be decoded: {reason}; replace it or remove it") from None
