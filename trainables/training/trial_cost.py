"""What a full trial costs, from a few of its batches."""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces.config import TrialConfig
from trainables.training.loop import TrainingRun, TrialData

NUM_MEASURED_BATCHES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _FewIndices:
    """Splits cut down to what is timed."""

    train: NDArray[np.int64]
    search: NDArray[np.int64]
    confirm: NDArray[np.int64]
    test: NDArray[np.int64]


def measure_full_trial_seconds(
    config: TrialConfig, data: TrialData, *, device: torch.device, weights: str | None
) -> float:
    """Return the seconds that all epochs of `config` are expected to take here, evaluation and set-up included.

    Trains and evaluates `NUM_MEASURED_BATCHES` batches, once to warm up (where the trial has a second epoch) and once to be
    timed.
    """
    batch = config.whole("batch_size")
    full = data.splits
    few = _FewIndices(
        train=full.train[: NUM_MEASURED_BATCHES * batch],
        search=full.search[: NUM_MEASURED_BATCHES * batch],
        confirm=full.confirm[:0],
        test=full.test[:0],
    )
    started = time.perf_counter()
    run = TrainingRun(config, replace(data, splits=few), device=device, weights=weights)
    setup_seconds = time.perf_counter() - started
    metrics = run.run_epoch()
    if not run.is_finished:
        metrics = run.run_epoch()
    train_seconds = metrics.train_seconds * len(full.train) / len(few.train)
    evaluate_seconds = metrics.evaluate_seconds * len(full.search) / max(1, len(few.search))
    return setup_seconds + config.whole("max_epochs") * (train_seconds + evaluate_seconds)
