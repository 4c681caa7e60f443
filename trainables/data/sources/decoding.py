"""From encoded bytes to one uint8 array: every image decoded, checked and named if it cannot be used."""

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
    """One image file's bytes and the words that name it in an error ("cats/7.png", "train.parquet row 12")."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _First:
    """The image that all others must be like."""

    name: str
    mode: str
    size: tuple[int, int]


def allocate_images(num_images: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return an uninitialised (N, H, W, 3) uint8 array; raise UserInputError if the machine has no room for it."""
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
    """Return the images as one array, in their order.

    A set that is grayscale throughout is replicated into three equal channels.

    Args:
        encoded: `num_images` encoded images.
        num_images: N.
        native_size: side in pixels to which every image is resized (Pillow's bicubic, antialiased, aspect not kept);
            None demands one size.
        memory_budget: what the images may take in memory; if they need more, they are mapped from a file.

    Returns:
        (N, H, W, 3) uint8 RGB.

    Raises:
        UserInputError: naming the first image that is undecodable, of a mode other than RGB or grayscale, of another
            mode or another size than the first, or larger than `MAX_IMAGE_PIXELS`.
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
    """Return each image's pixels, (H, W, 3) or (H, W, 1), with (H, W), which is that of the first."""
    first: _First | None = None
    for item in encoded:
        image = decode_image(item)
        if native_size is not None and image.size != (native_size, native_size):
            image = image.resize((native_size, native_size), Image.Resampling.BICUBIC)
        first = first or _First(name=item.name, mode=image.mode, size=image.size)
        _check_like_first(item.name, image, first)
        pixels = np.asarray(image)
        yield (pixels if image.mode == "RGB" else pixels[:, :, None]), (image.height, image.width)


def decode_image(item: EncodedImage) -> Image.Image:
    """Return the decoded image, mode RGB or L; raise UserInputError naming it if it cannot be used."""
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


def _check_like_first(name: str, image: Image.Image, first: _First) -> None:
    if image.mode != first.mode:
        gray, colour = (name, first.name) if image.mode == "L" else (first.name, name)
        raise UserInputError(f"{gray} is grayscale in an RGB set ({colour} is RGB); convert it to RGB or remove it")
    if image.size != first.size:
        width, height = first.size
        raise UserInputError(
            f"all images must have one size, but {first.name} has {width}x{height} px and {name} "
            f"{image.width}x{image.height}; set data.options.native_size to resize every image"
        )
