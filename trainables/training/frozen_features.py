"""Features of a frozen backbone, cached by the content of images and weights; large ones are mapped from their file."""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor, nn

from search_spaces.config import TrialConfig
from search_spaces.settings import UNMIXED
from trainables.data.augmentation.pipeline import AugmentationSettings, augment_batch, resize_batch
from trainables.data.image_memory import default_folder
from trainables.devices import describe_libraries
from trainables.models.backbones import build_model, place_model, read_augmentation
from trainables.models.heads import find_head
from trainables.seeds import torch_generator
from trainables.training.evaluation import compute_logits
from trainables.training.trial_data import PlacedImages, gather_images

BATCH_SIZE = 128
# Images whose features are in memory at once while they are computed.
CHUNK_IMAGES = 64 * BATCH_SIZE
# What the cache keeps, the newest first.
MAX_ENTRIES, MAX_BYTES = 200, 8e9
# Part of each key: another way to compute features gets another number.
VERSION = 2
SUFFIX = ".npy"
# Images in memory whose pixels are part of the key of a set, beside the fingerprint of the whole.
NUM_DIGESTED = 4096

Images = NDArray[np.uint8]
Features = NDArray[np.float32]


def default_cache() -> Path:
    """Return the default folder of the cache: abstudy/features in the user's cache folder."""
    return default_folder().parent / "features"


def digest_images(images: Images) -> str:
    """Return a digest of images and their shape."""
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def downscale(images: Images, side: int, interpolation: str) -> Images:
    """Return (N, side, side, 3) uint8 images, resized with antialiasing; images of this side are returned as they are."""
    if images.shape[1:3] == (side, side):
        return images
    batches = []
    for batch in torch.split(torch.from_numpy(np.array(images)), BATCH_SIZE):
        resized = resize_batch(batch, side, interpolation)
        batches.append(resized.clamp_(0.0, 255.0).round_().to(torch.uint8).permute(0, 2, 3, 1))
    return torch.cat(batches).contiguous().numpy()


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenBackbone:
    """A backbone without its head, evaluated as a trial's model is.

    Attributes:
        model: placed on `device`; returns features.
        config: gives image size, interpolation, memory layout, precision and the augmentation of views.
        device: of the model.
        identity: of the weights, from their content.
        cache: folder of the cache; by default the user's.
    """

    model: nn.Module
    config: TrialConfig
    device: torch.device
    identity: str
    cache: Path = field(default_factory=default_cache)

    @classmethod
    def build(cls, config: TrialConfig, weights: str, device: torch.device) -> "FrozenBackbone":
        """Return the backbone of a configuration.

        Args:
            config: as for `trainables.models.backbones.build_model`; its `weights` are the identity of the weights.
            weights: their location on this machine.
            device: to compute on.

        Raises:
            UserInputError: for weights that are missing or do not fit the backbone.
        """
        model = build_model(config, 2, weights=weights)
        # Without its head, it returns its features.
        model.set_submodule(find_head(model)[0], nn.Identity())
        model = place_model(model, config, device)
        return cls(model=model, config=config, device=device, identity=digest_weights(model))

    def compute(
        self, images: Images, digest: str, *, side: int | None = None, interpolation: str | None = None
    ) -> Features:
        """Return (N, D) float32 features of images, from the cache if they are there.

        Args:
            images: (N, H, W, 3) uint8.
            digest: `digest_images(images)`.
            side: images are downscaled to it first, then resized to the model's input as all are; None for as they are.
            interpolation: of both steps, "bicubic" or "bilinear"; None for that of the configuration.
        """
        interpolation = interpolation or self.config.word("interpolation")

        def place() -> PlacedImages:
            return torch.from_numpy(np.array(images if side is None else downscale(images, side, interpolation)))

        backbone = replace(self, config=self.config.with_values({"interpolation": interpolation}))
        return backbone._recall((digest, side), place, np.arange(len(images)))

    def compute_part(self, images: PlacedImages, indices: NDArray[np.int64], digest: str, *, view: int = 0) -> Features:
        """Return (N, D) float32 features of some images of a set, from the cache if they are there.

        Args:
            images: of the whole set.
            indices: (N,) int64, indices into `images`.
            digest: of the whole set.
            view: 0 for the images as they are evaluated, and other numbers for other draws of the training augmentation, without
                what mixes images.
        """
        seen = hashlib.sha256(np.ascontiguousarray(indices, dtype="<i8").tobytes())
        if isinstance(images, Tensor):
            for some in torch.split(torch.from_numpy(np.array(indices[:NUM_DIGESTED])), BATCH_SIZE):
                seen.update(gather_images(images, some, torch.device("cpu")).numpy().tobytes())
        return self._recall((digest, seen.hexdigest(), view), lambda: images, indices, view)

    def _recall(
        self, what: tuple[object, ...], place: Callable[[], PlacedImages], indices: NDArray[np.int64], view: int = 0
    ) -> Features:
        """Return features from the cache, or compute and keep them; another process that computes them is waited for."""
        path = self.cache / f"{self._key(what, view)}{SUFFIX}"
        with _locked(path):
            found = _read(path)
            if found is None:
                found = _keep(path, len(indices), self._compute_chunks(place(), indices, view))
        return found

    def _compute_chunks(self, images: PlacedImages, indices: NDArray[np.int64], view: int) -> Iterator[Features]:
        generator = torch_generator(0, "probe view", view, device=self.device)

        def augment(pixels: Tensor) -> Tensor:
            labels = torch.zeros(len(pixels), dtype=torch.int64, device=self.device)
            return augment_batch(pixels, labels, generator=generator, settings=self._augmentation, num_classes=1)[0]

        for first in range(0, len(indices), CHUNK_IMAGES):
            chunk, prepare = indices[first : first + CHUNK_IMAGES], augment if view else None
            yield compute_logits(self.model, images, chunk, self.config, self.device, BATCH_SIZE, prepare)

    @property
    def _augmentation(self) -> AugmentationSettings:
        """The augmentation of views: without what mixes images."""
        return read_augmentation(self.config).model_copy(update=UNMIXED)

    def _key(self, what: tuple[object, ...], view: int) -> str:
        """Return the name of an entry; threads and libraries affect the last digits, and with them the trials."""
        names = ("backbone", "image_size", "interpolation", "precision", "channels_last", "tf32", "deterministic")
        machine = (self.device.type, describe_libraries(self.device), torch.get_num_threads())
        parts = [VERSION, self.identity, *what, *machine, *(self.config[name] for name in names)]
        if view:
            parts.append(self._augmentation.model_dump_json())
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


@contextmanager
def borrow_backbone(
    model: nn.Module, config: TrialConfig, device: torch.device, identity: str = ""
) -> Iterator[FrozenBackbone]:
    """Yield the backbone of a placed model of `build_model`, whose head is taken off in the meantime and which evaluates.

    The identity of the weights is that of `digest_weights`, and is computed unless it is given.
    """
    name, head = find_head(model)
    was_training = model.training
    model.set_submodule(name, nn.Identity())
    try:
        model.eval()
        yield FrozenBackbone(model=model, config=config, device=device, identity=identity or digest_weights(model))
    finally:
        model.set_submodule(name, head)
        model.train(was_training)


def digest_weights(model: nn.Module) -> str:
    """Return a digest of the parameters and buffers of a model."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of an entry, where its folder can be written."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.parent / "locks" / f"{path.stem}.lock"
            lock.parent.mkdir(exist_ok=True)
            stack.enter_context(FileLock(lock))
        yield


def _read(path: Path) -> Features | None:
    """Return the features in a file, which counts as used now; None if there is none, or it is damaged."""
    try:
        features: Features = np.load(path, mmap_mode="r", allow_pickle=False)
        os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    return features


def _keep(path: Path, num_images: int, chunks: Iterator[Features]) -> Features:
    """Write chunks of features aside, then put the file in place, from which they are mapped; delete the oldest entries.

    Where the cache cannot be written, the features are in memory.
    """
    partial, first = path.with_name(f".{path.stem}-{uuid.uuid4().hex}.partial"), 0
    found: Any = None
    for chunk in chunks:
        if found is None:
            found = _allocate(partial, (num_images, chunk.shape[1]))
        found[first : first + len(chunk)] = chunk
        first += len(chunk)
    if isinstance(found, np.memmap):
        found.flush()
        with contextlib.suppress(OSError):
            partial.replace(path)
            _forget(path.parent)
    return found  # type: ignore[no-any-return]


def _allocate(path: Path, shape: tuple[int, int]) -> Features:
    try:
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    except OSError:
        return np.empty(shape, dtype=np.float32)


def _forget(folder: Path) -> None:
    """Delete the entries that were not used for longest, beyond `MAX_ENTRIES` or `MAX_BYTES`."""
    entries = sorted(folder.glob(f"*{SUFFIX}"), key=lambda p: p.stat().st_mtime, reverse=True)
    total = 0.0
    for number, entry in enumerate(entries):
        total += entry.stat().st_size
        if number >= MAX_ENTRIES or (total > MAX_BYTES and number):
            entry.unlink(missing_ok=True)
