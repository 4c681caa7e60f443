"""`CheckpointWriter`: writes a trial's checkpoints in a thread of its own, while the next epoch trains."""

import contextlib
import time
from concurrent.futures import Future, ThreadPoolExecutor

from trainables.records.trial_files import LostTrialError, TrialFiles
from trainables.storage.store import StorageError
from trainables.training.checkpoint import Checkpoint


class CheckpointWriter:
    """Writes the checkpoints of one attempt of a trial, one after the other, at least `seconds_apart` from each other.

    A checkpoint is given away by `write`, which returns at once unless the one before is still being written; the caller must
    not change its tensors. What a write raises is raised by the next call of `write` or `wait`. So a process that is killed
    loses the epochs since the last distance at most, and the one whose checkpoint was being written.
    """

    def __init__(self, files: TrialFiles, attempt: int, seconds_apart: float = 0.0) -> None:
        """Start a thread with the first write.

        Args:
            files: Of the trial.
            attempt: Its current attempt, which fences the writes.
            seconds_apart: Shortest distance between the starts of two writes; 0 writes every checkpoint.
        """
        self._files, self._attempt, self._seconds_apart = files, attempt, seconds_apart
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._held: Checkpoint | None = None
        self._last_started = -float("inf")

    @property
    def is_due(self) -> bool:
        """Whether the shortest distance to the last write has passed."""
        return time.monotonic() - self._last_started >= self._seconds_apart

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint in the thread.

        Raises:
            LostTrialError: If the trial has ended or has a newer attempt.
            StorageError: If the write before has failed.
        """
        self._files.check_attempt(self._attempt)
        self.wait()
        self._held, self._last_started = None, time.monotonic()
        self._writing = self._thread.submit(self._files.write_checkpoint, checkpoint, self._attempt)

    def hold(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint that is not due, which `flush` writes unless a later one is written or held before."""
        self._held = checkpoint

    def flush(self) -> None:
        """Write what is held, and wait until it is written; raises as `write`."""
        if self._held is not None:
            self.write(self._held)
        self.wait()

    def wait(self) -> None:
        """Wait until the last checkpoint is written; raise what its write has raised."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Wait until the last checkpoint is written, and end the thread.

        A write that fails is not told: the trial has ended, or another attempt goes on from the checkpoint before.
        """
        try:
            with contextlib.suppress(LostTrialError, StorageError):
                self.wait()
        finally:
            self._thread.shutdown()
