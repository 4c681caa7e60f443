"""The training of a trial, by the product's loop or by a custom `Trainable`."""

from typing import Unpack

from search_spaces.config import TrialConfig
from trainables.training.distributed_run import DistributedRun
from trainables.training.head_start import PROBE
from trainables.training.loop import RunOptions, TrainingRun
from trainables.training.probe_run import ProbeRun
from trainables.training.trainable import is_own_loop
from trainables.training.trainable_run import TrainableRun
from trainables.training.trial_data import TrialData
from trainables.training.trial_run import TrialRun


def make_run(config: TrialConfig, data: TrialData, **options: Unpack[RunOptions]) -> TrialRun:
    """Return the training of one trial, to be closed at its end; see `TrainingRun` for the arguments and errors.

    A `Trainable` takes no weights.
    """
    if is_own_loop(config):
        checkpoint, profile = options.get("checkpoint"), options.get("profile", False)
        return TrainableRun(config, data, device=options["device"], checkpoint=checkpoint, profile=profile)
    kind = DistributedRun if config.whole("processes") > 1 else TrainingRun
    if config["tuning"] == PROBE:
        kind = ProbeRun
    return kind(config, data, **options)
