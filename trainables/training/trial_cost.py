"""The run of a trial, by the product's loop or a custom `Trainable`, and its cost, estimated from a few of its batches."""

import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Unpack

import torch

from search_spaces.config import TrialConfig, Value
from trainables.training.distributed_run import DistributedRun
from trainables.training.epoch_metrics import EpochMetrics
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
    several = DistributedRun if config.whole("processes") > 1 else TrainingRun
    return (ProbeRun if config["tuning"] == PROBE else several)(config, data, **options)


NUM_MEASURED_BATCHES = 3
# Three batches take a GPU 10 to 30 ms, of which much is the start of the epoch: there a longer epoch is measured, too, which
# takes about so long.
SECONDS_ON_GPU = 1.0


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

    Trains and evaluates on `NUM_MEASURED_BATCHES` batches, after a warm-up epoch if the trial has a second epoch. On a GPU, a
    second epoch of more batches takes about `SECONDS_ON_GPU`, and the two tell what a batch costs and what an epoch costs beside
    its batches. Classes are not weighted, hard examples are not repeated, no image is left out and no head is fitted anew: all of
    it costs little, and a few batches need not contain every class or the images. A custom loop trains on all images, as its
    epochs need not cost in proportion to them.

    Args:
        config: Configuration of the trial.
        data: The study's images and splits.
        device: Device to compute on.
        weights: As in `trainables.models.backbones.build_model`.
    """
    plain: dict[str, Value] = {"class_weighting": "none", "hard_fraction": 0.0, "leave_out": "", "head_refit": "none"}
    unweighted, full = config.with_values(plain), data.splits

    def measure(num_batches: int) -> tuple[float, tuple[Measured, Measured]]:
        number = num_batches * config.whole("batch_size")
        train = full.train if is_own_loop(config) else full.train[:number]
        few = replace(full, train=train, search=full.search[:number])
        setup_seconds, metrics = _measure_epoch(unweighted, replace(data, splits=few), device, weights)
        return setup_seconds, ((len(train), metrics.train_seconds), (len(few.search), metrics.evaluate_seconds))

    setup_seconds, last = measure(NUM_MEASURED_BATCHES)
    first = (NOTHING, NOTHING)
    if device.type == "cuda" and last[0][0] < len(full.train):
        first = last
        _, last = measure(math.ceil(NUM_MEASURED_BATCHES * max(2.0, SECONDS_ON_GPU / first[0][1])))
    epoch_seconds = sum(map(extrapolate, (len(full.train), len(full.search)), last, first))
    return TrialCost(setup_seconds=setup_seconds, epoch_seconds=epoch_seconds)


# A number of images, and the seconds that they took.
Measured = tuple[int, float]
NOTHING: Measured = (0, 0.0)


def extrapolate(size: int, last: Measured, first: Measured = NOTHING) -> float:
    """Return the seconds of `size` images by the line through two measurements, or by the proportion where there is one.

    A line that falls, or that would begin below 0, is a disturbed measurement: then the proportion of the larger one counts.
    """
    proportion = last[1] * size / max(1, last[0])
    if not 0 < first[0] < last[0]:
        return proportion
    slope = (last[1] - first[1]) / (last[0] - first[0])
    start = last[1] - slope * last[0]
    return start + slope * size if slope > 0 <= start else proportion


def _measure_epoch(
    config: TrialConfig, data: TrialData, device: torch.device, weights: str | None
) -> tuple[float, EpochMetrics]:
    """Return the seconds before the first epoch and the metrics of the second one, of the first if there is no other."""
    started = time.perf_counter()
    run = make_run(config, data, device=device, weights=weights)
    setup_seconds = time.perf_counter() - started
    with closing(run):
        metrics = run.run_epoch()
        if not run.is_finished:
            metrics = run.run_epoch()
    return setup_seconds, metrics
