"""`TrialRun`: the training of one trial, epoch by epoch, independent of Ray, TensorBoard and storage; that by a `Trainable`."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, check_choice
from trainables.data.splits import SPLIT_NAMES
from trainables.devices import peak_memory_bytes
from trainables.training.checkpoint import Checkpoint
from trainables.training.epoch_metrics import EpochMetrics, Stopwatch
from trainables.training.evaluation import compute_per_class_f1
from trainables.training.predictions import Predictions
from trainables.training.trainable import GuardedTrainable
from trainables.training.trial_data import TrialData


class EpochInterrupted(Exception):
    """An epoch was interrupted on request. `TrialRun.checkpoint` contains it, and `run_epoch` continues it."""


class TrialRun(ABC):
    """The training of one trial: by the product's loop, `TrainingRun`, or by a custom one, `TrainableRun`.

    Attributes:
        config: Configuration of the trial.
        device: Device that the trial holds.
        stopwatch: Measures the parts of an epoch.
        history: Metrics of the finished epochs.
        num_parameters: Number of trainable parameters; 0 for a custom loop, of which it is not known.
        images_on: Where the images are: "device", "host" or "streamed"; "" in the memory of a CPU, or if a custom loop decides.
    """

    num_parameters = 0
    images_on = ""
    # Of the epoch that was trained last: seconds of an attempt that was interrupted, learning rates of head and backbone.
    _earlier_seconds = 0.0
    _last_rates = (0.0, 0.0)

    def __init__(self, config: TrialConfig, data: TrialData, device: torch.device, *, profile: bool) -> None:
        self.config = config
        self.device = device
        self.stopwatch = Stopwatch(device, enabled=profile)
        self._data = data
        self.history: tuple[EpochMetrics, ...] = ()

    def close(self) -> None:  # noqa: B027 - most have nothing to release
        """Release what the run holds outside of this process, which is nothing."""

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are finished."""
        return self.epoch >= self.config.whole("max_epochs")

    def run_epoch(self, *, should_stop: Callable[[], bool] = lambda: False) -> EpochMetrics:
        """Train one epoch, evaluate on the search split and return the epoch's metrics.

        Args:
            should_stop: Called between two steps; the epoch is interrupted if it returns true. An epoch of a custom loop cannot
                be interrupted.

        Raises:
            EpochInterrupted: If `should_stop` returned true.
            RuntimeError: If all epochs are finished.
        """
        if self.is_finished:
            raise RuntimeError(f"the trial has finished its {self.epoch} epochs")
        started = time.perf_counter()
        train_loss = self.train_epoch(self.epoch + 1, should_stop)
        trained = time.perf_counter()
        train_seconds = self._earlier_seconds + trained - started
        with self.stopwatch.part("evaluate"):
            search_loss, per_class_f1 = self._evaluate()
        metrics = EpochMetrics(
            epoch=self.epoch + 1,
            train_loss=train_loss,
            search_loss=search_loss,
            macro_f1=float(per_class_f1.mean()),
            per_class_f1=tuple(per_class_f1.tolist()),
            head_lr=self._last_rates[0],
            backbone_lr=self._last_rates[1],
            train_seconds=train_seconds,
            evaluate_seconds=time.perf_counter() - trained,
            train_images_per_second=self._num_images_of_epoch / train_seconds,
            peak_memory_bytes=peak_memory_bytes(self.device),
            part_seconds=tuple(self.stopwatch.take().items()),
        )
        self.history = (*self.history, metrics)
        return metrics

    def predict(self, split: str) -> Predictions:
        """Return predictions on "train", "search", "confirm" or "test".

        Raises:
            UserInputError: For another name, or if the logits are not finite.
        """
        check_choice("there is no split", split, SPLIT_NAMES)
        indices, logits = getattr(self._data.splits, split), self._compute_logits(split)
        return Predictions(sample_ids=indices, labels=self._data.labels[indices], logits=logits, split=split)

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Return what a trial stores at its end: the weights, or the state of a custom loop."""

    @abstractmethod
    def complete_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the same of a state dict of what is trained, such as that of a checkpoint."""

    @abstractmethod
    def checkpoint(self) -> Checkpoint:
        """Return a copy of the state that the next epoch depends on."""

    @property
    @abstractmethod
    def _num_images_of_epoch(self) -> int:
        """Images that an epoch trains on."""

    @abstractmethod
    def train_epoch(self, epoch: int, should_stop: Callable[[], bool]) -> float:
        """Train one epoch and return its mean loss."""

    @abstractmethod
    def _compute_logits(self, split: str) -> NDArray[np.float32]:
        """Return (M, K) logits on a split."""

    def _evaluate(self) -> tuple[float, NDArray[np.float64]]:
        """Return cross-entropy and per-class F1 on the search split; NaN if a logit is not finite."""
        labels, num_classes = self._data.labels[self._data.splits.search], len(self._data.class_names)
        logits = self._compute_logits("search")
        if not np.isfinite(logits).all():
            return float("nan"), np.full(num_classes, np.nan)
        predicted = logits.argmax(axis=1).astype(np.int64)
        return self._compute_cross_entropy(logits, labels), compute_per_class_f1(labels, predicted, num_classes)

    def _compute_cross_entropy(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
        return float(torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))


# Name of the loop's state among the tensors of a checkpoint and in the file of the final weights.
STATE = "state"
NUM_TRIED_PER_CLASS = 8


class TrainableRun(TrialRun):
    """A trial that a `Trainable` trains, epoch by epoch. An epoch is not interrupted; a request to stop takes effect after it."""

    def __init__(
        self, config: TrialConfig, data: TrialData, device: torch.device, checkpoint: Checkpoint | None, profile: bool
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

    def train_epoch(self, epoch: int, should_stop: Callable[[], bool]) -> float:  # noqa: ARG002
        """Train one epoch, which cannot be interrupted, and return its loss."""
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
