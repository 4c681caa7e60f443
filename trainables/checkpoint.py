"""`Checkpoint`: a trial at an epoch's boundary, as one safetensors blob. There is no pickle in it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainables.epoch_metrics import EpochMetrics
from trainables.record import DamagedFileError

CHECKPOINT_VERSION = 1
_METADATA_KEY = "abstudy_checkpoint"  # one key only: safetensors writes several in random order
_MODEL, _OPTIMIZER = "model/", "optimizer/"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """Everything that the next epoch depends on.

    The generators of shuffling and augmentation are derived anew for every epoch from the seed and the epoch's
    number, so at a boundary there is no generator state to keep.

    Attributes:
        fingerprint: of the trial's configuration.
        epoch: epochs finished.
        model_state: the model's state dict.
        optimizer_state: momentum buffers by parameter name; empty before the first step and for momentum 0.
        num_steps: optimizer steps done, the schedule's position.
        learning_rates: of the next step, one per parameter group.
        history: one entry per epoch finished.
    """

    fingerprint: str
    epoch: int
    model_state: Mapping[str, Tensor]
    optimizer_state: Mapping[str, Tensor]
    num_steps: int
    learning_rates: tuple[float, ...]
    history: tuple[EpochMetrics, ...]

    def to_bytes(self) -> bytes:
        """Return one safetensors blob: the tensors, and as metadata a SHA-256 over everything and the rest as JSON."""
        tensors = {
            **{_MODEL + name: _portable(value) for name, value in self.model_state.items()},
            **{_OPTIMIZER + name: _portable(value) for name, value in self.optimizer_state.items()},
        }
        state = json.dumps(
            {
                "version": CHECKPOINT_VERSION,
                "fingerprint": self.fingerprint,
                "epoch": self.epoch,
                "num_steps": self.num_steps,
                "learning_rates": list(self.learning_rates),
                "history": [metrics.to_dict() for metrics in self.history],
            },
            allow_nan=False,
        )
        return bytes(save(tensors, metadata={_METADATA_KEY: f"{_compute_checksum(state, tensors)} {state}"}))

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = "the checkpoint") -> "Checkpoint":
        """Rebuild from `to_bytes`; raise DamagedFileError, naming `where`, for anything else or a changed bit."""
        advice = "delete it to start the trial from its beginning"
        try:
            checksum, _, state_text = _read_metadata(data).partition(" ")
            tensors = load(data)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError):
            raise DamagedFileError(
                f"{where} must be a checkpoint of a trial, but is not or is cut off; {advice}"
            ) from None
        if _compute_checksum(state_text, tensors) != checksum:
            raise DamagedFileError(f"{where} must match its checksum, but its content has changed; {advice}")
        state = json.loads(state_text)
        if state["version"] != CHECKPOINT_VERSION:
            raise DamagedFileError(
                f"{where} must have version {CHECKPOINT_VERSION}, but has {state['version']}; {advice}"
            )
        return cls(
            fingerprint=state["fingerprint"],
            epoch=state["epoch"],
            model_state=_select(tensors, _MODEL),
            optimizer_state=_select(tensors, _OPTIMIZER),
            num_steps=state["num_steps"],
            learning_rates=tuple(state["learning_rates"]),
            history=tuple(EpochMetrics.from_dict(metrics) for metrics in state["history"]),
        )


def _portable(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _select(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


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
