"""P17: images per second trained on images that are mapped from a file, against the same images in memory.

A set larger than memory is decoded once per node into a file that every trial maps. Before each epoch on the file, the kernel
drops its pages, so that every image is read from the disk.
"""

import dataclasses
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.performance.reference_recipe import make_config
from benchmarks.ratios import Ratio, compare_sides
from trainables.data.splits import Splits
from trainables.training.loop import TrainingRun, TrialData

IMAGE_SIZE = 224
NUM_TRAINING, NUM_SEARCH = 384, 32


def measure_mapped(num_training: int = NUM_TRAINING) -> list[Ratio]:
    """P17: images/s of mapped images over those of resident ones, in turn."""
    number = num_training + NUM_SEARCH
    images = np.random.default_rng(0).integers(0, 256, (number, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    order = np.arange(number)
    none = order[:0]
    splits = Splits(train=order[NUM_SEARCH:], search=order[:NUM_SEARCH], confirm=none, test=none, data_fingerprint="")
    data = TrialData(images=images, labels=order % 10, splits=splits, class_names=tuple("abcdefghij"))
    config, device = make_config("resnet18", IMAGE_SIZE), torch.device("cpu")
    with tempfile.TemporaryDirectory(prefix="bench-mapped-") as folder:
        file = Path(folder, "images")
        images.tofile(file)
        mapped = np.memmap(file, dtype=np.uint8, mode="r", shape=images.shape)
        runs = [TrainingRun(config, dataclasses.replace(data, images=held), device=device) for held in (mapped, images)]
        sides = {
            "mapped": partial(_train_on_file, runs[0], file),
            "resident": lambda: runs[1].run_epoch().train_images_per_second,
        }
        name = f"images/s trained from a mapped file, read from the disk in every epoch / in memory, {IMAGE_SIZE} px"
        return [compare_sides("P17", name, ">= 0.95", sides, "images/s")]


def _train_on_file(run: TrainingRun, file: Path) -> float:
    """Return the images per second of an epoch after the pages of the file were dropped."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return run.run_epoch().train_images_per_second
