"""Decoding of a set of files into one array of one shape, and what it gives besides the pixels."""

import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError
from trainables.data.all_cores import map_on_all_cores
from trainables.data.decoding.encoded_files import BadImageError, EncodedImages, UnreadImageError
from trainables.data.decoding.image_decoder import ImageHeader, Shape, decode_image, open_header
from trainables.data.image_array import cut_content
from trainables.data.image_memory import ImageMemoryBudget, ImageSpaceError
from trainables.data.images import Aspect
from trainables.data.pixel_files import ImageFacts, hash_bytes, keep_facts, name_pixels, open_writer

# The stored side is to the image size of training as 256 is to 224 in torchvision's references.
STORED_SIDE_RATIO = 256 / 224
NUM_IMAGES_PER_SYNC = 1000
# Seconds before another try to read files that could not be read.
RETRY_WAITS = (0.5, 2.0, 8.0)

Reader = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """How to decode a set.

    Attributes:
        native_size: stored side in pixels, if it is given.
        image_size: side of the images that models are trained on, from which the stored side follows otherwise.
            It is needed for images of different sizes.
        aspect: "crop" applies the orientation in EXIF, resizes the shorter side and crops the center, as torchvision's `Resize`
            (bicubic) and `CenterCrop` do; "pad" applies it, resizes the longer side (bicubic) and pads the shorter one to a
            square (`trainables.data.padding`); "squash" resizes both sides (bicubic) and ignores EXIF.
        on_bad_image: "skip" leaves out images that cannot be used and records them.
    """

    native_size: int | None
    image_size: int | None
    aspect: Aspect
    on_bad_image: Literal["refuse", "skip"] = "refuse"

    @property
    def stored_side(self) -> int | None:
        """Side at which images of different sizes are stored; None if nothing says it."""
        if self.native_size is None and self.image_size is not None:
            return round(self.image_size * STORED_SIDE_RATIO)
        return self.native_size


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedSet:
    """What decoding the files of a set gives besides the pixels.

    Attributes:
        pixels: name of the pixels' file.
        shape: (M, H, W, 3).
        sizes: (M, 2) int32, width and height before resizing.
        kinds: number of images by kind.
        bad: position and reason of each file that could not be used.
    """

    pixels: str
    shape: tuple[int, ...]
    sizes: NDArray[np.int32]
    kinds: dict[str, int]
    bad: tuple[tuple[int, str], ...]

    def to_bytes(self) -> bytes:
        """Return JSON."""
        return json.dumps(asdict(self) | {"sizes": self.sizes.tolist()}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "DecodedSet":
        """Return the set that `to_bytes` wrote."""
        values: dict[str, Any] = json.loads(data)
        values["sizes"] = np.array(values["sizes"], dtype=np.int32).reshape(-1, 2)
        values["shape"] = tuple(values["shape"])
        values["bad"] = tuple((position, reason) for position, reason in values["bad"])
        return cls(**values)


class _SizesDifferError(Exception):
    """Images that were to be stored as they are have different sizes."""


@dataclass(frozen=True, slots=True)
class _File:
    """What decoding one file gave: all but `digest` are those of a good image, or `reason` says why it is none."""

    digest: bytes
    header: ImageHeader | None = None
    lowest: int = 0
    highest: int = 0
    pixel_digest: bytes = b""
    reason: str = ""
    was_read: bool = True


def decode_set(
    encoded: EncodedImages, request: DecodeRequest, memory_budget: ImageMemoryBudget, *, keep: bool
) -> tuple[DecodedSet, NDArray[np.uint8], list[bytes]]:
    """Return the decoded set, its images, and the digests of the files.

    Of images that are streamed, the facts alone are kept, and the returned array is empty.

    Args:
        encoded: N files.
        request: how to decode them.
        memory_budget: allocates the images.
        keep: whether to put the images into a file even if memory could hold them.

    Raises:
        UserInputError: if there are no files, sizes differ and nothing says the stored side, or the disk lacks space.
    """
    if not encoded.names:
        raise UserInputError("there is no image to decode")
    with warnings.catch_warnings():
        # About odd files; here, since threads share the filters.
        warnings.simplefilter("ignore")
        first = _decode_first(encoded, request)
        shape, size = _choose_shape(first, request)
        side = request.stored_side
        try:
            return _decode_all(encoded, shape, size, memory_budget, keep=keep)
        except ImageSpaceError:
            # Space is taken before a second image is decoded, and the first one may be a large square.
            if shape.side is not None or side is None or not _sizes_differ(encoded, request.aspect, size):
                raise
            return _decode_all(encoded, *_store_at(side, request), memory_budget, keep=keep)
        except _SizesDifferError as error:
            if side is None:
                raise UserInputError(f"all images must have the same size, but {error}") from None
            return _decode_all(encoded, *_store_at(side, request), memory_budget, keep=keep)


def _decode_first(encoded: EncodedImages, request: DecodeRequest) -> NDArray[np.uint8] | None:
    """Return the first image that can be decoded, as it is; None if `native_size` makes that unnecessary, or there is none."""
    if request.native_size is not None:
        return None
    for read in encoded.readers():
        try:
            return decode_image(read(), Shape(None, request.aspect))[0]
        except BadImageError:
            continue
    return None


def _choose_shape(first: NDArray[np.uint8] | None, request: DecodeRequest) -> tuple[Shape, tuple[int, int]]:
    """Return how images are stored, and their height and width, given the first one."""
    side = request.stored_side
    if request.native_size is None and first is not None:
        height, width = first.shape[:2]
        if height == width or request.aspect == "squash":
            return Shape(None, request.aspect), (height, width)
        if side is None:
            raise UserInputError(
                f"images that are not square ({width}x{height} px) need a size; set data.options.native_size"
            )
    return _store_at(side or 1, request)  # 1 px where no image can be decoded: all of them are named.


def _store_at(side: int, request: DecodeRequest) -> tuple[Shape, tuple[int, int]]:
    return Shape(side, request.aspect), (side, side)


def _sizes_differ(encoded: EncodedImages, aspect: Aspect, size: tuple[int, int]) -> bool:
    """Return whether a sound image has not the height and width `size`; its pixels are decoded if its header says so."""
    for read in encoded.readers():
        try:
            data = read()
            header = open_header(data, aspect)
            if (header.height, header.width) != size:
                decode_image(data, Shape(None, aspect))
                return True
        except BadImageError:
            continue
    return False


def find_stored_shape(request: DecodeRequest, decoded: DecodedSet) -> Shape:
    """Return how the images of a decoded set were brought to their shape."""
    are_as_they_were = bool((decoded.sizes == (decoded.shape[2], decoded.shape[1])).all())
    is_resized = request.native_size is not None or not are_as_they_were
    return Shape(decoded.shape[1] if is_resized else None, request.aspect)


def _decode_all(
    encoded: EncodedImages, shape: Shape, size: tuple[int, int], memory_budget: ImageMemoryBudget, *, keep: bool
) -> tuple[DecodedSet, NDArray[np.uint8], list[bytes]]:
    number = 0 if memory_budget.streams else len(encoded.names)
    stack = memory_budget.allocate(number, *size, keep=keep and number > 0)
    try:
        files = []
        with open_writer(stack) as writer:

            def put(position: int, pixels: NDArray[np.uint8]) -> None:
                if number:
                    writer.put(position, pixels)

            def decode(position: int, read: Reader) -> _File:
                return _decode_one(read, shape, size, lambda pixels: put(position, pixels))

            for file in map_on_all_cores(decode, encoded.readers(), len(encoded.names), "decoding images"):
                files.append(file)
                if len(files) % NUM_IMAGES_PER_SYNC == 0:
                    writer.sync_early()
            _try_again(encoded, files, decode)
        if len(files) != len(encoded.names):
            raise UserInputError(f"{len(encoded.names)} images were announced, but {len(files)} were read")
        good = [position for position, file in enumerate(files) if not file.reason]
        for target, position in enumerate(good if number else ()):
            if target != position:
                stack[target] = stack[position]
        return _summarize(files, good, stack, memory_budget)
    except BaseException:
        memory_budget.discard(stack)
        raise


def _try_again(encoded: EncodedImages, files: list[_File], decode: Callable[[int, Reader], _File]) -> None:
    """Decode the files again that could not be read, a few times: a server that did not answer may do so a moment later."""
    for wait in RETRY_WAITS:
        unread = {position for position, file in enumerate(files) if not file.was_read}
        if not unread:
            return
        time.sleep(wait)
        for position, read in enumerate(encoded.readers()):
            if position in unread:
                files[position] = decode(position, read)


def _decode_one(read: Reader, shape: Shape, size: tuple[int, ...], put: Callable[[NDArray[np.uint8]], None]) -> _File:
    """Decode one file and put its pixels where they belong; raise _SizesDifferError if their height and width are not `size`."""
    data = b""
    try:
        data = read()
        pixels, header = decode_image(data, shape)
    except BadImageError as error:
        was_read = not isinstance(error, UnreadImageError)
        return _File(digest=hash_bytes(data), reason=str(error), was_read=was_read)
    if pixels.shape[:2] != size:
        (height, width), (other_height, other_width) = pixels.shape[:2], size
        raise _SizesDifferError(
            f"there are {other_width}x{other_height} and {width}x{height} px; set data.options.native_size"
        )
    pixels = np.ascontiguousarray(pixels)
    put(pixels)
    content = cut_content(pixels)
    return _File(hash_bytes(data), header, int(content.min()), int(content.max()), hash_bytes(pixels.data))


def _summarize(
    files: Sequence[_File], good: Sequence[int], stack: NDArray[np.uint8], memory_budget: ImageMemoryBudget
) -> tuple[DecodedSet, NDArray[np.uint8], list[bytes]]:
    headers = [header for i in good if (header := files[i].header) is not None]
    sound = [files[i] for i in good]
    lowest, highest = np.array([(f.lowest, f.highest) for f in sound], dtype=np.uint8).reshape(-1, 2).T
    facts = ImageFacts(lowest, highest, tuple(f.pixel_digest for f in sound))
    shape = (len(good), *stack.shape[1:])
    images = stack
    if memory_budget.streams:
        keep_facts(memory_budget.folder / name_pixels(shape, facts), facts)
    elif good:
        images = memory_budget.finalize(stack, facts)
    else:
        memory_budget.discard(stack)
        images = np.empty(shape, dtype=np.uint8)
    decoded = DecodedSet(
        pixels=name_pixels(shape, facts),
        shape=shape,
        sizes=np.array([(h.width, h.height) for h in headers], dtype=np.int32).reshape(-1, 2),
        kinds=dict(Counter(kind for header in headers for kind in header.kinds).most_common()),
        bad=tuple((i, file.reason) for i, file in enumerate(files) if file.reason),
    )
    return decoded, images, [file.digest for file in files]


def hash_files(encoded: EncodedImages) -> list[bytes]:
    """Return the digest of each file's bytes."""

    def digest(_: int, read: Reader) -> bytes:
        try:
            return hash_bytes(read())
        except BadImageError:
            return hash_bytes(b"")

    return list(map_on_all_cores(digest, encoded.readers(), len(encoded.names), "looking for decoded images"))
