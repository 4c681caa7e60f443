"""Images larger than memory: one file of pixels per node, mapped into the memory of every trial on the node.

Mapped pages are clean, so the kernel drops them when memory is short: mapped images alone never cause an out-of-memory kill.
"""

import os
import platform
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from search_spaces.errors import UserInputError
from trainables.data.pixel_files import ImageFacts, keep_pixels, open_pixels
from trainables.processes import is_alive


def require_space(folder: Path, num_bytes: int, what: str) -> None:
    """Raise UserInputError unless the disk of `folder`, which is made, has room for `num_bytes` more.

    Args:
        folder: on this machine.
        num_bytes: how many.
        what: subject of the sentence "... needs 3.1 GB".
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserInputError(f"{folder} cannot be used ({error.strerror}); set resources.image_folder") from None
    if num_bytes > free:
        raise UserInputError(
            f"{what} needs {num_bytes / 1e9:.1f} GB in {folder}, whose disk has {free / 1e9:.1f} GB left; set "
            "resources.image_folder to a folder with space"
        )


# Default share of the machine's memory that decoded images may take.
DEFAULT_SHARE = 0.25


class ImageSpaceError(UserInputError):
    """A disk lacks space for decoded images."""


def physical_memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def default_folder() -> Path:
    """Return the default folder of mapped files: abstudy/images in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "abstudy" / "images"


@dataclass(frozen=True, slots=True)
class ImageMemoryBudget:
    """The memory that a set of images may take, and the folder of its pixels if they need more or are kept for the next time.

    The folder may be deleted at any time; what is missing is decoded again. `trainables.data.pixel_files` limits its size.

    Attributes:
        memory_bytes: Images of at most this size are held in memory, or read through the page cache from the file in which they
            are kept. Larger ones are mapped on every node. By default a quarter of the machine's memory.
        folder: Folder on a disk of this machine, not on a file system in memory; by default in the user's cache folder.
        streams: Whether images are decoded whenever they are read, so that their pixels are kept nowhere; the folder then keeps
            what is known of each image, and copies of encoded images that cannot be read one by one.
        stream_workers: Processes that decode for a trial then; 0 for as many as the trial has CPU threads.
    """

    memory_bytes: int = field(default_factory=lambda: int(DEFAULT_SHARE * physical_memory()))
    folder: Path = field(default_factory=default_folder)
    streams: bool = False
    stream_workers: int = 0

    def make_folder(self) -> bool:
        """Make the folder; return whether files can be written to it, after a warning on stderr if they cannot."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                return True
        except OSError as error:
            self._warn(error)
            return False

    def _warn(self, error: OSError) -> None:
        print(
            f"{self.folder} cannot keep decoded images ({error.strerror}), so every start decodes them again; set "
            "resources.image_folder to a folder with space",
            file=sys.stderr,
        )

    def allocate(self, num_images: int, height: int, width: int, *, keep: bool = False) -> NDArray[np.uint8]:
        """Return an uninitialized (N, H, W, 3) uint8 array, in memory or in a new file; pass it to `finalize` when filled.

        Args:
            num_images: N.
            height: H.
            width: W.
            keep: Whether to use a file also for images that memory could hold; they stay in memory if the disk lacks space.

        Raises:
            ImageSpaceError: If the disk lacks space for images that need a file.
        """
        shape = (num_images, height, width, 3)
        size = num_images * height * width * 3
        fits = size <= self.memory_bytes
        if fits and not keep:
            return np.empty(shape, dtype=np.uint8)
        path = self.folder / f".{platform.node()}-{os.getpid()}-{uuid.uuid4().hex}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._delete_abandoned()
            with path.open("wb") as file:
                # All of it now: on a full disk the process would be killed later, when a page is written.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:  # macOS
                    file.truncate(size)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            if fits:
                self._warn(error)
                return np.empty(shape, dtype=np.uint8)
            raise ImageSpaceError(
                f"{num_images} images of {width}x{height} px take {size / 1e9:.1f} GB, more than the "
                f"{self.memory_bytes / 1e9:.1f} GB that images may take in memory, and {self.folder} cannot hold them "
                f"({error.strerror}); set resources.image_folder to a folder with space, raise resources.image_memory_gb, "
                'set resources.images = "streamed" to keep no pixels, or lower data.num_images or the image size '
                "(data.options.native_size)"
            ) from None
        return np.memmap(path, dtype=np.uint8, mode="r+", shape=shape)

    def finalize(self, images: NDArray[np.uint8], facts: ImageFacts) -> NDArray[np.uint8]:
        """Return the filled array; a file becomes read-only and is named after its content, which is thus stored once.

        Args:
            images: (N, H, W, 3) uint8 from `allocate`.
            facts: Facts of the first M <= N images; the others are cut off.

        Returns:
            (M, H, W, 3) uint8.
        """
        shape = (len(facts.digests), *images.shape[1:])
        if not isinstance(images, np.memmap):
            return images[: shape[0]]
        partial = Path(str(images.filename))
        os.truncate(partial, int(np.prod(shape)))
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # Unlike `images.flush()`, it lets other threads run.
        opened = self.open(keep_pixels(partial, shape, facts), shape)
        assert opened is not None
        return opened

    def open(self, path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """Return the images of a file in the folder, an `np.memmap` only if memory could not hold them; None if it is damaged."""
        images = open_pixels(path, shape)
        if images is None or images.nbytes > self.memory_bytes:
            return images
        return images.view(np.ndarray)

    def _delete_abandoned(self) -> None:
        """Delete the partial files of this machine's processes that were killed."""
        for path in self.folder.glob(".*-*-*.partial"):
            host, pid, _ = path.name.rsplit("-", 2)
            if host == f".{platform.node()}" and not is_alive(int(pid)):
                path.unlink(missing_ok=True)

    def discard(self, images: NDArray[np.uint8] | None) -> None:
        """Delete the file, if any, of an array that will not be filled."""
        if isinstance(images, np.memmap):
            Path(str(images.filename)).unlink(missing_ok=True)


def open_mapped(
    path: Path, shape: tuple[int, ...], make: Callable[[ImageMemoryBudget], object] | None
) -> NDArray[np.uint8]:
    """Return mapped images in another process; on a node without their file, one process makes it first.

    Args:
        path: Of the file, the same on every node.
        shape: (N, H, W, 3).
        make: Makes the file from the images' source on a node without it; None if that is impossible.

    Raises:
        UserInputError: If the file cannot be made, or its content differs from the study's images.
    """
    images = open_pixels(path, shape)
    if images is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            images = open_pixels(path, shape)
            if images is None and make is not None:
                make(ImageMemoryBudget(memory_bytes=0, folder=path.parent))
                images = open_pixels(path, shape)
    if images is None:
        reason = "it cannot be made here; copy the file from the node that has it"
        if make is not None:
            reason = "the images read here are not those of the study; make their source the same on all nodes"
        raise UserInputError(f"this node has no {path}, and {reason}")
    return images
