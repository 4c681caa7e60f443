"""From encoded bytes to one uint8 array: every image decoded, checked and named if it cannot be used."""

import io
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from search_spaces.errors import UserInputError

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
MAX_IMAGE_PIXELS = 64_000_000
CHANNELS = {"RGB": 3, "L": 1}


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """One image file's bytes and the words that name it in an error ("cats/7.png", "train.parquet row 12")."""

    name: str
    data: bytes


def allocate_images(num_images: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return an uninitialised (N, H, W, 3) uint8 array; raise UserInputError if the machine has no room for it."""
    needed = num_images * height * width * 3
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory // 2:
        raise UserInputError(
            f"{num_images} images of {width}x{height} px take {needed / 1e9:.1f} GB, more than half of this machine's "
            f"{memory / 1e9:.1f} GB; lower data.num_images or the image size (data.options.native_size)"
        )
    return np.empty((num_images, height, width, 3), dtype=np.uint8)


def decode_images(encoded: Iterable[EncodedImage], num_images: int, native_size: int | None) -> NDArray[np.uint8]:
    """Return the images as one array, in their order.

    A set that is grayscale throughout is replicated into three equal channels.

    Args:
        encoded: `num_images` encoded images.
        num_images: N.
        native_size: side in pixels to which every image is resized (Pillow's bicubic, antialiased, aspect not kept);
            None demands one size.

    Returns:
        (N, H, W, 3) uint8 RGB.

    Raises:
        UserInputError: naming the first image that is undecodable, of a mode other than RGB or grayscale, of another
            mode or another size than the first, or larger than `MAX_IMAGE_PIXELS`.
    """
    stack: NDArray[np.uint8] | None = None
    first, first_mode = "", ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for position, item in enumerate(encoded):
            image = decode_image(item)
            if native_size is not None and image.size != (native_size, native_size):
                image = image.resize((native_size, native_size), Image.Resampling.BICUBIC)
            pixels = np.asarray(image)
            if stack is None:
                stack = allocate_images(num_images, *pixels.shape[:2])
                first, first_mode = item.name, image.mode
            _check_like_first(item.name, image, first, first_mode, stack)
            stack[position] = pixels if image.mode == "RGB" else pixels[:, :, None]
    if stack is None:
        raise UserInputError("there is no image to decode")
    return stack


def decode_image(item: EncodedImage) -> Image.Image:
    """Return the decoded image, mode RGB or L; raise UserInputError naming it if it cannot be used."""
    if not item.data:
        raise UserInputError(f"{item.name} is empty (0 bytes); replace or remove it")
    try:
        image = Image.open(io.BytesIO(item.data), formats=FORMATS)
        num_pixels = image.width * image.height
        if num_pixels <= MAX_IMAGE_PIXELS:
            image.load()
        has_frames = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserInputError(_too_large(item.name)) from None
    # Pillow's decoders raise nearly any class on hostile bytes: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"not one of {', '.join(FORMATS)}"
        raise UserInputError(f"{item.name} cannot be decoded ({reason}); replace or remove it") from None
    if num_pixels > MAX_IMAGE_PIXELS:
        raise UserInputError(_too_large(item.name))
    if has_frames:
        raise UserInputError(f"{item.name} holds several frames; save the one that is meant")
    if image.mode not in CHANNELS:
        raise UserInputError(
            f"images must be 8-bit RGB or grayscale, but {item.name} has Pillow's mode {image.mode!r}; convert it to RGB"
        )
    return image


def _too_large(name: str) -> str:
    return (
        f"an image may have {MAX_IMAGE_PIXELS / 1e6:.0f} megapixels at most, but {name} has more; replace or remove it"
    )


def _check_like_first(name: str, image: Image.Image, first: str, first_mode: str, stack: NDArray[np.uint8]) -> None:
    if image.mode != first_mode:
        gray, colour = (name, first) if image.mode == "L" else (first, name)
        raise UserInputError(f"{gray} is grayscale in an RGB set ({colour} is RGB); convert it to RGB or remove it")
    height, width = stack.shape[1:3]
    if image.size != (width, height):
        raise UserInputError(
            f"all images must have one size, but {first} has {width}x{height} px and {name} {image.width}x{image.height}; "
            "set data.options.native_size to resize every image"
        )
