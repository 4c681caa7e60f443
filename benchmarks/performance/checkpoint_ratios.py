"""P15: how long a trial stands still for its checkpoints, written by its own thread and by one beside it. Without Ray."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.performance.reference_recipe import make_config
from benchmarks.performance.training_ratios import load_data
from benchmarks.ratios import NOT_JUDGED, REPEATS, Ratio, synchronize
from trainables.records.record import RECORD, TrialRecord, TrialState
from trainables.records.trial_files import CheckpointWriter, TrialFiles
from trainables.storage.store import Store
from trainables.training.loop import TrainingRun

# Images whose epoch takes five seconds or more with a ResNet50; on a GPU of the larger size.
SIDE = {"cpu": 32, "cuda": 224}
FEWEST_SECONDS = 5.0


def measure_stand_still(device: torch.device, backbone: str = "resnet50") -> list[Ratio]:
    """P15: the time from the end of an epoch to the start of the next, and what the write costs the next epoch beside it.

    Epochs take turns: after one no checkpoint is written, after one the thread that trains writes it, after one the other thread.
    On a CPU the training has one core, as in the presets.
    """
    with _one_core(device):
        return _measure(device, backbone)


@contextmanager
def _one_core(device: torch.device) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1 if device.type == "cpu" else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measure(device: torch.device, backbone: str) -> list[Ratio]:
    with TemporaryDirectory(prefix="bench-checkpoints-") as folder:
        files = _make_files(Path(folder))
        run = TrainingRun(make_config(backbone, SIDE[device.type]), load_data(SIDE[device.type]), device=device)
        writer = CheckpointWriter(files, 1)
        stood: dict[str, list[float]] = {"none": [], "own": [], "beside": []}
        trained: dict[str, list[float]] = {side: [] for side in stood}
        _train(run, device)
        for _ in range(REPEATS):
            for side in stood:
                started = time.perf_counter()
                if side == "own":
                    files.write_checkpoint(run.checkpoint(), 1)
                elif side == "beside":
                    writer.write(run.checkpoint())
                stood[side].append(time.perf_counter() - started)
                trained[side].append(_train(run, device))
                writer.wait()
        writer.close()
        size = max(state.size for state in files.store.list_states("checkpoint").values())
    epoch = statistics.median(trained["none"])
    note = f"{backbone}, {SIDE[device.type]} px, epochs of {epoch:.1f} s, checkpoints of {size / 1e6:.0f} MB"
    before, after = ([100 * seconds / epoch for seconds in stood[side]] for side in ("own", "beside"))
    longer = [100 * (one / other - 1) for one, other in zip(trained["beside"], trained["none"], strict=True)]
    goal = "<= 1" if epoch >= FEWEST_SECONDS else NOT_JUDGED
    return [
        Ratio("P15", "% of an epoch that a trial stands still for its checkpoint", goal, tuple(after), note),
        Ratio("P15", "the same, written by the thread that trains", NOT_JUDGED, tuple(before), note),
        Ratio("P15", "% by which the epoch beside the write is longer", NOT_JUDGED, tuple(longer), note),
    ]


def _train(run: TrainingRun, device: torch.device) -> float:
    started = time.perf_counter()
    run.run_epoch()
    synchronize(device)
    return time.perf_counter() - started


def _make_files(folder: Path) -> TrialFiles:
    config = make_config("resnet50", 32)
    record = TrialRecord(
        trial_id="00000",
        stage="search",
        config=config,
        fingerprint=config.fingerprint,
        state=TrialState.RUNNING,
        suggested_order=0,
    )
    files = TrialFiles(Store(folder))
    files.store.write_text(RECORD, record.to_json())
    return files
