"""Sizes and kinds of image files, without decoding their pixels."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainables.data.all_cores import map_on_all_cores
from trainables.data.decoding.encoded_files import BadImageError, NamedFile
from trainables.data.decoding.image_decoder import FORMATS, ImageHeader, check_frame, explain_error, read_header
from trainables.data.images import SkippedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """What the headers of N files say.

    Attributes:
        sizes: (N, 2) int32, width and height in pixels after the rotation that EXIF asks for; 0 for a file that cannot be used.
        kinds: Kinds of each file, such as ("CMYK", "EXIF-rotated"); empty for a file that cannot be used.
        problems: The files that cannot be used, as far as headers tell: damaged pixels are found when they are decoded.
    """

    sizes: NDArray[np.int32]
    kinds: tuple[tuple[str, ...], ...]
    problems: tuple[SkippedFile, ...]


def read_headers(files: Sequence[NamedFile]) -> Headers:
    """Return the headers of N files, read in threads. Pillow looks for EXIF of PNG behind the pixels only when it decodes."""

    def read(_: int, file: NamedFile) -> ImageHeader | str:
        try:
            return _read_one(file)
        except BadImageError as error:
            return str(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(map_on_all_cores(read, files, len(files), "reading headers"))
    sizes = [(0, 0) if isinstance(header, str) else (header.width, header.height) for header in found]
    return Headers(
        sizes=np.array(sizes, dtype=np.int32).reshape(-1, 2),
        kinds=tuple(() if isinstance(header, str) else header.kinds for header in found),
        problems=tuple(
            SkippedFile(name=file.name, reason=header)
            for file, header in zip(files, found, strict=True)
            if isinstance(header, str)
        ),
    )


def _read_one(file: NamedFile) -> ImageHeader:
    try:
        with file.path.open("rb") as stream:
            if not stream.read(1):
                raise BadImageError("empty (0 bytes)")
            stream.seek(0)
            with Image.open(stream, formats=FORMATS) as image:
                check_frame(image)
                return read_header(image, "crop")
    except BadImageError:
        raise
    except OSError as error:
        if error.strerror is not None:
            raise BadImageError(f"cannot be read ({error.strerror}); check its permissions") from None
        raise explain_error(error) from None
    except Exception as error:
        raise explain_error(error) from None
