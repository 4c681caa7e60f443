"""`TrainableRun`: a trial that a `Trainable` trains."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from trainables.training.checkpoint import Checkpoint
from trainables.training.trainable import GuardedTrainable
from trainables.training.trial_data import TrialData
from trainables.training.trial_run import TrialRun

# Name of the loop's state among the tensors of a checkpoint and in the file of the final weights.
STATE = "state"
NUM_TRIED_PER_CLASS = 8


class TrainableRun(TrialRun):
    """A trial that a `Trainable` trains, epoch by epoch. An epoch is not interrupted; a request to stop takes effect after it."""

    def __init__(
        self,
        config: TrialConfig,
        data: TrialData,
        *,
        device: torch.device,
        checkpoint: Checkpoint | None = None,
        profile: bool = False,
    ) -> None:
        """Build the loop, or restore it from a checkpoint.

        Args:
            config: Configuration of the trial; `trainable` names the class.
            data: Images and splits. The loop gets the images and labels of the training split alone.
            device: Device that the trial holds, for its records; the loop chooses where it computes.
            checkpoint: State to continue from.
            profile: Whether the metrics include `part_seconds`.

        Raises:
            UserInputError: If the class cannot be used, or for a checkpoint of another configuration.
        """
        super().__init__(config, data, device, profile=profile)
        self._loop = GuardedTrainable(config.word("trainable"), len(data.class_names))
        train = data.splits.train
        self._loop.build(config, data.images[train], data.labels[train])
        if checkpoint is not None:
            checkpoint.check_configuration(config)
            self.history = checkpoint.history
            self._loop.restore(unpack_state(checkpoint.model_state))

    @property
    def _num_images_of_epoch(self) -> int:
        return len(self._data.splits.train)

    def _train_epoch(self, epoch: int, should_stop: Callable[[], bool]) -> float:  # noqa: ARG002 - it cannot be interrupted
        with self.stopwatch.part("forward"):
            return self._loop.run_epoch()

    def _compute_logits(self, split: str) -> NDArray[np.float32]:
        return self._loop.predict(self._data.images[getattr(self._data.splits, split)])

    def _compute_cross_entropy(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
        log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
        return -float(log_probabilities[np.arange(len(labels)), labels].mean())

    def state_dict(self) -> dict[str, Tensor]:
        """Return the loop's state as one tensor, which is stored where other trials store their weights."""
        return pack_state(self._loop.checkpoint())

    def complete_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state of a checkpoint, which is complete."""
        return dict(state)

    def checkpoint(self) -> Checkpoint:
        """Return the state that the next epoch depends on."""
        return Checkpoint(
            fingerprint=self.config.fingerprint,
            epoch=self.epoch,
            model_state=self.state_dict(),
            optimizer_state={},
            num_steps=self.epoch,
            learning_rates=(),
            history=self.history,
        )


def try_trainable(config: TrialConfig, data: TrialData) -> None:
    """Train one epoch on a few images, and predict before and after a checkpoint is restored.

    Args:
        config: Configuration of a trial; `trainable` names the class.
        data: Images and splits; at most `NUM_TRIED_PER_CLASS` training images of each class are used.

    Raises:
        UserInputError: Naming the method that fails or breaks its promise, and what came back.
    """
    train, labels = data.splits.train, data.labels[data.splits.train]
    few = np.sort(np.concatenate([train[labels == k][:NUM_TRIED_PER_CLASS] for k in range(len(data.class_names))]))
    images = data.images[few]
    name, num_classes = config.word("trainable"), len(data.class_names)
    loop = GuardedTrainable(name, num_classes)
    loop.build(config, images, data.labels[few])
    loop.run_epoch()
    before = loop.predict(images)
    again = GuardedTrainable(name, num_classes)
    again.restore(loop.checkpoint())
    after = again.predict(images)
    if not np.array_equal(before, after, equal_nan=True):
        raise UserInputError(
            f"{name}.restore must bring back what predicts, but the logits of {len(few)} training images differ by up to "
            f"{np.abs(before - after).max():g} after checkpoint and restore; put all that predict depends on into checkpoint"
        )


def pack_state(state: bytes) -> dict[str, Tensor]:
    """Return the state of a loop as a state dict of one (n,) uint8 tensor."""
    return {STATE: torch.frombuffer(bytearray(state), dtype=torch.uint8)}


def unpack_state(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the state of a loop from `pack_state`."""
    return tensors[STATE].numpy().tobytes()
