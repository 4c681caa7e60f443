"""Processes that decode batches of images ahead of a training loop (torch's `DataLoader`), and what decodes a single image."""

import os
import shutil
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from search_spaces.errors import UserInputError
from trainables.data.decoding.encoded_files import BadImageError, ImageSpans
from trainables.data.decoding.image_decoder import Shape, decode_image
from trainables.data.pixel_files import hash_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedSource:
    """What decodes the images of a set one by one; any process of the machine can have it.

    Attributes:
        spans: Where the N encoded images are.
        stored: How they are brought to one shape.
        side: (H, W) of the decoded images.
        digests: (N, 16) uint8, digest of each image's pixels.
    """

    spans: ImageSpans
    stored: Shape
    side: tuple[int, int]
    digests: NDArray[np.uint8]

    def decode_all(self, positions: Sequence[int]) -> NDArray[np.uint8]:
        """Return (M, H, W, 3) uint8, decoded by this thread.

        Raises:
            StreamError: For the first image that cannot be used.
        """
        images = np.empty((len(positions), *self.side, 3), dtype=np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for place, position in enumerate(positions):
                self.decode_into(int(position), images[place])
        return images

    def decode_into(self, position: int, image: NDArray[np.uint8]) -> None:
        """Decode an image into a (H, W, 3) array; raise StreamError if it cannot be used."""
        try:
            pixels = np.ascontiguousarray(decode_image(self.spans.read(position), self.stored)[0])
            if hash_bytes(pixels.data) != self.digests[position].tobytes():
                raise BadImageError("has other pixels than when the study started")
        except BadImageError as error:
            path = self.spans.paths[self.spans.files[position]]
            advice = "leave the files of a study's images as they are while it runs"
            raise StreamError(f"image {position} of {path} {error}; {advice}") from None
        image[...] = pixels


class StreamError(UserInputError):
    """An image that was sound when the study started cannot be read any more, or is another one."""


SHARED_MEMORY = Path("/dev/shm")
# Batches that each worker decodes ahead.
NUM_AHEAD = 2


class StreamWorkers:
    """Worker processes that decode, batch by batch, in the order in which batches are asked for.

    They are started from a process of their own (forkserver), which has no threads and no CUDA context, and end with this one.
    """

    def __init__(self, source: EncodedSource, num_workers: int, *, pin_memory: bool) -> None:
        """Prepare the workers, which start with the first batch.

        Args:
            source: Decodes.
            num_workers: Processes.
            pin_memory: Whether batches are put into pinned memory.
        """
        self._source = source
        self._kind = (num_workers, pin_memory)
        self._order = _Order()
        context = get_context("forkserver")
        context.set_forkserver_preload(["__main__", __name__])
        self._loader: DataLoader[Tensor | str] | None = DataLoader(
            _Batches(source),
            sampler=self._order,
            batch_size=None,
            num_workers=num_workers,
            prefetch_factor=NUM_AHEAD,
            persistent_workers=True,
            pin_memory=pin_memory,
            multiprocessing_context=context,
            worker_init_fn=_watch_parent,
            # Else a seed is drawn from the global generator.
            generator=torch.Generator(),
        )

    def fits(self, num_workers: int, pin_memory: bool) -> bool:
        """Return whether these workers are as asked for, and none of them has ended."""
        return self._loader is not None and self._kind == (num_workers, pin_memory)

    def read(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield (B, H, W, 3) uint8 images of each batch of ids; see `StreamedImages.read_batches`.

        A worker that ends is noticed within seconds, since no limit is set to the time of a batch: with one, torch's loader would
        look for it only then. A batch that takes forever is for those to notice who watch the trial.
        """
        if not batches or self._loader is None:
            return
        self._check_shared_memory(max(map(len, batches)))
        self._order.batches = [batch.tolist() for batch in batches]
        try:
            for found in self._loader:
                if isinstance(found, str):
                    raise StreamError(found)
                yield found
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """End the processes."""
        self._loader = None

    def _check_shared_memory(self, batch_size: int) -> None:
        """Raise UserInputError if batches do not fit into the shared memory, where a worker would be killed without a word."""
        if not SHARED_MEMORY.is_dir():  # macOS and Windows have none that is limited.
            return
        num_workers, _ = self._kind
        needed = batch_size * int(np.prod(self._source.side)) * 3 * (NUM_AHEAD * num_workers + 1)
        free = shutil.disk_usage(SHARED_MEMORY).free
        if needed > free:
            raise UserInputError(
                f"{num_workers} processes that decode ahead need {needed / 1e6:.0f} MB of shared memory, but {SHARED_MEMORY} "
                f"has {free / 1e6:.0f} MB left; enlarge it (docker run --shm-size), or lower resources.stream_workers or "
                "train.batch_size"
            )


class _Order(Sampler[list[int]]):
    """The batches of the current call."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Batches(Dataset[Tensor | str]):
    """Decodes a batch in a worker; a text says why it could not."""

    def __init__(self, source: EncodedSource) -> None:
        self._source = source

    def __getitem__(self, ids: list[int]) -> Tensor | str:
        try:
            return torch.from_numpy(self._source.decode_all(ids))
        except StreamError as error:
            return str(error)


def _watch_parent(_: int) -> None:
    """End this worker when the process that asks it for images dies, which a DataLoader notices only of its own children."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
