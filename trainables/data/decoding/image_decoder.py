"""One image file: its size and kind from the header, and its pixels as torchvision's ImageFolder decodes them."""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from search_spaces.errors import first_line
from trainables.data.all_cores import map_on_all_cores
from trainables.data.decoding.encoded_files import CANNOT_BE_READ, BadImageError, NamedFile, UnreadImageError
from trainables.data.images import Aspect
from trainables.data.padding import pad_to_square

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
MAX_IMAGE_PIXELS = 64_000_000

KIND_OF_MODE: Mapping[str, str] = MappingProxyType(
    {
        "RGB": "RGB",
        "L": "grayscale",
        "1": "black and white",
        "P": "palette",
        "RGBA": "RGBA",
        "LA": "grayscale with transparency",
        "PA": "palette with transparency",
        "CMYK": "CMYK",
        **dict.fromkeys(("I", "I;16", "I;16B", "I;16L"), "16-bit"),
    }
)
ROTATED = "EXIF-rotated"
ROTATION_IGNORED = "EXIF rotation ignored"


@dataclass(frozen=True, slots=True)
class Shape:
    """How images are brought to one shape.

    Attributes:
        side: side in pixels; None leaves images as they are.
        aspect: "crop" applies the orientation in EXIF, resizes the shorter side to `side` and crops the center; "pad" applies
            it, resizes the longer side and pads the shorter one on both sides alike; "squash" ignores EXIF and resizes both
            sides.
    """

    side: int | None
    aspect: Aspect


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What is known of an image without its pixels.

    Attributes:
        width: in pixels, after the rotation that EXIF asks for, if that is applied.
        height: in pixels, likewise.
        kinds: such as ("CMYK", "EXIF-rotated").
    """

    width: int
    height: int
    kinds: tuple[str, ...]


def decode_image(data: bytes, shape: Shape) -> tuple[NDArray[np.uint8], ImageHeader]:
    """Return the pixels, (H, W, 3) uint8 RGB, and the header.

    Modes become RGB by Pillow's `convert("RGB")`, as in torchvision's loader: transparency is dropped, not blended. Pillow would
    clip 16-bit grayscale at 255; it is divided by 257 instead, which maps [0, 65535] to [0, 255].

    Raises:
        BadImageError: if the image is empty, damaged, too large, of an unknown format or mode, or has several frames.
    """
    if not data:
        raise BadImageError("empty (0 bytes)")
    with _explaining():
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        check_frame(image)
        header = read_header(image, shape.aspect)
        image.load()
        if image.format == "PNG":  # EXIF may stand behind the pixels.
            header = read_header(image, shape.aspect)
        if shape.aspect != "squash" and ROTATED in header.kinds:
            ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(_resize(_convert(image), shape)), header


def open_header(data: bytes, aspect: Aspect) -> ImageHeader:
    """Return the header of an encoded image, without decoding its pixels; raise BadImageError if it has none."""
    with _explaining(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return read_header(image, aspect)


def check_frame(image: Image.Image) -> None:
    """Raise BadImageError if an image that is opened, but not loaded, is too large or has several frames."""
    if image.width * image.height > MAX_IMAGE_PIXELS:
        raise BadImageError(_TOO_LARGE)
    # A photograph of format MPO carries its preview as a second frame.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise BadImageError("several frames; save one of them as an image")


def read_header(image: Image.Image, aspect: Aspect) -> ImageHeader:
    """Return the header of an opened image; TIFF must not be loaded yet."""
    kind = KIND_OF_MODE.get(image.mode, image.mode)
    if image.mode == "P" and "transparency" in image.info:
        kind = KIND_OF_MODE["PA"]
    width, height = image.size
    orientation = _read_orientation(image)
    # Pillow itself rotates TIFF.
    is_applied = aspect != "squash" or image.format == "TIFF"
    if aspect != "squash" and image.format != "TIFF" and orientation >= 5:
        width, height = height, width
    if orientation == 1:
        return ImageHeader(width, height, (kind,))
    return ImageHeader(width, height, (kind, ROTATED if is_applied else ROTATION_IGNORED))


@contextmanager
def _explaining() -> Iterator[None]:
    """Raise BadImageError for what Pillow raises: almost any class on hostile bytes, such as SyntaxError or struct.error."""
    try:
        yield
    except BadImageError:
        raise
    except MemoryError:
        raise UnreadImageError(f"{CANNOT_BE_READ} (no memory was left)") from None
    except Image.DecompressionBombError:
        raise BadImageError(_TOO_LARGE) from None
    except UnidentifiedImageError:
        raise BadImageError(f"cannot be decoded (not one of {', '.join(FORMATS)})") from None
    except Exception as error:
        if isinstance(error, OSError) and error.strerror is not None:
            raise BadImageError(f"{CANNOT_BE_READ} ({error.strerror}); check its permissions") from None
        raise BadImageError(f"cannot be decoded ({first_line(error)})") from None


_TOO_LARGE = f"more than {MAX_IMAGE_PIXELS / 1e6:.0f} megapixels"


def _read_orientation(image: Image.Image) -> int:
    """Return the orientation in EXIF, 1 to 8; 1 if there is none, or none that can be read."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the whole image to look for EXIF behind the pixels.
    # Damaged EXIF raises almost any class, too; the pixels are sound all the same.
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return orientation if orientation in range(1, 9) else 1


def _convert(image: Image.Image) -> Image.Image:
    """Return the image in mode RGB, or in mode L, of which all three channels are equal."""
    if image.mode in {"RGB", "L"}:
        return image
    if KIND_OF_MODE.get(image.mode) == "16-bit":
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise BadImageError(f"values from {low} to {high}, beyond 16 bits; save it with 8 bits per channel")
        return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise BadImageError("floating-point pixels; save it with 8 bits per channel")
    return image.convert("RGB")


def _resize(image: Image.Image, shape: Shape) -> Image.Image:
    """Return the image in RGB and in its shape. Pillow's bicubic, antialiased; a gray image is resized as one channel."""
    side = shape.side
    if side is not None and shape.aspect == "squash" and image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    elif side is not None and shape.aspect == "crop":
        if side * side * max(image.size) > MAX_IMAGE_PIXELS * min(image.size):
            raise BadImageError(f"{image.width}x{image.height} px are too long for their width")
        image = transforms.resize(image, [side], interpolation=InterpolationMode.BICUBIC)
        image = transforms.center_crop(image, [side, side])
    elif side is not None and shape.aspect == "pad":
        if side * min(image.size) < max(image.size):
            raise BadImageError(f"{image.width}x{image.height} px are too long for their width")
        image = pad_to_square(ImageOps.contain(image, (side, side)).convert("RGB"), side)
    return image if image.mode == "RGB" else image.convert("RGB")


def read_headers(files: Sequence[NamedFile]) -> list[ImageHeader | str]:
    """Return the header of each file, or why it cannot be used, as far as headers tell: they are read in threads.

    Damaged pixels are found when they are decoded. Pillow looks for EXIF of PNG behind the pixels only then, too.
    """

    def read(_: int, file: NamedFile) -> ImageHeader | str:
        try:
            with _explaining(), file.path.open("rb") as stream:
                if not stream.read(1):
                    raise BadImageError("empty (0 bytes)")
                stream.seek(0)
                with Image.open(stream, formats=FORMATS) as image:
                    check_frame(image)
                    return read_header(image, "crop")
        except BadImageError as error:
            return str(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(map_on_all_cores(read, files, len(files), "reading headers"))
