"""Several processes that train one trial: the same steps as one, resumable with the same bits, and none is left behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from search_spaces.config import Value
from search_spaces.errors import UserInputError
from tests.trainables.training.test_loop import CPU, DATA, TIMINGS, change, make_data
from trainables.processes import is_alive
from trainables.training.checkpoint import Checkpoint
from trainables.training.distributed_run import DistributedRun
from trainables.training.epoch_metrics import EpochMetrics
from trainables.training.loop import TrainingRun
from trainables.training.ranks import ARGUMENTS, MIN_SHARED_BYTES, read_arguments, write_arguments
from trainables.training.trial_cost import make_run
from trainables.training.trial_run import EpochInterrupted

# Without batch normalization and random numbers, so that the parts of a batch are trained as the batch is.
PLAIN: dict[str, Value] = {
    "backbone": "timm:test_convnext",
    "cutmix_probability": 0.0,
    "flip_probability": 0.0,
    "rotation_degrees": 0.0,
    "brightness_fraction": 0.0,
    "image_size": 32,
    "max_lr": 0.01,
}
NORMAL: dict[str, Value] = {"backbone": "timm:test_resnet", "image_size": 32, "batch_size": 8}


def start(changes: dict[str, Value], checkpoint: Checkpoint | None = None) -> DistributedRun:
    run = make_run(change(**{"processes": 2, **changes}), DATA, device=CPU, checkpoint=checkpoint)
    assert isinstance(run, DistributedRun)
    return run


def without_times(history: tuple[EpochMetrics, ...]) -> list[EpochMetrics]:
    return [metrics.model_copy(update=TIMINGS) for metrics in history]


def find_pids(run: DistributedRun) -> list[int]:
    return [process.pid for process in run._others.processes.values()]


@pytest.mark.parametrize(
    "changes",
    [
        {"class_weighting": "none"},
        {"accumulate": 2, "clip_norm": 0.5, "batch_size": 8},
        # Parts of 5, 5 and 4 images.
        {"processes": 3, "batch_size": 14, "optimizer": "adamw", "ema_decay": 0.5},
    ],
)
def test_a_step_is_that_of_one_process(changes: dict[str, Value]) -> None:
    alone = TrainingRun(change(**PLAIN, **{**changes, "processes": 1}), DATA, device=CPU)
    with closing(start({**PLAIN, **changes})) as run:
        for _ in range(2):
            one, other = alone.run_epoch(), run.run_epoch()
            assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
            assert other.search_loss == pytest.approx(one.search_loss, rel=1e-3)
        found = run.state_dict()
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=2e-4)


def test_a_trial_that_was_interrupted_and_lost_a_process_goes_on_with_the_same_bits() -> None:
    with closing(start(NORMAL)) as run:
        pids = find_pids(run)
        assert all(map(is_alive, pids))
        whole = [run.run_epoch(), run.run_epoch()]
        expected = run.state_dict()
    assert not any(map(is_alive, pids))
    assert not torch.distributed.is_initialized()
    alone = TrainingRun(change(**NORMAL), DATA, device=CPU).run_epoch()
    assert whole[0].train_loss != alone.train_loss, "the processes draw different numbers"
    with closing(start(NORMAL)) as run:
        calls = iter([False, True])
        run.run_epoch()
        with pytest.raises(EpochInterrupted):
            run.run_epoch(should_stop=lambda: next(calls))
        held = Checkpoint.from_bytes(run.checkpoint().to_bytes())
        (pid,) = find_pids(run)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="process 1 of the trial ended with status -9"):
            run.run_epoch()
    assert not torch.distributed.is_initialized()
    assert held.partial is not None
    assert held.partial.loss_sum.shape == (2,)
    with closing(start(NORMAL, held)) as run:
        run.run_epoch()
        assert without_times(run.history) == without_times(tuple(whole))
        found = run.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_other_processes_end_when_the_first_one_is_killed() -> None:
    script = (
        "import sys, time\n"
        "from tests.trainables.training.test_distributed_run import NORMAL, find_pids, start\n"
        "run = start(NORMAL)\n"
        "run.run_epoch()\n"
        "print(*find_pids(run), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()) as first:
        assert first.stdout is not None
        pids = [int(word) for word in first.stdout.readline().split()]
        first.kill()
    assert pids
    deadline = time.monotonic() + 30
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_alive, pids))


def test_what_several_processes_cannot_do_is_refused_before_any_starts() -> None:
    with pytest.raises(UserInputError) as refused:
        make_run(change(processes=4, batch_size=6, compile="inductor"), make_data(), device=CPU)
    for words in ("needs batches of 8 images or more", 'cannot be combined with train.compile = "inductor"'):
        assert words in str(refused.value)
    assert not torch.distributed.is_initialized()


def test_large_arrays_are_mapped_and_small_ones_copied(tmp_path: Path) -> None:
    images, labels = (
        np.random.default_rng(0).integers(0, 256, (MIN_SHARED_BYTES // 100, 200), dtype=np.uint8),
        np.arange(9),
    )
    write_arguments(tmp_path, (images, labels, images[:9, ::2]))
    assert (tmp_path / ARGUMENTS).stat().st_size < MIN_SHARED_BYTES
    for found, given in zip(read_arguments(tmp_path), (images, labels, images[:9, ::2]), strict=True):
        np.testing.assert_array_equal(found, given)
    large, small, _ = read_arguments(tmp_path)
    assert not large.flags.writeable
    assert small.flags.writeable
    assert sum(1 for _ in tmp_path.iterdir()) == 2
