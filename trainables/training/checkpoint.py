"""`Checkpoint`: a trial between two steps, as one safetensors blob. There is no pickle in it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainables.damaged_files import decoding
from trainables.training.epoch_metrics import EpochMetrics

CHECKPOINT_VERSION = 2
_METADATA_KEY = "abstudy_checkpoint"  # one key only: safetensors writes several in random order
_MODEL, _OPTIMIZER, _PARTIAL = "model/", "optimizer/", "partial/"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartialEpoch:
    """An epoch that was left before its last step.

    Attributes:
        num_batches: steps done.
        loss_sum: () float32, of those steps.
        generator_state: of the augmentation's generator, uint8.
        seconds: wall time of those steps.
    """

    num_batches: int
    loss_sum: Tensor
    generator_state: Tensor
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """Everything that the next epoch depends on.

    The generators of shuffling and augmentation are derived anew for every epoch from the seed and the epoch's
    number, so at an epoch's boundary there is no generator state to keep.

    Attributes:
        fingerprint: of the trial's configuration.
        epoch: epochs finished.
        model_state: the model's state dict.
        optimizer_state: momentum buffers by parameter name; empty before the first step and for momentum 0.
        num_steps: optimizer steps done, the schedule's position.
        learning_rates: of the next step, one per parameter group.
        history: one entry per epoch finished.
        partial: the epoch that was left before its end; None at an epoch's boundary.
    """

    fingerprint: str
    epoch: int
    model_state: Mapping[str, Tensor]
    optimizer_state: Mapping[str, Tensor]
    num_steps: int
    learning_rates: tuple[float, ...]
    history: tuple[EpochMetrics, ...]
    partial: PartialEpoch | None = None

    def to_bytes(self) -> bytes:
        """Return one safetensors blob: the tensors, and as metadata a SHA-256 over everything and the rest as JSON."""
        tensors = {
            **{_MODEL + name: _portable(value) for name, value in self.model_state.items()},
            **{_OPTIMIZER + name: _portable(value) for name, value in self.optimizer_state.items()},
        }
        partial = None
        if self.partial is not None:
            tensors[_PARTIAL + "loss_sum"] = _portable(self.partial.loss_sum)
            tensors[_PARTIAL + "generator_state"] = _portable(self.partial.generator_state)
            partial = {"num_batches": self.partial.num_batches, "seconds": self.partial.seconds}
        state = json.dumps(
            {
                "version": CHECKPOINT_VERSION,
                "fingerprint": self.fingerprint,
                "epoch": self.epoch,
                "num_steps": self.num_steps,
                "learning_rates": list(self.learning_rates),
                "history": [metrics.model_dump(mode="json") for metrics in self.history],
                "partial": partial,
            },
            allow_nan=False,
        )
        return bytes(save(tensors, metadata={_METADATA_KEY: f"{_compute_checksum(state, tensors)} {state}"}))

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = "the checkpoint") -> "Checkpoint":
        """Rebuild a checkpoint from `to_bytes`.

        Args:
            data: The blob.
            where: Path or URI of the file, for messages.

        Raises:
            DamagedFileError: If it is not a checkpoint of this version, or if any bit of it has changed.
        """
        with decoding(where, SafetensorError):
            checksum, _, state_text = _read_metadata(data).partition(" ")
            tensors = load(data)
            if _compute_checksum(state_text, tensors) != checksum:
                raise ValueError("its content does not match its checksum")
            state = json.loads(state_text)
            if state["version"] != CHECKPOINT_VERSION:
                raise ValueError(f"its version is {state['version']}, but must be {CHECKPOINT_VERSION}")
        return cls(
            fingerprint=state["fingerprint"],
            epoch=state["epoch"],
            model_state=_select(tensors, _MODEL),
            optimizer_state=_select(tensors, _OPTIMIZER),
            num_steps=state["num_steps"],
            learning_rates=tuple(state["learning_rates"]),
            history=tuple(EpochMetrics.model_validate(metrics, strict=False) for metrics in state["history"]),
            partial=_partial_epoch(tensors, state["partial"]),
        )


def _portable(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _select(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _partial_epoch(tensors: Mapping[str, Tensor], values: dict[str, Any] | None) -> PartialEpoch | None:
    if values is None:
        return None
    return PartialEpoch(
        num_batches=values["num_batches"],
        seconds=values["seconds"],
        loss_sum=tensors[_PARTIAL + "loss_sum"],
        generator_state=tensors[_PARTIAL + "generator_state"],
    )


def _read_metadata(data: bytes) -> str:
    """Return our entry in the header of a safetensors blob: 8 bytes little-endian length, then the JSON header."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return str(header["__metadata__"][_METADATA_KEY])


def _compute_checksum(state: str, tensors: Mapping[str, Tensor]) -> str:
    """Return SHA-256 (hex) over the JSON text and every tensor's name, dtype, shape and bytes, by name."""
    digest = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
