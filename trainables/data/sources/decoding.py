"""Decoding of image files into one uint8 array, with an error that names the first file that cannot be used."""

import io
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from search_spaces.errors import UserInputError
from trainables.data.image_memory import ImageMemoryBudget, physical_memory

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
MAX_IMAGE_PIXELS = 64_000_000
CHANNELS = {"RGB": 3, "L": 1}


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bytes of an image file and its name in errors ("cats/7.png", "train.parquet row 12")."""

    name: str
    data: bytes


def allocate_images(num_images: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return an uninitialized (N, H, W, 3) uint8 array; raise UserInputError if it exceeds half of the machine's memory."""
    needed = num_images * height * width * 3
    memory = physical_memory()
    if needed > memory // 2:
        raise UserInputError(
            f"{num_images} images of {width}x{height} px take {needed / 1e9:.1f} GB, more than half of this machine's "
            f"{memory / 1e9:.1f} GB; lower data.num_images or the image size (data.options.native_size)"
        )
    return np.empty((num_images, height, width, 3), dtype=np.uint8)


def decode_images(
    encoded: Iterable[EncodedImage], num_images: int, native_size: int | None, memory_budget: ImageMemoryBudget
) -> NDArray[np.uint8]:
    """Return the images as one array, in their order. A grayscale set is replicated into three equal channels.

    Args:
        encoded: `num_images` encoded images.
        num_images: N.
        native_size: Side in pixels to which all images are resized (Pillow's bicubic, antialiased, without preserving the
            aspect ratio); None requires images of equal size.
        memory_budget: Memory that the images may take; if they need more, they are mapped from a file.

    Returns:
        (N, H, W, 3) uint8 RGB.

    Raises:
        UserInputError: Naming the first image that cannot be decoded, is neither RGB nor grayscale, differs from the first
            image in mode or size, or has more than `MAX_IMAGE_PIXELS`.
    """
    stack: NDArray[np.uint8] | None = None
    try:
        for position, (pixels, shape) in enumerate(_decode_alike(encoded, native_size)):
            if stack is None:
                stack = memory_budget.allocate(num_images, *shape)
            stack[position] = pixels
    except BaseException:
        memory_budget.discard(stack)
        raise
    if stack is None:
        raise UserInputError("there is no image to decode")
    return memory_budget.finalize(stack)


def _decode_alike(
    encoded: Iterable[EncodedImage], native_size: int | None
) -> Iterator[tuple[NDArray[np.uint8], tuple[int, int]]]:
    """Yield the pixels of each image, (H, W, 3) or (H, W, 1), and (H, W), which equals that of the first."""
    first: tuple[str, Image.Image] | None = None
    for item in encoded:
        image = decode_image(item)
        if native_size is not None and image.size != (native_size, native_size):
            image = image.resize((native_size, native_size), Image.Resampling.BICUBIC)
        first = first or (item.name, image)
        _check_like_first(item.name, image, *first)
        pixels = np.asarray(image)
        yield (pixels if image.mode == "RGB" else pixels[:, :, None]), (image.height, image.width)


def decode_image(item: EncodedImage) -> Image.Image:
    """Return the decoded image, of mode RGB or L; raise UserInputError naming it if it cannot be used."""
    if not item.data:
        raise UserInputError(f"{item.name} is empty (0 bytes); replace or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(item.data), formats=FORMATS)
            num_pixels = image.width * image.height
            if num_pixels <= MAX_IMAGE_PIXELS:
                image.load()
            has_frames = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserInputError(_too_large(item.name)) from None
    # Pillow's decoders raise almost any class on hostile bytes: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"not one of {', '.join(FORMATS)}"
        raise UserInputError(f"{item.name} cannot be decoded ({reason}); replace or remove it") from None
    if num_pixels > MAX_IMAGE_PIXELS:
        raise UserInputError(_too_large(item.name))
    if has_frames:
        raise UserInputError(f"{item.name} holds several frames; save one of them as an image")
    if image.mode not in CHANNELS:
        raise UserInputError(
            f"images must be 8-bit RGB or grayscale, but {item.name} has Pillow's mode {image.mode!r}; convert it to RGB"
        )
    return image


def _too_large(name: str) -> str:
    return (
        f"an image may have at most {MAX_IMAGE_PIXELS / 1e6:.0f} megapixels, but {name} has more; replace or remove it"
    )


def _check_like_first(name: str, image: Image.Image, first_name: str, first: Image.Image) -> None:
    """Raise UserInputError unless the image has the mode and the size of the first one."""
    if image.mode != first.mode:
        gray, color = (name, first_name) if image.mode == "L" else (first_name, name)
        raise UserInputError(f"{gray} is grayscale in an RGB set ({color} is RGB); convert it to RGB or remove it")
    if image.size != first.size:
        raise UserInputError(
            f"all images must have the same size, but {first_name} has {first.width}x{first.height} px and {name} "
            f"{image.width}x{image.height}; set data.options.native_size to resize every image"
        )
