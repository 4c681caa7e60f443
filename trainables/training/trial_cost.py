"""The cost of a full trial, estimated from a few of its batches."""

import time
from dataclasses import replace

import torch

from search_spaces.config import TrialConfig
from trainables.training.loop import TrainingRun, TrialData

NUM_MEASURED_BATCHES = 3


def measure_full_trial_seconds(
    config: TrialConfig, data: TrialData, *, device: torch.device, weights: str | None
) -> float:
    """Return the expected seconds of a full trial on this machine, including set-up and evaluation.

    Trains and evaluates on `NUM_MEASURED_BATCHES` batches, after a warm-up epoch if the trial has a second epoch.

    Args:
        config: Configuration of the trial.
        data: The study's images and splits.
        device: Device to compute on.
        weights: As in `trainables.models.backbones.build_model`.
    """
    batch = config.whole("batch_size")
    full = data.splits
    few = replace(
        full, train=full.train[: NUM_MEASURED_BATCHES * batch], search=full.search[: NUM_MEASURED_BATCHES * batch]
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
