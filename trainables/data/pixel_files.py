"""Files of pixels in the image folder, named after their content, and facts about the pixels that are kept beside them.

A file is trusted as long as its size, times of change and inode are those that were noted when its content was last checked;
otherwise its content is checked again. Results that are computed from the pixels are kept with a checksum.
"""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.all_cores import map_on_all_cores
from trainables.data.image_array import ImageArray, LazyImages, cut_content, read_images

DIGEST_BYTES = 16
FACTS = "facts"
# Of copies of encoded images, which `trainables.data.decoding.encoded_files` makes.
COPY_SUFFIX = ".encoded"
# Files of pixels and copies of encoded images may take this share of their disk; beyond it, those that were not used for the
# longest time are deleted.
MAX_DISK_SHARE = 0.2
MIN_AGE_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the audit needs to know of each image.

    Attributes:
        lowest: (N,) uint8, lowest value, of what is no padding.
        highest: (N,) uint8, highest value, likewise.
        digests: N digests of the images' bytes (16 bytes of SHA-256).
    """

    lowest: NDArray[np.uint8]
    highest: NDArray[np.uint8]
    digests: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Return lowest, highest and digests, one after the other."""
        return self.lowest.tobytes() + self.highest.tobytes() + b"".join(self.digests)

    @classmethod
    def from_bytes(cls, data: bytes) -> "ImageFacts":
        """Return the facts that `to_bytes` wrote."""
        n = len(data) // (2 + DIGEST_BYTES)
        values = np.frombuffer(data, dtype=np.uint8, count=2 * n)
        digests = tuple(data[i : i + DIGEST_BYTES] for i in range(2 * n, len(data), DIGEST_BYTES))
        return cls(values[:n], values[n:], digests)


def measure_facts(images: ImageArray) -> ImageFacts:
    """Return the facts of (N, H, W, 3) uint8 images, from beside their file where they are kept; computed on all cores."""
    return ImageFacts.from_bytes(recall(images, FACTS, lambda: _compute_facts(images).to_bytes()))


def _compute_facts(images: ImageArray) -> ImageFacts:
    lowest, highest = np.empty(len(images), np.uint8), np.empty(len(images), np.uint8)

    def measure(position: int, image: NDArray[np.uint8]) -> bytes:
        image = np.ascontiguousarray(image)
        content = cut_content(image)
        lowest[position], highest[position] = content.min(), content.max()
        return hash_bytes(image.data)

    digests = tuple(map_on_all_cores(measure, read_images(images, range(len(images))), len(images), "hashing images"))
    return ImageFacts(lowest, highest, digests)


def hash_bytes(data: bytes | memoryview) -> bytes:
    """Return the first 16 bytes of SHA-256, which most processors compute faster than any other hash of hashlib."""
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


def name_pixels(shape: tuple[int, ...], facts: ImageFacts) -> str:
    """Return the name of the file of images with these facts."""
    return f"{hash_bytes(repr(tuple(shape)).encode() + b''.join(facts.digests)).hex()}.rgb"


def keep_pixels(partial: Path, shape: tuple[int, ...], facts: ImageFacts) -> Path:
    """Give a file that holds the pixels its name and keep their facts; return its path.

    Args:
        partial: file in the image folder, written completely.
        shape: (N, H, W, 3).
        facts: facts of the pixels in the file.
    """
    path = partial.with_name(name_pixels(shape, facts))
    partial.replace(path)
    keep_facts(path, facts)
    _note_state(path)
    delete_unused(path)
    return path


def keep_facts(path: Path, facts: ImageFacts) -> None:
    """Keep the facts of a file of pixels, which need not exist, beside it."""
    _keep_beside(path, FACTS, facts.to_bytes())


def read_facts(path: Path) -> ImageFacts | None:
    """Return the facts that are kept beside a file of pixels, which need not exist; None if there are none."""
    kept = read_checked(_beside(path, FACTS))
    return None if kept is None else ImageFacts.from_bytes(kept)


class PixelWriter:
    """Fills an array of images, from any thread."""

    def __init__(self, images: NDArray[np.uint8], file: int | None, pool: ThreadPoolExecutor) -> None:
        """Take the array, the descriptor of the file whose pixels it maps (None for an array in memory), and one thread."""
        self._images = images
        self._file = file
        self._pool = pool
        self._running: Future[None] | None = None

    def put(self, position: int, image: NDArray[np.uint8]) -> None:
        """Set the image at a position; (H, W, 3), contiguous.

        Into a file it is written, not copied through the mapping: then each page would be a fault of its own, and the
        threads of a process wait for each other's faults.
        """
        written = 0
        if self._file is not None and hasattr(os, "pwrite"):  # Windows lacks it.
            written = os.pwrite(self._file, image.data, position * image.nbytes)
        if written < image.nbytes:
            self._images[position] = image

    def sync_early(self) -> None:
        """Start to bring to disk what was written, unless that is still going on; else `os.fsync` at the end waits for all."""
        if self._file is not None and (self._running is None or self._running.done()):
            self._running = self._pool.submit(os.fsync, self._file)


@contextmanager
def open_writer(images: NDArray[np.uint8]) -> Iterator[PixelWriter]:
    """Yield a writer of images in memory, or of those that map a file."""
    with ExitStack() as stack:
        file = None
        if isinstance(images, np.memmap):
            file = stack.enter_context(Path(str(images.filename)).open("r+b")).fileno()
        yield PixelWriter(images, file, stack.enter_context(ThreadPoolExecutor(1)))


def open_pixels(path: Path, shape: tuple[int, ...]) -> np.memmap | None:
    """Return the (N, H, W, 3) images of a file, mapped and read-only; None if the file is missing, short or damaged."""
    try:
        if path.stat().st_size != int(np.prod(shape)):
            return None
        images = np.memmap(path, dtype=np.uint8, mode="r", shape=shape)
        if read_checked(_beside(path, "state")) != _read_state(path):
            if name_pixels(shape, _compute_facts(images)) != path.name:
                return None
            _note_state(path)
        else:
            with suppress(OSError):  # The folder may be read-only.
                os.utime(_beside(path, "state"))  # For `delete_unused`.
    except OSError:
        return None
    return images


def recall(images: ImageArray, name: str, compute: Callable[[], bytes]) -> bytes:
    """Return `compute()`, which depends on `images` and `name` alone; it is kept beside the file whose pixels `images` are.

    Args:
        images: (N, H, W, 3) uint8.
        name: a file name, different for everything that is computed.
        compute: called where nothing is kept.
    """
    path = find_pixel_file(images)
    kept = None if path is None else read_checked(_beside(path, name))
    if kept is not None:
        return kept
    value = compute()
    if path is not None:
        _keep_beside(path, name, value)
    return value


def find_pixel_file(images: ImageArray) -> Path | None:
    """Return the file of pixels of which `images` are the whole and unchangeable content; None if there is none.

    That of lazy images does not exist, but facts are kept beside it all the same.
    """
    if isinstance(images, LazyImages):
        return images.pixel_file
    mapped = images if isinstance(images, np.memmap) else images.base
    if not isinstance(mapped, np.memmap) or images.flags.writeable or mapped.shape != images.shape:
        return None
    path = Path(str(mapped.filename))
    is_file_of_pixels = mapped.offset == 0 and path.suffix == ".rgb" and path.exists()
    is_whole = is_file_of_pixels and path.stat().st_size == mapped.nbytes
    return path if is_whole and images.strides == mapped.strides else None


def read_checked(path: Path) -> bytes | None:
    """Return what `write_checked` wrote; None if there is no such file or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    checksum, payload = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    return payload if hash_bytes(payload) == checksum else None


def write_checked(path: Path, payload: bytes) -> None:
    """Write a file with a checksum, or replace it, in one step."""
    aside = path.with_name(f".{uuid.uuid4().hex}.new")
    try:
        aside.write_bytes(hash_bytes(payload) + payload)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _beside(path: Path, name: str) -> Path:
    return path.with_suffix(f".{name}")


def _keep_beside(path: Path, name: str, value: bytes) -> None:
    with suppress(OSError):  # A full disk: it is computed again.
        write_checked(_beside(path, name), value)


def _read_state(path: Path) -> bytes:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}".encode()


def _note_state(path: Path) -> None:
    _keep_beside(path, "state", _read_state(path))


def delete_unused(new: Path) -> None:
    """Delete the large files that were not used for the longest time, but none of the last day, if all take too much space.

    Processes that have mapped a deleted file keep its pixels; others decode it again.
    """
    for path in new.parent.glob(".*.new"):  # Of processes that were killed.
        if time.time() - path.stat().st_mtime > MIN_AGE_SECONDS:
            path.unlink(missing_ok=True)
    limit = MAX_DISK_SHARE * shutil.disk_usage(new.parent).total
    total = 0
    for path, used in sorted(_list_large(new.parent), key=lambda entry: -entry[1]):
        total += path.stat().st_size
        if total > limit and path != new and time.time() - used > MIN_AGE_SECONDS:
            for file in new.parent.glob(f"{path.stem}.*"):
                if file.suffix != ".lock":
                    file.unlink(missing_ok=True)


def _list_large(folder: Path) -> Iterator[tuple[Path, float]]:
    """Yield each file of pixels and each copy of encoded images, and when it was used."""
    for path in (*folder.glob("*.rgb"), *folder.glob(f"*{COPY_SUFFIX}")):
        state = _beside(path, "state")
        yield path, (state if state.exists() else path).stat().st_mtime
