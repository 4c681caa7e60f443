"""Decoded image sets that are found again: by the state of their files, and where that changed by the files' content.

An entry is a small file beside the pixels (`trainables.data.pixel_files`) in the image folder. Whatever is damaged is not used.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from trainables.data.decoding.encoded_files import DiskState
from trainables.data.pixel_files import open_pixels, read_checked, read_facts, write_checked


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


class DecodeCache:
    """The entries of one folder for one way of decoding and a number of files with a total size.

    Those three are in the name of every entry, so that the content of files is read only where an entry may have it.
    """

    def __init__(
        self, folder: Path, settings: str, num_files: int, state: DiskState, *, needs_pixels: bool = True
    ) -> None:
        """Name the entries.

        Args:
            folder: image folder.
            settings: everything that the pixels depend on besides the files.
            num_files: number of files.
            state: state of the files.
            needs_pixels: whether a set without its file of pixels is of no use; else the facts beside it are enough.
        """
        self._needs_pixels = needs_pixels
        self._folder = folder
        self._stamp = state.stamp
        self._prefix = _digest(f"{settings}\0{num_files}\0{state.num_bytes}".encode())
        self.lock = FileLock(folder / f"{self._prefix}.lock")

    def find_by_state(self) -> DecodedSet | None:
        """Return the set that was decoded from files in the same state; None if there is none."""
        content = read_checked(self._folder / f"{self._prefix}-at-{self._stamp}")
        return None if content is None else self._find(content.decode())

    def may_know_content(self) -> bool:
        """Return whether a set of as many files and bytes was decoded."""
        return next(self._folder.glob(f"{self._prefix}-of-*"), None) is not None

    def find_by_content(self, digests: list[bytes]) -> DecodedSet | None:
        """Return the set that was decoded from files with these digests, and remember the files' state; None if there is none."""
        content = _digest(b"".join(digests))
        found = self._find(content)
        if found is not None:
            self._remember_state(content)
        return found

    def add(self, digests: list[bytes], decoded: DecodedSet) -> None:
        """Keep a set whose pixels are in the folder."""
        content = _digest(b"".join(digests))
        write_checked(self._folder / f"{self._prefix}-of-{content}", decoded.to_bytes())
        self._remember_state(content)

    def _find(self, content: str) -> DecodedSet | None:
        data = read_checked(self._folder / f"{self._prefix}-of-{content}")
        if data is None:
            return None
        decoded = DecodedSet.from_bytes(data)
        path = self._folder / decoded.pixels
        kept = open_pixels(path, decoded.shape) if self._needs_pixels else read_facts(path)
        return None if kept is None else decoded

    def _remember_state(self, content: str) -> None:
        write_checked(self._folder / f"{self._prefix}-at-{self._stamp}", content.encode())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()
