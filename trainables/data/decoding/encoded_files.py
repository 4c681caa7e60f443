"""Encoded images that are decoded together, such as the files of a folder."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

MAX_FILE_BYTES = 500_000_000


class BadImageError(Exception):
    """An image cannot be used. The message is the reason, without the image's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskState:
    """What the file system says about encoded images, without reading them.

    Attributes:
        stamp: digest of places, sizes and times of change; equal stamps mean equal content.
        num_bytes: size of the files, which does not depend on where they are.
    """

    stamp: str
    num_bytes: int


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
        """Yield, for each image in order, a function that returns its bytes or raises BadImageError; any thread may call it."""


class NamedFile(Protocol):
    """A file with a name for messages and records."""

    @property
    def name(self) -> str:
        """Name, such as the path below the data set's folder."""

    @property
    def path(self) -> Path:
        """The file."""


class DiskImages(EncodedImages):
    """One file per image."""

    def __init__(self, files: Sequence[NamedFile]) -> None:
        """Keep the names and paths of the files."""
        self.names = tuple(file.name for file in files)
        self.paths = tuple(file.path for file in files)

    def read_state(self) -> DiskState:
        """Return the state of the files; one that cannot be read counts with its error."""
        return combine_states(self.paths)

    def readers(self) -> Iterator[Callable[[], bytes]]:
        """Yield a function per file."""
        return (partial(read_file, path) for path in self.paths)


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
        raise BadImageError(f"cannot be read ({error.strerror}); check its permissions") from None
