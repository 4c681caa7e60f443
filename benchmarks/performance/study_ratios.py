"""P1, P6, P8, P9 and P19: the cost of a study beyond its trainings. With Ray."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import ray
import torch
from ray import tune

from benchmarks.parallel import run_parallel
from benchmarks.performance.many_trials import RecordedTrainable, list_curves, run_many_trials
from benchmarks.performance.reference_recipe import make_config
from benchmarks.ratios import REPEATS, Ratio, measure_seconds
from search_spaces.config import TrialConfig
from study.cluster.connection import connect_cluster
from study.inputs.preparation import prepare
from study.spec.reading import parse_spec
from study.state.record_book import RecordBook
from trainables.processes import prepare_to_train
from trainables.records.record import TrialRecord
from trainables.storage.store import Store
from trainables.training.loop import TrainingRun
from trainables.training.trial_data import TrialData

NUM_IMAGES = 2500
# A search of about 100 s on two cores.
NUM_IMAGES_FIXED = 3500
NUM_TRIALS, MAX_EPOCHS = 14, 5
NUM_STARTS = 12
NUM_TRIALS_OF_A_NODE = (1, 2, 4, REPEATS)
SPEC = f"""
name = "bare"
data = {{ source = "planted", num_images = %d }}
model = {{ weights = "none" }}
train = {{ image_size = 32, batch_size = 64 }}
search.factor = "interpolation"
search.num_trials = {NUM_TRIALS}
search.max_epochs = {MAX_EPOCHS}
search.pruning = "none"
search.epoch_cost = {{ bicubic = 1.0, bilinear = 1.0 }}
search.fixed = {{ class_weighting = "none", backbone = "resnet18" }}
resources = {{ cpu = 1 }}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _StudyTimes:
    """Wall seconds of searches and of their trainings as bare loops, the seconds of an epoch, and what else the first one did.

    `epoch` is the median of the searches' epochs, `bare_epoch` that of the bare loops': both run the same code, so where they
    differ, the machine's speed has changed, or Ray's processes took the time of those that train.
    """

    studies: tuple[float, ...]
    bare: float
    epoch: float
    bare_epoch: float
    explanation: str

    @property
    def ratios(self) -> tuple[float, ...]:
        """Each search / the bare loops."""
        return tuple(study / self.bare for study in self.studies)

    def describe(self) -> str:
        """Return the figures that the ratios are made of."""
        studies = " and ".join(f"{study:.0f}" for study in self.studies)
        when = "before and after the bare loops" if len(self.studies) > 1 else "once"
        epochs = f"an epoch took {self.epoch:.2f} s in studies, {self.bare_epoch:.2f} s in bare loops"
        return f"study {studies} s, bare loops {self.bare:.0f} s; {when}; {epochs}. {self.explanation}"


def _time_study(num_images: int, *, is_repeated: bool = False) -> _StudyTimes:
    """Run a search, then its trainings as bare loops, and then, if `is_repeated`, the search again.

    The bare loops are as many processes as trials ran at once, which take the recorded configurations one after the other. The
    mean of a search before them and one after them cancels a steady drift of the machine's speed.
    """
    study, records = _run_search(num_images)
    bare_epochs: list[float] = []
    calls = [(record.config, num_images) for record in records]
    bare = measure_seconds(lambda: bare_epochs.extend(chain.from_iterable(run_parallel(train_one, calls))))
    searches = [(study, records), *([_run_search(num_images)] if is_repeated else [])]
    return _StudyTimes(
        studies=tuple(seconds for seconds, _ in searches),
        bare=bare,
        epoch=statistics.median(
            epoch.train_seconds for _, found in searches for record in found for epoch in record.epochs
        ),
        bare_epoch=statistics.median(bare_epochs),
        explanation=explain_seconds(records, study, os.cpu_count() or 1),
    )


def _run_search(num_images: int) -> tuple[float, Sequence[TrialRecord]]:
    """Return the wall seconds of a search, and its records."""
    with tempfile.TemporaryDirectory(prefix="bench-study-") as folder:
        return launch_search(num_images, folder), read_search(folder)


def launch_search(num_images: int, folder: str, overrides: Sequence[str] = ()) -> float:
    """Launch a search in a folder, with overrides of its spec such as "search.num_trials=7"; return its wall seconds."""
    spec = Path(folder, "bare.toml")
    spec.write_text(SPEC % num_images)
    program = Path(sys.executable).with_name("study")
    command = [str(program), "launch", str(spec), "--storage", folder, "--profile"]
    command += [f"--set={override}" for override in overrides]
    return measure_seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def read_search(folder: str) -> Sequence[TrialRecord]:
    """Return the records that the search has in the folder by now."""
    return RecordBook(Store(folder).child("bare")).of_stage("search")


def measure_study() -> list[Ratio]:
    """P1: the wall time of a whole search, Ray's start and all its files included, against its trainings as bare loops."""
    found = _time_study(NUM_IMAGES)
    name = f"wall time of a search of {NUM_TRIALS} trials, {found.epoch:.1f} s an epoch / the same trainings as bare loops, "
    return [Ratio("P1", f"{name}{os.cpu_count()} at once", "<= 1.05", found.ratios, found.describe())]


def measure_fixed_cost() -> list[Ratio]:
    """P19: the seconds of a search of about 100 s that are not those of its trainings as bare loops."""
    found = _time_study(NUM_IMAGES_FIXED, is_repeated=True)
    study = statistics.fmean(found.studies)
    name = f"seconds of a search of {study:.0f} s that are not those of its trainings as bare loops"
    return [Ratio("P19", name, "<= 12", (study - found.bare,), found.describe())]


def explain_seconds(records: Sequence[TrialRecord], wall: float, at_once: int) -> str:
    """Return the study's time outside of all trials, and its time in the parts of trials that a bare loop does not have."""
    parts: Counter[str] = Counter()
    for record in records:
        for epoch in record.epochs:
            parts.update(dict(epoch.part_seconds))
    in_trials = sum(record.device_seconds for record in records) / at_once
    by_part = ", ".join(f"{name} {parts[name] / at_once:.1f} s" for name in ("checkpoint", "start", "report", "idle"))
    outside = f"Outside of trials (Ray, processes, the last trials) {wall - in_trials:.0f} s"
    return f"{outside}; in trials, per device: {by_part}"


@cache
def load_data(num_images: int) -> TrialData:
    """Return the images and splits of the search; let this process train with one thread."""
    prepare_to_train(1)
    return prepare(parse_spec(SPEC % num_images, "bench")).data


def train_one(config: TrialConfig, num_images: int) -> list[float]:
    """Train one configuration; return the seconds of its epochs."""
    run = TrainingRun(config, load_data(num_images), device=torch.device("cpu"), weights="none")
    while not run.is_finished:
        run.run_epoch()
    return [epoch.train_seconds for epoch in run.history]


def measure_starts() -> list[Ratio]:
    """P6: the wall time of a trial that trains nothing, in the product's run, against stock Tune with a process per trial."""
    ours = run_many_trials(20 * NUM_STARTS, workers=1)
    mine = 1e-3 * min(wall for wall, _ in ours.costs)
    trainable = tune.with_parameters(RecordedTrainable, curves=list_curves())
    trial_ids = tune.grid_search([f"{i}" for i in range(NUM_STARTS)])
    with tempfile.TemporaryDirectory(prefix="bench-starts-") as folder, connect_cluster(None):
        tuner = tune.Tuner(
            trainable,
            param_space={"config_json": json.dumps({"arm": "resnet18"}), "trial_id": trial_ids},
            tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=False),
            run_config=tune.RunConfig(storage_path=folder, stop={"training_iteration": 1}, verbose=0),
        )
        stock = measure_seconds(tuner.fit) / NUM_STARTS
    name = "wall time of a trial that trains nothing / stock Tune without reuse of actors"
    note = f"{1e3 * mine:.0f} ms (nine epochs), stock {1e3 * stock:.0f} ms (one epoch)"
    return [Ratio("P6", name, "<= 0.1", (mine / stock,), note)]


def measure_many_trials() -> list[Ratio]:
    """P8: the controller's cost per trial, the last thousand of 10,000 against the first."""
    found = run_many_trials(10_000, workers=2)
    note = f"{found.seconds:.0f} s in all (goal 900); {found.describe()}"
    return [
        Ratio("P8", f"controller's {name} per trial, last / first thousand of 10,000", "<= 3", (value,), note)
        for name, value in zip(("wall time", "CPU time"), found.ratios, strict=True)
    ]


@ray.remote(num_cpus=0)
class _Holder:
    """A trial's process: reads the images in place and trains two batches."""

    def hold(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Return the memory in bytes that is the process's own (USS)."""
        indices = np.arange(300, dtype=np.int64)
        splits: Any = SimpleNamespace(train=indices[:256], search=indices[256:], confirm=indices[:0], test=indices[:0])
        data = TrialData(images=images, labels=labels, splits=splits, class_names=tuple("abcdefghij"))
        prepare_to_train(1)
        self._run = TrainingRun(make_config("resnet18", 32), data, device=torch.device("cpu"))
        self._run.run_epoch()
        # A pass over all images, as at the end of training.
        int(images[::7].max())
        return float(psutil.Process().memory_full_info().uss)


def _fill_node(data: tuple[Any, Any]) -> tuple[list[float], list[float]]:
    """Start more and more processes that hold the data; return the memory of each, and of the node at each number of them."""
    holders: list[Any] = []
    own, node = [], []
    for number in NUM_TRIALS_OF_A_NODE:
        more: list[Any] = [_Holder.remote() for _ in range(number - len(holders))]
        own += ray.get([holder.hold.remote(*data) for holder in more])
        holders += more
        node.append(_measure_node())
    for holder in holders:
        ray.kill(holder)
    return own, node


def _put(count: int) -> tuple[Any, Any]:
    images = np.zeros((count, 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count) % 251
    return ray.put(images), ray.put(np.arange(count, dtype=np.int64) % 10)


def _measure_node() -> float:
    """Return the memory in bytes of Ray's processes on this node, shared memory counted once (PSS)."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return float(total)


def measure_memory() -> list[Ratio]:
    """P9: the memory of its own that a further trial needs because the dataset is large, relative to the dataset."""
    large, small = 500_000, 2_000
    size = large * 32 * 32 * 3
    with connect_cluster(None):
        few, _ = _fill_node(_put(small))
        own, node = _fill_node(_put(large))
    extra = [(a - b) / size for a, b in zip(own, few, strict=True)]
    name = f"memory of its own of a further trial due to the dataset / the dataset ({size / 2**20:.0f} MiB)"
    own_mib, node_mib = np.median(own) / 2**20, ", ".join(f"{value / 2**20:.0f}" for value in node)
    note = f"a trial's process has {own_mib:.0f} MiB of its own; a node with "
    note += f"{', '.join(map(str, NUM_TRIALS_OF_A_NODE))} trials has {node_mib} MiB, Ray and the dataset included"
    return [Ratio("P9", name, "<= 0.01", tuple(extra), note)]
