"""A run that trains nothing under the real `TrialWorker`: its time is simulated, and its scores follow from its state.

The state after an epoch depends on the state before it, so that a wrong checkpoint leads to another score: whatever happens, a
trial's scores must be those of a run that nothing disturbed.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces.config import TrialConfig
from study.confirmation.trained_models import make_test_predictions
from tests.simulation.scheduler import Scheduler, current
from trainables.records.record import TrialRecord
from trainables.records.trial_files import TrialFiles
from trainables.seeds import derive_seed
from trainables.training.checkpoint import Checkpoint
from trainables.training.predictions import Predictions
from trainables.training.trial_data import TrialData
from trainables.training.trial_run import EpochInterrupted, TrialRun
from trainables.trial_worker import TrialWorker

NUM_STEPS = 10
_MODULUS = 2**61 - 1


def first_state(config: TrialConfig) -> int:
    """Return the state of a trial before its first epoch."""
    return derive_seed(config.seed, config.fingerprint) % _MODULUS


def next_state(state: int, epoch: int) -> int:
    """Return the state after an epoch."""
    return (state * 6364136223846793005 + epoch) % _MODULUS


def score(config: TrialConfig, state: int, epoch: int) -> float:
    """Return the macro-F1 after an epoch; NaN for a few trials, which diverge."""
    if first_state(config) % 23 == 0 and epoch == 2:
        return math.nan
    values = dict(config.hyperparameters)
    distance = abs(math.log10(float(values.get("max_lr", 0.05))) - math.log10(0.05))
    ceiling = 0.8 - 0.15 * distance - 0.05 * abs(math.log10(float(values.get("backbone_lr_ratio", 0.1))))
    noise = (state % 1000) / 1000 * 0.05
    # With so few digits that the mean over the classes is the same number.
    return round(max(0.05, (ceiling + noise) * (1 - math.exp(-0.6 * epoch))) * 2**20) / 2**20


def epoch_seconds(config: TrialConfig) -> float:
    """Return what an epoch takes."""
    return (3.0 if config["backbone"] == "resnet50" else 1.0) * (2 + first_state(config) % 5)


def expected_scores(config: TrialConfig) -> list[float | None]:
    """Return the macro-F1 of every epoch of an undisturbed trial, up to one that diverges."""
    state, found = first_state(config), []
    for epoch in range(1, config.whole("max_epochs") + 1):
        state = next_state(state, epoch)
        macro_f1 = score(config, state, epoch)
        found.append(None if math.isnan(macro_f1) else macro_f1)
        if math.isnan(macro_f1):
            break
    return found


class SimulatedRun(TrialRun):
    """A trial that trains nothing; see `make_run` for the arguments."""

    def __init__(
        self, config: TrialConfig, data: TrialData, scheduler: Scheduler, checkpoint: Checkpoint | None
    ) -> None:
        super().__init__(config, data.of_trial(config), torch.device("cpu"), profile=False)
        self._scheduler, self._state, self._epoch_seconds = scheduler, first_state(config), epoch_seconds(config)
        scheduler.sleep(0.5)
        if checkpoint is not None:
            checkpoint.check_configuration(config)
            self.history, self._state = checkpoint.history, int(checkpoint.model_state["state"].item())

    @property
    def _num_images_of_epoch(self) -> int:
        return len(self._data.splits.train)

    def train_epoch(self, epoch: int, should_stop: Callable[[], bool]) -> float:
        task = current()
        assert task is not None
        for _ in range(NUM_STEPS):
            self._scheduler.sleep(self._epoch_seconds / NUM_STEPS)
            if should_stop():
                raise EpochInterrupted
        # Whoever lost the trial before this moment must write nothing of this epoch.
        task.notes["trained"] = self._scheduler.now
        self._state = next_state(self._state, epoch)
        return math.nan if math.isnan(score(self.config, self._state, epoch)) else 1.0

    def _evaluate(self) -> tuple[float, NDArray[np.float64]]:
        return 1.0, np.full(len(self._data.class_names), score(self.config, self._state, self.epoch + 1))

    def _compute_logits(self, split: str) -> NDArray[np.float32]:
        self._scheduler.sleep(0.5)
        return draw_predictions(
            self.config, self._data.labels[getattr(self._data.splits, split)], len(self._data.class_names)
        )

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"state": torch.tensor([self._state])}

    def complete_state(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(state)

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            fingerprint=self.config.fingerprint,
            epoch=self.epoch,
            model_state=self.state_dict(),
            optimizer_state={},
            num_steps=self.epoch * NUM_STEPS,
            learning_rates=(),
            history=self.history,
        )


class SimulatedWorker(TrialWorker):
    """A worker of trials without events, whose process may be asked to fail."""

    def _write_events(self, _: object) -> None:
        pass

    def node_name(self) -> str:
        task = current()
        assert task is not None
        return task.process.host.name


def draw_predictions(config: TrialConfig, labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """Return (N, K) logits that are right for most of N images with these labels."""
    rng = np.random.default_rng(first_state(config))
    wrong = rng.random(len(labels)) < 0.2
    predicted = np.where(wrong, rng.integers(0, num_classes, len(labels)), labels)
    return 4 * np.eye(num_classes, dtype=np.float32)[predicted]


def predict_test(files: TrialFiles, record: TrialRecord, data: TrialData) -> tuple[Predictions, bool]:
    """Return what `study.confirmation.trained_models.predict_test_split` does, with the stored weights read and checked."""
    is_by_model = not record.diverged or bool(record.digests)
    if is_by_model:
        files.read_weights(record.digests)
    data = data.of_trial(record.config)
    labels = data.labels[data.splits.test]
    return make_test_predictions(draw_predictions(record.config, labels, len(data.class_names)), data), is_by_model
