"""`TrialData`: the images and splits that all trials of a study share, and the training images of a configuration.

While a trial trains, its images are in the memory of its device, in that of the host, or in encoded files.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, list_some
from trainables.data.decoding.streamed_images import StreamedImages
from trainables.data.image_array import ImageArray, LazyImages
from trainables.data.image_memory import ImageMemoryBudget, open_mapped
from trainables.data.splits import SPLIT_NAMES, Splits
from trainables.data.stratified import cut_folds
from trainables.devices import compute_memory_fraction

# Images are copied to a device if they take this share of its free memory at most: the rest is for the model.
SHARE_OF_FREE = 0.25
# Batches that are copied to a device while it computes.
NUM_AHEAD = 2
DEVICE, HOST, STREAMED = "device", "host", "streamed"

PlacedImages: TypeAlias = Tensor | StreamedImages
Place: TypeAlias = Callable[[ImageArray, torch.device], PlacedImages]


def place_images(images: ImageArray, device: torch.device, num_gpus: float = 1.0) -> PlacedImages:
    """Return (N, H, W, 3) uint8 images as a tensor that shares their memory, or as a copy on a CUDA device.

    Streamed images are returned as they are. Others are copied to a CUDA device if they fit into a quarter of its free memory;
    otherwise each batch is copied.

    Args:
        images: On the host.
        device: That computes.
        num_gpus: Share of the device that this process may use, below 1 for trials that share a GPU.
    """
    if isinstance(images, StreamedImages):
        return images
    if isinstance(images, LazyImages):
        raise TypeError(f"a trial cannot read {type(images).__name__}")
    with warnings.catch_warnings():
        # Nothing writes to the images.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        tensor = torch.from_numpy(images)
    if device.type == "cuda" and images.nbytes <= SHARE_OF_FREE * find_free_memory(device, num_gpus):
        return tensor.to(device)
    return tensor


def find_free_memory(device: torch.device, num_gpus: float = 1.0) -> int:
    """Return the bytes of a CUDA device that this process can still use.

    What torch's allocator keeps for later is free too. A process that holds a share of the device has that share alone.
    """
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    free += torch.cuda.memory_reserved(device) - allocated
    return min(free, int(compute_memory_fraction(num_gpus, total) * total) - allocated) if num_gpus < 1 else free


def limit_memory(device: torch.device, num_gpus: float) -> None:
    """Keep this process within its share of a CUDA device, so that trials that share a GPU cannot take each other's memory."""
    if device.type == "cuda":
        fraction = compute_memory_fraction(num_gpus, torch.cuda.mem_get_info(device)[1])
        # By its index, for torch refuses a device without one here; None is the current device.
        torch.cuda.set_per_process_memory_fraction(fraction, device.index)


def gather_images(images: Tensor, indices: Tensor, device: torch.device) -> Tensor:
    """Return `images[indices]` on `device`, gathered on the device that holds the images."""
    chosen = images.index_select(0, indices.to(images.device, non_blocking=True))
    return chosen.to(device, non_blocking=True)


def read_batches(images: PlacedImages, batches: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield the images of each batch on `device`. Streamed ones are decoded ahead, those in the host's memory copied ahead.

    Args:
        images: (N, H, W, 3) uint8.
        batches: (B,) int64 indices each.
        device: That computes.

    Raises:
        StreamError: For a streamed image that cannot be decoded any more.
    """
    if isinstance(images, StreamedImages):
        for batch in images.read_batches(batches, pin_memory=device.type == "cuda"):
            yield batch.to(device, non_blocking=True)
    elif device.type == "cuda" and images.device.type == "cpu":
        yield from copy_ahead(images, batches, device)
    else:
        for chosen in batches:
            yield gather_images(images, chosen, device)


def copy_ahead(images: Tensor, batches: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield the images of each batch on `device`, while a thread gathers the next ones and copies them on a stream of its own.

    Args:
        images: (N, H, W, 3) uint8 in the host's memory.
        batches: (B,) int64 indices each.
        device: That computes; on a CPU the batches are gathered ahead.
    """
    stream = _find_copy_stream(device) if device.type == "cuda" else None

    def stage(chosen: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        staged = torch.empty((len(chosen), *images.shape[1:]), dtype=images.dtype, pin_memory=stream is not None)
        torch.index_select(images, 0, chosen.cpu(), out=staged)
        if stream is None:
            return staged, None
        with torch.cuda.stream(stream):
            # torch keeps the staged batch until the copy has been made.
            return staged.to(device, non_blocking=True), stream.record_event()

    rest = iter(batches)
    with ThreadPoolExecutor(1) as pool:
        coming = deque(pool.submit(stage, chosen) for chosen in islice(rest, NUM_AHEAD))
        while coming:
            copied, is_copied = coming.popleft().result()
            coming.extend(pool.submit(stage, chosen) for chosen in islice(rest, 1))
            if is_copied is not None:
                computing = torch.cuda.current_stream(device)
                computing.wait_event(is_copied)
                copied.record_stream(computing)
            yield copied


@cache
def _find_copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Return this process's stream for copies to a device: the blocks that torch's allocator keeps belong to a stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def describe_place(images: PlacedImages, device: torch.device) -> str:
    """Return "streamed", or "device" or "host" for a trial on a CUDA device; "" for images in the one memory of a CPU."""
    if isinstance(images, StreamedImages):
        return STREAMED
    return "" if device.type == "cpu" else DEVICE if images.device.type == device.type else HOST


class ResidentImages:
    """The images of a process's trials, which stay where they are from trial to trial."""

    def __init__(self) -> None:
        """Hold none yet."""
        self._held: tuple[ImageArray, torch.device, Tensor] | None = None
        self.num_gpus = 1.0

    def place(self, images: ImageArray, device: torch.device) -> PlacedImages:
        """Return the images as in `place_images`; those of the last call if they are the same on the same device.

        Images that are left in the host's memory are tried again, since the device may have more free memory now.
        """
        if self._held is not None:
            held, where, tensor = self._held
            if held is images and where == device and tensor.device.type == device.type:
                return tensor
            # Freed before others are placed.
            del tensor
        self._held = None
        placed = place_images(images, device, self.num_gpus)
        if isinstance(placed, Tensor):
            self._held = (images, device, placed)
        return placed


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialData:
    """The images and splits of a study's trials. Pickles memory-mapped images as the name of their file.

    Attributes:
        images: (N, H, W, 3) uint8; may be read-only, memory-mapped or streamed. They are not copied on the CPU.
        labels: (N,) int64 in [0, K).
        splits: Indices of the four splits.
        class_names: K names.
        class_groups: Named groups of class names.
        groups: (N,) int64, number of the group of each image; None where images are independent.
        reload: Loads the images from their source within a memory budget; called on a node without the mapped file or the
            encoded images.
    """

    images: ImageArray
    labels: NDArray[np.int64]
    splits: Splits
    class_names: tuple[str, ...]
    class_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: NDArray[np.int64] | None = None
    reload: Callable[[ImageMemoryBudget], object] | None = None

    def of_trial(self, config: TrialConfig) -> "TrialData":
        """Return the data of a trial: with its fold as the test split, and all other images of the splits as the training split.

        The search and the confirm split stay as they are, and such a trial trains on their images too: its scores there say
        nothing about images that it has not seen. Without a fold, the data are the same for all trials.
        """
        if not config.fold:
            return self
        place, number = map(int, config.fold.split("/"))
        splits, test = self.splits, self.splits.test
        groups = None if self.groups is None else self.groups[test]
        held_out = test[cut_folds(self.labels[test], groups, number, config.seed) == place]
        used = np.concatenate([getattr(splits, name) for name in SPLIT_NAMES])
        return replace(self, splits=replace(splits, train=np.setdiff1d(used, held_out), test=held_out))

    def __reduce__(self) -> tuple[Callable[..., "TrialData"], tuple[object, ...]]:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        mapped = None
        if isinstance(self.images, np.memmap):
            mapped = Path(str(values.pop("images").filename)), self.images.shape
        elif isinstance(self.images, StreamedImages):
            values["images"] = replace(self.images, reload=self.reload, _workers=None)
        return _unpack_data, (values, mapped)


def _unpack_data(values: dict[str, Any], mapped: tuple[Path, tuple[int, ...]] | None) -> TrialData:
    images = values["images"] if mapped is None else open_mapped(*mapped, values["reload"])
    return TrialData(**{**values, "images": images})


MOST_NAMED = 5


def choose_training_images(config: TrialConfig, train: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the training split without the images of `leave_out`.

    Args:
        config: of the trial; reads `leave_out`, sample ids with spaces between them.
        train: (N,) sample ids of the training split.

    Raises:
        UserInputError: if an image that is to be left out is not in the split, or fewer than two are left.
    """
    left_out = np.array(config.word("leave_out").split(), dtype=np.int64)
    unknown = np.setdiff1d(left_out, train)
    if len(unknown):
        raise UserInputError(
            f"train.leave_out must name images of the training split, but {len(unknown)} of its {len(left_out)} are not in it "
            f"({list_some(unknown, MOST_NAMED)})"
        )
    kept = train[~np.isin(train, left_out)]
    if len(kept) < 2:
        without = f", {len(left_out)} of which train.leave_out leaves out" if len(left_out) else ""
        raise UserInputError(f"training needs at least 2 images, but the training split has {len(train)}{without}")
    return kept
