"""P17: images per second trained on images that are mapped from a file, or decoded meanwhile, against the same images in memory.

A set larger than memory is decoded once per node into a file that every trial maps. Before each epoch on the file, the kernel
drops its pages, so that every image is read from the disk. Streamed images are photographs that one process decodes on a core of
its own, beside one that trains on another.
"""

import dataclasses
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.performance.decoding_ratios import PHOTOGRAPHS, write_photographs
from benchmarks.performance.reference_recipe import make_config
from benchmarks.ratios import Ratio, compare_sides
from trainables.data.decoding.decode_set import DecodeRequest
from trainables.data.decoding.decoded_images import decode_files
from trainables.data.decoding.encoded_files import DiskImages
from trainables.data.decoding.streamed_images import StreamedImages
from trainables.data.image_array import ImageArray
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.splits import Splits
from trainables.training.loop import TrainingRun
from trainables.training.trial_data import TrialData

IMAGE_SIZE = 224
NUM_TRAINING, NUM_SEARCH = 384, 32
# Single turns differ by more than the goal allows where other users of a host share its cores and disk.
NUM_TURNS = 15
# An epoch begins with the decoding of its first batch, which one of many batches hides.
NUM_STREAMED, STREAMED_BATCH, STORED_SIDE = 352, 16, 256


def measure_mapped(num_training: int = NUM_TRAINING) -> list[Ratio]:
    """P17: images/s of mapped images over those of resident ones, in turn."""
    number = num_training + NUM_SEARCH
    images = np.random.default_rng(0).integers(0, 256, (number, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    data = _make_data(images)
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
        mapped_ratio = compare_sides("P17", name, ">= 0.95", sides, "images/s", NUM_TURNS)
    return [mapped_ratio, _measure_streamed()]


def _measure_streamed(number: int = NUM_STREAMED) -> Ratio:
    """Return images/s of streamed images over those of resident ones, in turn, one core training in both."""
    files = write_photographs(PHOTOGRAPHS, number)[:number]
    num_threads, device = torch.get_num_threads(), torch.device("cpu")
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-streamed-") as folder:
            runs, sets = {}, []
            for name in ("streamed", "resident"):
                streams = name == "streamed"
                budget = ImageMemoryBudget(10**12, Path(folder, name), streams=streams, stream_workers=1)
                sets.append(
                    decode_files(
                        DiskImages.of_files(files), DecodeRequest(STORED_SIDE, IMAGE_SIZE, "crop"), budget
                    ).images
                )
                config = make_config("resnet18", IMAGE_SIZE, batch_size=STREAMED_BATCH)
                runs[name] = TrainingRun(config, _make_data(sets[-1]), device=device)
            sides = {name: lambda run=run: run.run_epoch().train_images_per_second for name, run in runs.items()}
            title = f"images/s trained while another core decodes them / in memory, {IMAGE_SIZE} px, one core training"
            ratio = compare_sides("P17", title, ">= 0.95", sides, "images/s")
            assert isinstance(sets[0], StreamedImages)
            sets[0].close()
            return ratio
    finally:
        torch.set_num_threads(num_threads)


def _make_data(images: ImageArray) -> TrialData:
    order = np.arange(len(images))
    none = order[:0]
    splits = Splits(train=order[NUM_SEARCH:], search=order[:NUM_SEARCH], confirm=none, test=none, data_fingerprint="")
    return TrialData(images=images, labels=order % 10, splits=splits, class_names=tuple("abcdefghij"))


def _train_on_file(run: TrainingRun, file: Path) -> float:
    """Return the images per second of an epoch after the pages of the file were dropped."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return run.run_epoch().train_images_per_second
