"""Encoded images that are decoded together, such as the files of a folder."""

import errno
import hashlib
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError
from trainables.data.image_memory import require_space
from trainables.data.pixel_files import COPY_SUFFIX, delete_unused, read_checked, write_checked

MAX_FILE_BYTES = 500_000_000
WHOLE_FILE = -1


class BadImageError(Exception):
    """An image cannot be used. The message is the reason, without the image's name."""


class UnreadImageError(BadImageError):
    """An image could not be read, for example because a server did not answer; another try may succeed."""


CANNOT_BE_READ = "cannot be read"
# Of a file that is gone or must not be read, which another try a moment later does not change.
LASTING_ERRORS = frozenset({errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})


def explain_read_error(error: OSError) -> BadImageError:
    """Return the error of an image that cannot be read, and whether another try may help."""
    if error.errno in LASTING_ERRORS:
        return BadImageError(f"{CANNOT_BE_READ} ({error.strerror}); check its permissions")
    return UnreadImageError(f"{CANNOT_BE_READ} ({error.strerror})")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskState:
    """What the file system says about encoded images, without reading them.

    Attributes:
        stamp: digest of places, sizes and times of change; equal stamps mean equal content.
        num_bytes: size of the files, which does not depend on where they are.
    """

    stamp: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpans:
    """Where each of N encoded images is on the disks of a machine, so that any process can read it alone.

    Attributes:
        paths: F paths, as texts, of which a million are quickly sent to another process.
        files: (N,) int32, number of the file in which an image is.
        offsets: (N,) int64, first byte.
        sizes: (N,) int64, bytes; `WHOLE_FILE` for an image that is a file of its own.
    """

    paths: tuple[str, ...]
    files: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, position: int) -> bytes:
        """Return the bytes of an image; raise BadImageError if they cannot be read."""
        path, size = Path(self.paths[self.files[position]]), int(self.sizes[position])
        if size == WHOLE_FILE:
            return read_file(path)
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(int(self.offsets[position]))
                data = file.read(size)
        except OSError as error:
            raise explain_read_error(error) from None
        if len(data) != size:
            raise BadImageError(f"cut off: {len(data)} of {size} bytes are left")
        return data

    def stamp(self, state: str) -> str:
        """Return a digest of these places and the state of their files."""
        digest = hashlib.blake2b(state.encode(), digest_size=16)
        for values in (self.files.astype("<i4"), self.offsets.astype("<i8"), self.sizes.astype("<i8")):
            digest.update(values.tobytes())
        return digest.hexdigest()

    def take(self, kept: NDArray[np.int64]) -> "ImageSpans":
        """Return the spans of some of the images."""
        return ImageSpans(paths=self.paths, files=self.files[kept], offsets=self.offsets[kept], sizes=self.sizes[kept])

    def note_use(self) -> None:
        """Keep a copy of encoded images in the image folder from being deleted as unused (`delete_unused`)."""
        for path in self.paths[:1]:
            if path.endswith(COPY_SUFFIX):
                with suppress(OSError):
                    os.utime(path)

    def are_here(self) -> bool:
        """Return whether this machine has the first and the last file."""
        return all(Path(path).exists() for path in (self.paths[0], self.paths[-1]))


class EncodedImages(ABC):
    """Encoded images in a fixed order.

    Attributes:
        names: N names, for messages and records.
    """

    names: tuple[str, ...]

    @abstractmethod
    def read_state(self) -> DiskState:
        """Return the state of the files."""

    @abstractmethod
    def readers(self) -> Iterator[Callable[[], bytes]]:
        """Yield, for each image in order, a function that returns its bytes or raises BadImageError, for any thread."""

    def locate(self, folder: Path) -> ImageSpans:
        """Return where each image can be read alone.

        Images whose files can only be read from front to end are copied, as they are, into one file in `folder` first.

        Raises:
            UserInputError: If the disk lacks space for that copy.
        """
        state = self.read_state()
        path = folder / f"{state.stamp}{COPY_SUFFIX}"
        kept = read_checked(path.with_suffix(".sizes")) if path.exists() else None
        if kept is not None:
            os.utime(path)  # For `delete_unused`.
        sizes = _copy(self, state, path) if kept is None else np.frombuffer(kept, dtype="<i8")
        offsets = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
        return ImageSpans(paths=(str(path),), files=np.zeros(len(sizes), np.int32), offsets=offsets, sizes=sizes)


class NamedFile(Protocol):
    """A file with a name for messages and records."""

    @property
    def name(self) -> str:
        """Name, such as the path below the data set's folder."""

    @property
    def path(self) -> Path:
        """The file."""


class DiskImages(EncodedImages):
    """Images on disk of which each can be read alone: a file of its own, or a part of a larger one."""

    def __init__(self, names: Sequence[str], spans: ImageSpans) -> None:
        """Keep the N names, and where the images are."""
        self.names = tuple(names)
        self._spans = spans

    @classmethod
    def of_files(cls, files: Sequence[NamedFile]) -> "DiskImages":
        """Return the images of which each is a file."""
        number = len(files)
        spans = ImageSpans(
            paths=tuple(str(file.path) for file in files),
            files=np.arange(number, dtype=np.int32),
            offsets=np.zeros(number, np.int64),
            sizes=np.full(number, WHOLE_FILE, np.int64),
        )
        return cls([file.name for file in files], spans)

    def read_state(self) -> DiskState:
        """Return the state of the files and the places that are read; a file that cannot be read counts with its error."""
        state = combine_states([Path(path) for path in self._spans.paths])
        if (self._spans.sizes == WHOLE_FILE).all():
            return state
        return replace(state, stamp=self._spans.stamp(state.stamp))

    def readers(self) -> Iterator[Callable[[], bytes]]:
        """Yield a function per image."""
        return (partial(self._spans.read, position) for position in range(len(self._spans)))

    def locate(self, folder: Path) -> ImageSpans:  # noqa: ARG002
        """Return the places in the files."""
        return self._spans


def _copy(encoded: EncodedImages, state: DiskState, path: Path) -> NDArray[np.int64]:
    """Copy encoded images, one after the other, into a file; return (N,) their sizes, 0 for one that cannot be read."""
    require_space(path.parent, state.num_bytes, "a copy of the encoded images, of which each can be read alone,")
    partly = path.with_name(f".{uuid.uuid4().hex}.new")
    sizes = []
    try:
        with partly.open("wb") as file:
            for read in encoded.readers():
                try:
                    sizes.append(file.write(read()))
                except BadImageError:
                    sizes.append(0)
        write_checked(path.with_suffix(".sizes"), np.array(sizes, dtype="<i8").tobytes())
        partly.replace(path)
        delete_unused(path)
    except OSError as error:
        raise UserInputError(
            f"the encoded images cannot be copied to {path.parent} ({error.strerror}); set resources.image_folder to a "
            "folder with space"
        ) from None
    finally:
        partly.unlink(missing_ok=True)
    return np.array(sizes, dtype=np.int64)


def combine_states(paths: Sequence[Path]) -> DiskState:
    """Return the state of several files in their order; one that cannot be read counts with its error."""
    digest = hashlib.blake2b(digest_size=16)
    num_bytes = 0
    for path in paths:
        place = path.absolute()
        try:
            status = place.stat()
        except OSError as error:
            digest.update(f"{place}\0{error.errno}\n".encode(errors="surrogateescape"))
            continue
        times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
        digest.update(f"{place}\0{times}\n".encode(errors="surrogateescape"))
        num_bytes += status.st_size
    return DiskState(stamp=digest.hexdigest(), num_bytes=num_bytes)


def read_file(path: Path) -> bytes:
    """Return the content of a file; raise BadImageError if it cannot be read or is too large."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadImageError(f"larger than {MAX_FILE_BYTES / 1e6:.0f} MB")
        return path.read_bytes()
    except OSError as error:
        raise explain_read_error(error) from None
