"""The training of a trial, by the product's loop or by a custom `Trainable`."""

import torch

from search_spaces.config import TrialConfig
from trainables.training.checkpoint import Checkpoint
from trainables.training.distributed_run import DistributedRun
from trainables.training.head_start import PROBE
from trainables.training.loop import TrainingRun
from trainables.training.placed_images import Place, place_images
from trainables.training.probe_run import ProbeRun
from trainables.training.trainable import is_own_loop
from trainables.training.trainable_run import TrainableRun
from trainables.training.trial_data import TrialData
from trainables.training.trial_run import TrialRun


def make_run(
    config: TrialConfig,
    data: TrialData,
    *,
    device: torch.device,
    weights: str | None = None,
    checkpoint: Checkpoint | None = None,
    profile: bool = False,
    place: Place = place_images,
) -> TrialRun:
    """Return the training of one trial, to be closed at its end; see `TrainingRun` for the arguments and errors.

    A `Trainable` takes no weights.
    """
    if is_own_loop(config):
        return TrainableRun(config, data, device=device, checkpoint=checkpoint, profile=profile)
    kind = DistributedRun if config.whole("processes") > 1 else TrainingRun
    if config["tuning"] == PROBE:
        kind = ProbeRun
    return kind(config, data, device=device, weights=weights, checkpoint=checkpoint, profile=profile, place=place)
