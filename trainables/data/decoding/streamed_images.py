"""`StreamedImages`: images that are decoded whenever they are read, for sets whose pixels no disk can hold."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from search_spaces.errors import UserInputError
from trainables.data.all_cores import map_on_all_cores
from trainables.data.decoding.stream_workers import EncodedSource, StreamWorkers
from trainables.data.image_array import LazyImages
from trainables.data.image_memory import ImageMemoryBudget

# Fewer images than this are decoded by the thread that asks for them.
MIN_IMAGES_FOR_THREADS = 16


@dataclass(slots=True, kw_only=True, eq=False)
class StreamedImages(LazyImages):
    """Images of a set that are decoded whenever they are read.

    Attributes:
        source: Decodes them.
        shape: (N, H, W, 3).
        pixel_file: See `LazyImages`.
        num_workers: Processes that decode for a trial; 0 for as many as the trial has CPU threads.
        reload: Loads the images from their source within a memory budget, on a node without the encoded ones; None if that is
            impossible.
    """

    source: EncodedSource
    shape: tuple[int, ...]
    pixel_file: Path
    num_workers: int = 0
    reload: Callable[[ImageMemoryBudget], Any] | None = None
    _workers: StreamWorkers | None = field(default=None, repr=False)

    def read(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return (M, H, W, 3) uint8 images, decoded on all cores."""
        self.source.spans.note_use()
        if len(ids) < MIN_IMAGES_FOR_THREADS:
            return self.source.decode_all(ids.tolist())
        images = np.empty((len(ids), *self.shape[1:]), dtype=np.uint8)

        def decode(place: int, position: int) -> None:
            self.source.decode_into(position, images[place])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in map_on_all_cores(decode, ids.tolist(), len(ids), "decoding images"):
                pass
        return images

    def read_batches(self, batches: Sequence[Tensor], *, pin_memory: bool = False) -> Iterator[Tensor]:
        """Yield (B, H, W, 3) uint8 images of each batch of ids, decoded ahead by worker processes.

        The workers stay for the next call, which ends an earlier one that was not read to its end.

        Args:
            batches: (B,) int64 each.
            pin_memory: Whether the images are put into memory from which a CUDA device copies them.

        Raises:
            StreamError: For an image that cannot be used.
            UserInputError: If the shared memory of the machine is too small for the batches that are decoded ahead.
        """
        self.source.spans.note_use()
        number = self.num_workers or torch.get_num_threads()
        if self._workers is None or not self._workers.fits(number, pin_memory):
            self.close()
            self._workers = StreamWorkers(self.source, number, pin_memory=pin_memory)
        return self._workers.read(batches)

    def close(self) -> None:
        """End the worker processes."""
        if self._workers is not None:
            self._workers.close()
        self._workers = None

    def __reduce__(self) -> tuple[Callable[..., "StreamedImages"], tuple[Any, ...]]:
        return _reopen, ({f.name: getattr(self, f.name) for f in fields(self) if f.name != "_workers"},)


def _reopen(values: dict[str, Any]) -> StreamedImages:
    """Return the images in another process; on a node without the encoded ones, they are loaded from their source first.

    Raises:
        UserInputError: If that is impossible, or gives other images.
    """
    images = StreamedImages(**values)
    paths, pixel_file = images.source.spans.paths, images.pixel_file
    if images.source.spans.are_here():
        return images
    missing = f"this node has no {paths[0]}"
    if images.reload is None:
        raise UserInputError(f"{missing}; use a path that all nodes have")
    pixel_file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(pixel_file.with_suffix(".lock")):
        found = images.reload(ImageMemoryBudget(memory_bytes=0, folder=pixel_file.parent, streams=True)).images
    if not isinstance(found, StreamedImages) or found.pixel_file.name != pixel_file.name:
        raise UserInputError(
            f"{missing}, and the images read here are not those of the study; make their source the same on all nodes"
        )
    return replace(images, source=found.source)
