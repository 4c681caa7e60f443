"""`Checkpoint`: the state of a trial between two steps, as one safetensors blob without pickles."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from trainables.damaged_files import decoding
from trainables.training.epoch_metrics import EpochMetrics

CHECKPOINT_VERSION = 2
_METADATA_KEY = "abstudy_checkpoint"  # a single key, since safetensors writes several in random order
_MODEL, _OPTIMIZER, _AVERAGE, _PARTIAL = "model/", "optimizer/", "average/", "partial/"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartialEpoch:
    """An epoch that was interrupted before its last step.

    Attributes:
        num_batches: Batches done, which fill whole steps of the optimizer.
        loss_sum: () float32, sum of the losses of those batches.
        generator_state: uint8, state of the augmentation's generator.
        seconds: Wall time of those batches.
        module_state: uint8, state of the generator of dropout and stochastic depth.
    """

    num_batches: int
    loss_sum: Tensor
    generator_state: Tensor
    seconds: float
    module_state: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """The complete state that the next epoch depends on.

    The generators of shuffling and augmentation are derived from the seed and the number of the epoch, so there is no
    generator state between two epochs.

    Attributes:
        fingerprint: Fingerprint of the trial's configuration.
        epoch: Number of finished epochs.
        model_state: State dict of the model.
        optimizer_state: Of SGD, the momentum by parameter name, empty before the first step and for momentum 0; of AdamW, its
            tensors as "name/exp_avg", "name/exp_avg_sq" and "name/step".
        num_steps: Optimizer steps done, which is the position in the schedule.
        learning_rates: Learning rates of the next step, one per parameter group.
        history: One entry per finished epoch.
        partial: The interrupted epoch; None between two epochs.
        average_state: State dict of the model with averaged weights; empty without `ema_decay`.
        loss_scale: Of the loss scale under fp16, `scale`, the factor of the loss, and `num_good_steps`, the steps without an
            overflow since the scale last changed; None unless the precision is fp16.
    """

    fingerprint: str
    epoch: int
    model_state: Mapping[str, Tensor]
    optimizer_state: Mapping[str, Tensor]
    num_steps: int
    learning_rates: tuple[float, ...]
    history: tuple[EpochMetrics, ...]
    partial: PartialEpoch | None = None
    average_state: Mapping[str, Tensor] = field(default_factory=dict)
    loss_scale: Mapping[str, float] | None = None

    def check_configuration(self, config: TrialConfig) -> None:
        """Raise UserInputError if the checkpoint is of another configuration or seed."""
        if self.fingerprint != config.fingerprint:
            raise UserInputError(
                f"the checkpoint must belong to the configuration {config.fingerprint}, but belongs to "
                f"{self.fingerprint}; start the trial without it"
            )

    @property
    def evaluated_state(self) -> Mapping[str, Tensor]:
        """State dict of the model that is evaluated: with averaged weights if there are any."""
        return self.average_state or self.model_state

    @property
    def is_finite(self) -> bool:
        """Whether the last finished epoch had finite metrics and every weight is finite; False before the first epoch."""
        ended_well = bool(self.history) and self.history[-1].is_finite
        weights = (*self.model_state.values(), *self.average_state.values())
        return ended_well and all(bool(torch.isfinite(value).all()) for value in weights)

    def to_bytes(self) -> bytes:
        """Return one safetensors blob: the tensors, and in its metadata a SHA-256 of everything and the other state as JSON."""
        states = {_MODEL: self.model_state, _OPTIMIZER: self.optimizer_state, _AVERAGE: self.average_state}
        tensors = {part + name: _portable(value) for part, state in states.items() for name, value in state.items()}
        partial = None
        if self.partial is not None:
            for name in ("loss_sum", "generator_state", "module_state"):
                tensors[_PARTIAL + name] = _portable(getattr(self.partial, name))
            partial = {"num_batches": self.partial.num_batches, "seconds": self.partial.seconds}
        # Absent without a loss scale, so that checkpoints without one keep their bytes.
        loss_scale = {} if self.loss_scale is None else {"loss_scale": dict(self.loss_scale)}
        state = json.dumps(
            {
                "version": CHECKPOINT_VERSION,
                "fingerprint": self.fingerprint,
                "epoch": self.epoch,
                "num_steps": self.num_steps,
                "learning_rates": list(self.learning_rates),
                "history": [metrics.model_dump(mode="json") for metrics in self.history],
                "partial": partial,
                **loss_scale,
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
        partial: dict[str, Any] = (state["partial"] or {}) | _select(tensors, _PARTIAL)
        return cls(
            fingerprint=state["fingerprint"],
            epoch=state["epoch"],
            model_state=_select(tensors, _MODEL),
            optimizer_state=_select(tensors, _OPTIMIZER),
            num_steps=state["num_steps"],
            learning_rates=tuple(state["learning_rates"]),
            history=tuple(EpochMetrics.model_validate(metrics, strict=False) for metrics in state["history"]),
            partial=PartialEpoch(**partial) if partial else None,
            average_state=_select(tensors, _AVERAGE),
            loss_scale=state.get("loss_scale"),
        )


def _portable(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _select(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _read_metadata(data: bytes) -> str:
    """Return the product's entry in the header of a safetensors blob (8 bytes little-endian length, then JSON)."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return str(header["__metadata__"][_METADATA_KEY])


def _compute_checksum(state: str, tensors: Mapping[str, Tensor]) -> str:
    """Return SHA-256 (hex) of the JSON text and of each tensor's name, dtype, shape and bytes, in the order of the names."""
    digest = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
