"""The run of a trial, by the product's loop or a custom `Trainable`, and its cost, estimated from a few of its batches."""

import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Unpack

import torch

from search_spaces.config import TrialConfig, Value
from trainables.training.distributed_run import DistributedRun
from trainables.training.linear_probe import PROBE
from trainables.training.loop import ProbeRun, RunOptions, TrainingRun
from trainables.training.trainable import is_own_loop
from trainables.training.trial_data import TrialData
from trainables.training.trial_run import TrainableRun, TrialRun


def make_run(config: TrialConfig, data: TrialData, **options: Unpack[RunOptions]) -> TrialRun:
    """Return the training of one trial, to be closed at its end; see `TrainingRun` for the arguments and errors.

    `data` are those of all trials; a trial of a fold trains on its own part of them.
    A `Trainable` takes no weights.
    """
    data = data.of_trial(config)
    if is_own_loop(config):
        checkpoint, profile = options.get("checkpoint"), options.get("profile", False)
        return TrainableRun(config, data, device=options["device"], checkpoint=checkpoint, profile=profile)
    kind = DistributedRun if config.whole("processes") > 1 else TrainingRun
    if config["tuning"] == PROBE:
        kind = ProbeRun
    return kind(config, data, **options)


NUM_MEASURED_BATCHES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCost:
    """The expected cost of a trial.

    Attributes:
        setup_seconds: before the first epoch.
        epoch_seconds: of one epoch, with its evaluation on the search split.
    """

    setup_seconds: float
    epoch_seconds: float

    def of_epochs(self, num_epochs: int) -> float:
        """Return the seconds of a trial of so many epochs."""
        return self.setup_seconds + num_epochs * self.epoch_seconds


def measure_trial_cost(config: TrialConfig, data: TrialData, *, device: torch.device, weights: str | None) -> TrialCost:
    """Return the expected cost of a trial on this machine.

    Trains and evaluates on `NUM_MEASURED_BATCHES` batches, after a warm-up epoch if the trial has a second epoch. Classes are not
    weighted, hard examples are not repeated, no image is left out and no head is fitted anew: all of it costs little, and a few
    batches need not contain every class or the images. A custom loop trains on all images, as its epochs need not cost in
    proportion to them.

    Args:
        config: Configuration of the trial.
        data: The study's images and splits.
        device: Device to compute on.
        weights: As in `trainables.models.backbones.build_model`.
    """
    batch = config.whole("batch_size")
    full = data.splits
    number = len(full.train) if is_own_loop(config) else NUM_MEASURED_BATCHES * batch
    few = replace(full, train=full.train[:number], search=full.search[:number])
    without: dict[str, Value] = {"class_weighting": "none", "hard_fraction": 0.0, "leave_out": "", "head_refit": "none"}
    unweighted = replace(
        config,
        hyperparameters={**config.hyperparameters, **without},
        fixed={name: value for name, value in config.fixed.items() if name not in without},
    )
    started = time.perf_counter()
    run = make_run(unweighted, replace(data, splits=few), device=device, weights=weights)
    setup_seconds = time.perf_counter() - started
    with closing(run):
        metrics = run.run_epoch()
        if not run.is_finished:
            metrics = run.run_epoch()
    train_seconds = metrics.train_seconds * len(full.train) / len(few.train)
    evaluate_seconds = metrics.evaluate_seconds * len(full.search) / max(1, len(few.search))
    return TrialCost(setup_seconds=setup_seconds, epoch_seconds=train_seconds + evaluate_seconds)
