"""P21: the time of a trial that trains a head on cached features, against one that trains all layers on the same images."""

import tempfile
from contextlib import closing
from unittest import mock

import numpy as np
import torch

from benchmarks.performance.reference_recipe import make_config
from benchmarks.ratios import Ratio, measure_seconds
from trainables.data.splits import Splits
from trainables.training.trial_cost import make_run
from trainables.training.trial_data import TrialData

IMAGE_SIZE, NUM_IMAGES, NUM_EPOCHS, BATCH_SIZE = 64, 20_000, 3, 128
# Shares of the splits train and search, as in a spec of `study init`.
TRAIN, SEARCH = 0.5, 0.15


def measure_probe_trial(num_images: int = NUM_IMAGES) -> list[Ratio]:
    """P21: seconds of a probe's trial after the first / those of a full trial, from its start to its predictions, once."""
    images = np.random.default_rng(0).integers(0, 256, (num_images, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    order, (first, second) = np.arange(num_images), np.cumsum([int(s * num_images) for s in (TRAIN, SEARCH)])
    splits = Splits(
        train=order[:first], search=order[first:second], confirm=order[:0], test=order[:0], data_fingerprint="random"
    )
    data = TrialData(images=images, labels=order % 10, splits=splits, class_names=tuple("abcdefghij"))
    with (
        tempfile.TemporaryDirectory(prefix="bench-probe-") as cache,
        mock.patch.dict("os.environ", XDG_CACHE_HOME=cache),
    ):
        first_probe = measure_seconds(lambda: _train(data, "probe"))
        full = measure_seconds(lambda: _train(data, "full"))
        again = measure_seconds(lambda: _train(data, "probe"))
    note = f"first probe {first_probe:.1f}, second {again:.2f}, full {full:.1f} s; {NUM_EPOCHS} epochs; once"
    name = f"seconds of a probe's trial after the first / of a full trial, {num_images:,} images of {IMAGE_SIZE} px, resnet18"
    return [Ratio("P21", name, "<= 0.02", (again / full,), note)]


def _train(data: TrialData, tuning: str) -> None:
    config = make_config("resnet18", IMAGE_SIZE, batch_size=BATCH_SIZE, tuning=tuning, max_epochs=NUM_EPOCHS)
    with closing(make_run(config, data, device=torch.device("cpu"))) as run:
        while not run.is_finished:
            run.run_epoch()
        run.predict("search")
        run.state_dict()
