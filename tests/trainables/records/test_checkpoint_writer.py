"""Checkpoints are written beside the training: in order, fenced, and never half."""

import contextlib
import multiprocessing
import os
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainables.records.test_trial_files import at_step, write_record
from trainables.records.record import TrialState
from trainables.records.trial_files import CHECKPOINTS, CheckpointWriter, LostTrialError, TrialFiles
from trainables.storage.store import StorageError, Store
from trainables.training.checkpoint import Checkpoint

NUM_KILLS = 20  # More by hand: NUM_KILLS=100 python -m pytest tests/trainables/records/test_checkpoint_writer.py


class SlowFiles(TrialFiles):
    """Files whose checkpoints are written when the test says so."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.may_write = threading.Event()
        self.error: Exception | None = None

    def write_checkpoint(self, checkpoint: Checkpoint, attempt: int) -> None:
        assert self.may_write.wait(10)
        if self.error is not None:
            raise self.error
        super().write_checkpoint(checkpoint, attempt)


@pytest.fixture
def files(tmp_path: Path) -> SlowFiles:
    files = SlowFiles(Store(tmp_path))
    write_record(files.store)
    return files


def steps(files: TrialFiles) -> list[int]:
    return [int(name[:9]) for name in files.store.list_folder(CHECKPOINTS) if not name.startswith(".")]


def test_the_caller_goes_on_while_a_checkpoint_is_written_and_waits_for_the_one_before(files: SlowFiles) -> None:
    writer = CheckpointWriter(files, 1)
    writer.write(at_step(7))
    assert steps(files) == []
    threading.Timer(0.2, files.may_write.set).start()
    writer.write(at_step(14))  # waits for the first
    assert 7 in steps(files)
    writer.wait()
    assert steps(files) == [7, 14]
    writer.close()


def test_shortest_distance_is_kept_and_what_is_held_is_written_by_flush(files: SlowFiles) -> None:
    files.may_write.set()
    writer = CheckpointWriter(files, 1, seconds_apart=0.3)
    assert writer.is_due
    writer.write(at_step(7))
    assert not writer.is_due
    writer.hold(at_step(14))
    writer.hold(at_step(21))
    writer.flush()
    assert steps(files) == [7, 21]
    time.sleep(0.3)
    assert writer.is_due
    writer.hold(at_step(28))
    writer.write(at_step(35))
    writer.flush()
    assert steps(files) == [21, 35]
    writer.close()


@pytest.mark.parametrize("error", [StorageError("disk full"), LostTrialError("over")])
def test_error_of_a_write_is_raised_by_the_next_call_and_not_at_the_end(files: SlowFiles, error: Exception) -> None:
    files.error = error
    files.may_write.set()
    writer = CheckpointWriter(files, 1)
    writer.write(at_step(7))
    with pytest.raises(type(error)):
        writer.write(at_step(14))
    writer.write(at_step(14))
    writer.close()


@pytest.mark.parametrize(("attempts", "state"), [(2, TrialState.RUNNING), (1, TrialState.PRUNED)])
def test_attempt_that_is_over_writes_no_more(files: SlowFiles, attempts: int, state: TrialState) -> None:
    files.may_write.set()
    writer = CheckpointWriter(files, 1)
    write_record(files.store, attempts=attempts, state=state)
    with pytest.raises(LostTrialError):
        writer.write(at_step(14))
    writer.close()


@pytest.mark.parametrize(
    ("attempts", "state", "left"), [(2, TrialState.RUNNING, [7]), (1, TrialState.PRUNED, [])], ids=["replaced", "ended"]
)
def test_checkpoint_that_is_written_while_its_attempt_ends_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: int, state: TrialState, left: list[int]
) -> None:
    """Of a trial that has ended, no folder is left either, which the director may have deleted in the meantime."""
    files, write = TrialFiles(Store(tmp_path)), Store.write_bytes
    write_record(files.store)
    files.write_checkpoint(at_step(7), 1)

    def end_in_the_middle(store: Store, name: str, data: bytes) -> None:
        write(store, name, data)
        if name.startswith(CHECKPOINTS):
            monkeypatch.undo()
            write_record(store, attempts=attempts, state=state)

    monkeypatch.setattr(Store, "write_bytes", end_in_the_middle)
    with pytest.raises(LostTrialError):
        files.write_checkpoint(at_step(14), 1)
    assert steps(files) == left
    assert files.store.exists(CHECKPOINTS) == bool(left)


def test_folder_is_deleted_under_a_process_that_still_writes(tmp_path: Path) -> None:
    files = TrialFiles(Store(tmp_path))
    write_record(files.store)
    large = replace(at_step(0), model_state={"weight": torch.ones(4_000_000)})
    for number in range(20):
        write_record(files.store)
        writer = CheckpointWriter(files, 1)
        writer.write(replace(large, num_steps=number))
        time.sleep(0.002 * number)
        write_record(files.store, state=TrialState.PRUNED)
        files.delete_checkpoint()
        writer.close()
        assert not files.store.exists(CHECKPOINTS), number


def write_until_killed(folder: Path, pipe: Connection) -> None:
    """Write one checkpoint after the other; tell the number of each before it is given to the thread."""
    files = TrialFiles(Store(folder))
    before, _ = files.read_checkpoint()
    assert before is not None
    writer = CheckpointWriter(files, 1)
    for step in range(before.num_steps + 1, 1_000_000):
        weight = torch.from_numpy(np.full(3_000_000, step, dtype=np.float32))
        pipe.send(step)
        writer.write(replace(at_step(step), model_state={"weight": weight}))


def test_kill_during_a_write_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    files, context = TrialFiles(Store(tmp_path)), multiprocessing.get_context("fork")
    write_record(files.store)
    files.write_checkpoint(at_step(0), 1)
    for number in range(int(os.environ.get("NUM_KILLS", NUM_KILLS))):
        pipe, end = context.Pipe(duplex=False)
        process = context.Process(target=write_until_killed, args=(tmp_path, end))
        process.start()
        end.close()
        last = [pipe.recv() for _ in range(3)][-1]
        time.sleep(0.001 * (37 * number % 100))
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                last = pipe.recv()
        found, problems = files.read_checkpoint()
        assert found is not None
        assert not problems
        # The one before the one before `last` was written when `last` was told.
        assert last - 2 <= found.num_steps <= last
        assert bool((found.model_state["weight"] == found.num_steps).all())
