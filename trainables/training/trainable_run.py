"""`TrainableRun`: a trial that a `Trainable` trains, with the interface of `TrainingRun`."""

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, nearest_name
from trainables.data.splits import SPLIT_NAMES
from trainables.devices import peak_memory_bytes
from trainables.training.checkpoint import Checkpoint
from trainables.training.epoch_metrics import EpochMetrics
from trainables.training.evaluation import compute_per_class_f1
from trainables.training.predictions import Predictions
from trainables.training.stopwatch import Stopwatch
from trainables.training.trainable import GuardedTrainable
from trainables.training.trial_data import TrialData

# Name of the loop's state among the tensors of a checkpoint and in the file of the final weights.
STATE = "state"
NUM_TRIED_PER_CLASS = 8


class TrainableRun:
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
        self.config = config
        self.device = device
        self.stopwatch = Stopwatch(device, enabled=profile)
        self._data = data
        self._loop = GuardedTrainable(config.word("trainable"), len(data.class_names))
        train = data.splits.train
        self._loop.build(config, data.images[train], data.labels[train])
        self._history: tuple[EpochMetrics, ...] = ()
        if checkpoint is not None:
            checkpoint.check_configuration(config)
            self._history = checkpoint.history
            self._loop.restore(unpack_state(checkpoint.model_state))

    @property
    def images_on(self) -> str:
        """Where the images are, which the custom loop decides: ""."""
        return ""

    def close(self) -> None:
        """Release what the run holds outside of this process, which is nothing."""

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self._history)

    @property
    def history(self) -> tuple[EpochMetrics, ...]:
        """Metrics of the finished epochs."""
        return self._history

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are finished."""
        return self.epoch >= self.config.whole("max_epochs")

    @property
    def num_parameters(self) -> int:
        """0, because what a custom loop trains is not known."""
        return 0

    def run_epoch(self, *, should_stop: Callable[[], bool] = lambda: False) -> EpochMetrics:  # noqa: ARG002
        """Train one epoch, evaluate on the search split and return the epoch's metrics; see `TrainingRun.run_epoch`.

        Args:
            should_stop: Not called, because an epoch of the loop cannot be interrupted.
        """
        if self.is_finished:
            raise RuntimeError(f"the trial has finished its {self.epoch} epochs")
        started = time.perf_counter()
        with self.stopwatch.part("forward"):
            train_loss = self._loop.run_epoch()
        trained = time.perf_counter()
        with self.stopwatch.part("evaluate"):
            search_loss, per_class_f1 = self._evaluate()
        metrics = EpochMetrics(
            epoch=self.epoch + 1,
            train_loss=train_loss,
            search_loss=search_loss,
            macro_f1=float(per_class_f1.mean()),
            per_class_f1=tuple(per_class_f1.tolist()),
            head_lr=0.0,
            backbone_lr=0.0,
            train_seconds=trained - started,
            evaluate_seconds=time.perf_counter() - trained,
            train_images_per_second=len(self._data.splits.train) / (trained - started),
            peak_memory_bytes=peak_memory_bytes(self.device),
            part_seconds=tuple(self.stopwatch.take().items()),
        )
        self._history = (*self._history, metrics)
        return metrics

    def predict(self, split: str) -> Predictions:
        """Return predictions on "train", "search", "confirm" or "test".

        Raises:
            UserInputError: For another name, or if the logits are not finite.
        """
        if split not in SPLIT_NAMES:
            raise UserInputError(f"there is no split {split!r}{nearest_name(split, SPLIT_NAMES)}")
        indices: NDArray[np.int64] = getattr(self._data.splits, split)
        logits = self._loop.predict(self._data.images[indices])
        return Predictions(sample_ids=indices, labels=self._data.labels[indices], logits=logits, split=split)

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
            history=self._history,
        )

    def _evaluate(self) -> tuple[float, NDArray[np.float64]]:
        """Return cross-entropy and per-class F1 on the search split; NaN if a logit is not finite."""
        indices, num_classes = self._data.splits.search, len(self._data.class_names)
        labels = self._data.labels[indices]
        logits = self._loop.predict(self._data.images[indices])
        if not np.isfinite(logits).all():
            return float("nan"), np.full(num_classes, np.nan)
        log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
        loss = -float(log_probabilities[np.arange(len(labels)), labels].mean())
        return loss, compute_per_class_f1(labels, logits.argmax(axis=1), num_classes)


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
