"""Decoding of image files into one uint8 array: on all cores, once per content and machine, one message for all bad files.

Decoded sets are found again by the state of their files, and where that changed by the files' content. An entry is a small file
beside the pixels (`trainables.data.pixel_files`) in the image folder. Whatever is damaged is not used.
"""

import hashlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import compress

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from PIL import features

from search_spaces.errors import UserInputError
from trainables.data.all_cores import map_on_all_cores
from trainables.data.decoding.decode_set import DecodedSet, DecodeRequest, decode_set, find_stored_shape, hash_files
from trainables.data.decoding.encoded_files import CANNOT_BE_READ, BadImageError, DiskState, EncodedImages
from trainables.data.decoding.image_decoder import Shape, decode_image
from trainables.data.decoding.stream_workers import EncodedSource
from trainables.data.decoding.streamed_images import StreamedImages
from trainables.data.image_array import ImageArray
from trainables.data.image_memory import ImageMemoryBudget, physical_memory, require_space
from trainables.data.images import Aspect, ImageOrigin, SkippedFile
from trainables.data.pixel_files import DIGEST_BYTES, open_pixels, read_checked, read_facts, write_checked
from trainables.data.problems import Problem, make_error

# Sets that one core decodes in less time are decoded anew each time. The time is estimated from what a core does: 20 MB of JPEG a
# second, and 150 microseconds for each file beside that.
MIN_KEPT_SECONDS = 1.0
SECONDS_PER_BYTE, SECONDS_PER_FILE = 1 / 20e6, 150e-6
SECONDS_OF_SILENT_WAITING = 2.0
# To be raised with every change of the pixels that decoding gives.
DECODER_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Decoded images of one shape.

    Attributes:
        images: (M, H, W, 3) uint8 RGB, in the order of the files; may be read-only, memory-mapped or lazy.
        kept: (M,) int64, positions of the files that they were decoded from.
        origin: names, sizes and kinds of those files, and the files that were skipped.
    """

    images: ImageArray
    kept: NDArray[np.int64]
    origin: ImageOrigin


class DecodeCache:
    """The entries of one folder for one way of decoding and a number of files with a total size.

    Those three are in the name of every entry, so that the content of files is read only where an entry may have it.
    """

    def __init__(
        self, encoded: EncodedImages, request: DecodeRequest, state: DiskState, budget: ImageMemoryBudget
    ) -> None:
        """Name the entries of files in a state, in the budget's folder; a set that is streamed needs no file of its pixels."""
        self._encoded, self._budget, self._stamp = encoded, budget, state.stamp
        # Everything that the pixels depend on besides the files.
        libraries = f"Pillow {pillow_version} JPEG {features.version('jpg')} WebP {features.version('webp')}"
        settings = f"{DECODER_VERSION} {request.aspect} {request.native_size} {request.stored_side} {libraries}"
        self._prefix = _digest(f"{settings}\0{len(encoded.names)}\0{state.num_bytes}".encode())
        self.lock = FileLock(budget.folder / f"{self._prefix}.lock")

    def find(self) -> DecodedSet | None:
        """Return the set that was decoded from files in the same state, or with the same content; None if there is none."""
        content = read_checked(self._budget.folder / f"{self._prefix}-at-{self._stamp}")
        found = None if content is None else self._read(content.decode())
        if found is not None and not self._reads_more(found):
            return found
        if next(self._budget.folder.glob(f"{self._prefix}-of-*"), None) is None:
            return None
        name = _digest(b"".join(hash_files(self._encoded)))
        found = self._read(name)
        if found is not None:
            self._remember_state(name)
        return found

    def add(self, digests: list[bytes], decoded: DecodedSet) -> None:
        """Keep a set whose pixels are in the folder, and the digests of whose files are given."""
        content = _digest(b"".join(digests))
        write_checked(self._budget.folder / f"{self._prefix}-of-{content}", decoded.to_bytes())
        self._remember_state(content)

    def _reads_more(self, found: DecodedSet) -> bool:
        """Return whether a file can be read by now that could not when the set was decoded.

        That a file may be read, or its server answers, is no part of the state of the file.
        """
        unread = {position for position, reason in found.bad if reason.startswith(CANNOT_BE_READ)}
        for position, read in enumerate(self._encoded.readers() if unread else ()):
            if position in unread:
                try:
                    read()
                except BadImageError:
                    continue
                return True
        return False

    def _read(self, content: str) -> DecodedSet | None:
        data = read_checked(self._budget.folder / f"{self._prefix}-of-{content}")
        if data is None:
            return None
        decoded = DecodedSet.from_bytes(data)
        path = self._budget.folder / decoded.pixels
        kept = read_facts(path) if self._budget.streams else open_pixels(path, decoded.shape)
        return None if kept is None else decoded

    def _remember_state(self, content: str) -> None:
        write_checked(self._budget.folder / f"{self._prefix}-at-{self._stamp}", content.encode())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def decode_files(encoded: EncodedImages, request: DecodeRequest, memory_budget: ImageMemoryBudget) -> Decoded:
    """Return the images of encoded ones; the result depends on nothing but their content and the request.

    Images are stored as squares of `native_size`. Without it, images of one size are stored as they are, if that is square or
    `aspect` is "squash"; others as squares of the stored side, image_size * 256 / 224.

    Threads decode, since Pillow's decoders and its `resize` release the interpreter's lock. Sets that one core decodes in more
    than about a second, and sets of more bytes than memory may take, are kept in `memory_budget.folder`; any process finds them.

    Args:
        encoded: N encoded images, such as `DiskImages` of files.
        request: how to decode them.
        memory_budget: memory that the images may take; if they need more, they are mapped from a file, or they are streamed.

    Raises:
        UserInputError: with all images that cannot be used, if `on_bad_image` is "refuse" or none is left; for images of
            different sizes without `native_size` or `image_size`; if the disk lacks space.
    """
    state = encoded.read_state()
    if memory_budget.streams:
        return _make_result(encoded, *_stream_files(encoded, request, state, memory_budget), request)
    cache = None
    seconds = SECONDS_PER_BYTE * state.num_bytes + SECONDS_PER_FILE * len(encoded.names)
    is_large = seconds >= MIN_KEPT_SECONDS or state.num_bytes >= memory_budget.memory_bytes
    if is_large and memory_budget.make_folder():
        cache = DecodeCache(encoded, request, state, memory_budget)
    if cache is None:
        decoded, images, _ = decode_set(encoded, request, memory_budget, keep=False)
    else:
        with _wait_for(cache.lock):
            decoded, images = _find_or_decode(encoded, request, memory_budget, cache)
    return _make_result(encoded, decoded, images, request)


def _stream_files(
    encoded: EncodedImages, request: DecodeRequest, state: DiskState, memory_budget: ImageMemoryBudget
) -> tuple[DecodedSet, StreamedImages]:
    """Return the images as ones that are decoded when they are read; all are decoded once, to know them and to find bad ones."""
    folder = memory_budget.folder
    require_space(folder, 0, "")
    cache = DecodeCache(encoded, request, state, memory_budget)
    with _wait_for(cache.lock):
        spans = encoded.locate(folder)
        decoded = cache.find()
        if decoded is None:
            decoded, _, digests = decode_set(encoded, request, memory_budget, keep=False)
            cache.add(digests, decoded)
        facts = read_facts(folder / decoded.pixels)
    if facts is None:
        raise UserInputError(f"{folder} cannot keep what is known of the images; set resources.image_folder")
    source = EncodedSource(
        spans=spans.take(list_good(len(encoded.names), decoded)),
        stored=find_stored_shape(request, decoded),
        side=(decoded.shape[1], decoded.shape[2]),
        digests=np.frombuffer(b"".join(facts.digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES),
    )
    images = StreamedImages(
        source=source, shape=decoded.shape, pixel_file=folder / decoded.pixels, num_workers=memory_budget.stream_workers
    )
    return decoded, images


def list_good(num_files: int, decoded: DecodedSet) -> NDArray[np.int64]:
    """Return (M,) the positions of the files that could be used."""
    bad = {position for position, _ in decoded.bad}
    return np.array([i for i in range(num_files) if i not in bad], dtype=np.int64)


@contextmanager
def _wait_for(lock: FileLock) -> Iterator[None]:
    """Hold the lock; name the reason on stderr if that takes long."""
    try:
        held = lock.acquire(timeout=SECONDS_OF_SILENT_WAITING)
    except Timeout:
        print("waiting for another process that decodes these images", file=sys.stderr)
        held = lock.acquire()
    with held:
        yield


def _find_or_decode(
    encoded: EncodedImages, request: DecodeRequest, memory_budget: ImageMemoryBudget, cache: DecodeCache
) -> tuple[DecodedSet, NDArray[np.uint8]]:
    found = cache.find()
    if found is not None:
        images = memory_budget.open(memory_budget.folder / found.pixels, found.shape)
        if images is not None:
            return found, images
    decoded, images, digests = decode_set(encoded, request, memory_budget, keep=True)
    if decoded.shape[0] and (memory_budget.folder / decoded.pixels).exists():
        cache.add(digests, decoded)
    return decoded, images


def _make_result(encoded: EncodedImages, decoded: DecodedSet, images: ImageArray, request: DecodeRequest) -> Decoded:
    names = encoded.names
    skipped = tuple(SkippedFile(name=names[position], reason=reason) for position, reason in decoded.bad)
    if skipped and (request.on_bad_image == "refuse" or not len(images)):
        raise _describe_bad(skipped, len(names))
    kept = list_good(len(names), decoded)
    side = decoded.shape[1] if decoded.shape[1] == decoded.shape[2] else request.stored_side
    origin = ImageOrigin(
        names=tuple(names[i] for i in kept),
        sizes=decoded.sizes,
        kinds=decoded.kinds,
        skipped=skipped,
        decode_as=None if side is None else partial(_decode_as, encoded, kept, side),
    )
    return Decoded(images=images, kept=kept, origin=origin)


def _decode_as(
    encoded: EncodedImages, kept: NDArray[np.int64], side: int, ids: NDArray[np.int64], aspects: Sequence[Aspect]
) -> dict[Aspect, NDArray[np.uint8]]:
    """Return (M, S, S, 3) images for each aspect, from one reading of their files; raise UserInputError if that fails.

    Args:
        encoded: all encoded images.
        kept: (N,) positions of those that could be used.
        side: S.
        ids: (M,) ascending indices into `kept`.
        aspects: how they become squares.
    """

    def decode(_: int, read: Callable[[], bytes]) -> list[NDArray[np.uint8]]:
        data = read()
        return [decode_image(data, Shape(side, aspect))[0] for aspect in aspects]

    positions = kept[ids]
    chosen = compress(encoded.readers(), np.isin(np.arange(positions[-1] + 1), positions))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = list(map_on_all_cores(decode, chosen, len(ids), "decoding images"))
    except BadImageError as error:
        raise UserInputError(f"an image cannot be decoded in another way: {error}") from None
    return {aspect: np.stack(images) for aspect, images in zip(aspects, zip(*found, strict=True), strict=True)}


def _describe_bad(skipped: Sequence[SkippedFile], num_files: int) -> UserInputError:
    advice = "replace or remove them"
    if len(skipped) < num_files:
        advice += ', or set data.on_bad_image = "skip" to go on without them'
    problem = Problem(
        f"{len(skipped)} of {num_files} images cannot be used", tuple(f"{s.name} ({s.reason})" for s in skipped), advice
    )
    return make_error("image files", [problem])


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
