"""Features of a frozen pretrained backbone, cached by the content of images and weights."""

import contextlib
import hashlib
import os
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn
from torch.nn import functional

from search_spaces.config import TrialConfig
from trainables.data.image_memory import default_folder
from trainables.models.backbones import build_model, place_model
from trainables.models.heads import remove_head
from trainables.training.evaluation import compute_logits

BATCH_SIZE = 128
# Entries that the cache keeps, the newest; one of 5,000 images and 512 features has 10 MB.
MAX_ENTRIES = 100
# Part of each key: another way to compute features gets another number.
VERSION = 1

Images = NDArray[np.uint8]


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
        pixels = batch.permute(0, 3, 1, 2).to(torch.float32)
        resized = functional.interpolate(pixels, size=(side, side), mode=interpolation, antialias=True)
        batches.append(resized.clamp_(0.0, 255.0).round_().to(torch.uint8).permute(0, 2, 3, 1))
    return torch.cat(batches).contiguous().numpy()


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenBackbone:
    """A backbone without its head, evaluated as a trial's model is.

    Attributes:
        model: placed on `device`; returns features.
        config: gives image size, interpolation, memory layout and precision.
        device: of the model.
        identity: of the weights, from their content.
        cache: folder of the cache.
    """

    model: nn.Module
    config: TrialConfig
    device: torch.device
    identity: str
    cache: Path

    @classmethod
    def build(
        cls, config: TrialConfig, weights: str, device: torch.device, cache: Path | None = None
    ) -> "FrozenBackbone":
        """Return the backbone of a configuration.

        Args:
            config: as for `trainables.models.backbones.build_model`; its `weights` are the identity of the weights.
            weights: their location on this machine.
            device: to compute on.
            cache: folder of the cache; None for the user's.

        Raises:
            UserInputError: for weights that are missing or do not fit the backbone.
        """
        model = build_model(config, 2, weights=weights)
        remove_head(model)
        return cls(
            model=place_model(model, config, device),
            config=config,
            device=device,
            identity=config.word("weights"),
            cache=cache or default_cache(),
        )

    def compute(
        self, images: Images, digest: str, *, side: int | None = None, interpolation: str | None = None
    ) -> NDArray[np.float32]:
        """Return (N, D) float32 features of images, from the cache if they are there.

        Args:
            images: (N, H, W, 3) uint8.
            digest: `digest_images(images)`.
            side: images are downscaled to it first, then resized to the model's input as all are; None for as they are.
            interpolation: of both steps, "bicubic" or "bilinear"; None for that of the configuration.
        """
        interpolation = interpolation or self.config.word("interpolation")
        path = self.cache / f"{self._key(digest, side, interpolation)}.safetensors"
        found = _read(path)
        if found is not None:
            return found
        small = images if side is None else downscale(images, side, interpolation)
        features = compute_logits(
            self.model,
            torch.from_numpy(np.array(small)),
            np.arange(len(small)),
            _with_interpolation(self.config, interpolation),
            self.device,
            BATCH_SIZE,
        )
        _write(path, features)
        return features

    def _key(self, digest: str, side: int | None, interpolation: str) -> str:
        names = ("backbone", "image_size", "precision", "channels_last")
        parts = [
            VERSION,
            self.identity,
            digest,
            side,
            interpolation,
            self.device.type,
            *(self.config[n] for n in names),
        ]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _with_interpolation(config: TrialConfig, interpolation: str) -> TrialConfig:
    fixed = {name: value for name, value in config.fixed.items() if name != "interpolation"}
    return replace(config, fixed=fixed, hyperparameters={**config.hyperparameters, "interpolation": interpolation})


def _read(path: Path) -> NDArray[np.float32] | None:
    """Return the features in a file, which counts as used now; None if there is none, or it is damaged."""
    try:
        features: NDArray[np.float32] = load_file(path)["features"]
        os.utime(path)
    except (OSError, SafetensorError, KeyError):
        return None
    return features


def _write(path: Path, features: NDArray[np.float32]) -> None:
    """Write features aside, then put the file in place; delete the oldest entries. A cache that cannot be written is left out."""
    partial = path.with_name(f".{path.stem}-{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"features": np.ascontiguousarray(features)}, partial)
        partial.replace(path)
        entries = sorted(path.parent.glob("*.safetensors"), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in entries[MAX_ENTRIES:]:
            old.unlink(missing_ok=True)
    except (OSError, SafetensorError):
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
