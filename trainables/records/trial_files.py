"""`TrialFiles`: the files of one trial, and `CheckpointWriter`, which writes checkpoints while the next epoch trains."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed
from torch import Tensor, nn

from trainables.damaged_files import DamagedFileError, decoding
from trainables.records.record import RECORD, RECORD_COPY, TrialRecord, TrialState, read_body
from trainables.storage.store import StorageError, Store
from trainables.training.checkpoint import Checkpoint
from trainables.training.epoch_metrics import EpochMetrics
from trainables.training.predictions import Predictions

CHECKPOINTS = "checkpoint"
RESULTS = "best"
WEIGHTS = "weights.safetensors"
NUM_CHECKPOINTS_KEPT = 2

_WHILE_IN_USE = Retrying(
    retry=retry_if_exception_type(StorageError), wait=wait_fixed(0.1), stop=stop_after_delay(10.0), reraise=True
)


Result = TypeVar("Result")


class LostTrialError(Exception):
    """The trial has ended or has a newer attempt, so this process may not write its files any more."""


class TrialFiles:
    """Reads and writes the files below one trial's folder.

    Each attempt writes checkpoints, weights and predictions under its own names, so that a process that survives the loss of its
    node never overwrites the files of another attempt. The last two checkpoints are kept. Weights and predictions lie in
    best/<attempt>/, and the digests in the trial's record name those that count, by their paths below the trial's folder.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def read_num_attempts(self) -> int:
        """Return the number of the current attempt, which serves as its fencing token."""
        return self._read_record(TrialRecord.from_json).attempts

    def check_attempt(self, attempt: int) -> None:
        """Raise LostTrialError if `attempt` is not the current attempt or the trial has ended."""
        # It is read before and after every checkpoint, so no more of it is looked at than what decides.
        body = self._read_record(read_body)
        if body["attempts"] != attempt or TrialState(body["state"]).is_finished:
            raise LostTrialError(
                f"attempt {attempt} of trial {body['trial_id']} is over: the study is at attempt {body['attempts']}, "
                f"{body['state']}"
            )

    def write_checkpoint(self, checkpoint: Checkpoint, attempt: int) -> None:
        """Store a checkpoint of `attempt`, then delete all but the last two checkpoints of this and earlier attempts.

        Raises:
            LostTrialError: If the attempt is over; a checkpoint that was being written when it ended is deleted again.
        """
        self.check_attempt(attempt)
        name = f"{checkpoint.num_steps:09d}-{attempt:04d}.safetensors"
        try:
            self.store.write_bytes(f"{CHECKPOINTS}/{name}", checkpoint.to_bytes())
        except FileNotFoundError:  # the folder was deleted in the middle of the write, because the trial has ended
            self.check_attempt(attempt)
            raise
        try:
            self.check_attempt(attempt)
        except LostTrialError:
            has_ended = self._read_record(TrialRecord.from_json).state.is_finished
            self.store.delete(CHECKPOINTS if has_ended else f"{CHECKPOINTS}/{name}")
            raise
        ours = [n for n in self._checkpoint_names() if _attempt_of(n) <= attempt and n <= name]
        for old in ours[:-NUM_CHECKPOINTS_KEPT]:
            self.store.delete(f"{CHECKPOINTS}/{old}")

    def read_checkpoint(self) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """Return the latest intact checkpoint, or None if there is none, and a message for each damaged one."""
        problems: list[str] = []
        for found in self._read_checkpoints():
            if isinstance(found, Checkpoint):
                return found, tuple(problems)
            problems.append(f"{found.args[0]}; the trial continued from an earlier state")
        return None, tuple(problems)

    def read_finite_checkpoint(self) -> Checkpoint | None:
        """Return the latest intact checkpoint of finite weights after at least one epoch with finite metrics, or None."""
        intact = (found for found in self._read_checkpoints() if isinstance(found, Checkpoint))
        return next((checkpoint for checkpoint in intact if checkpoint.is_finite), None)

    def delete_checkpoint(self) -> None:
        """Delete all checkpoints, of a trial that has ended.

        Its process may still be writing one, which it deletes itself; until then the folder cannot be removed.
        """
        _WHILE_IN_USE(self.store.delete, CHECKPOINTS)

    def delete_lost_results(self, digests: Mapping[str, str]) -> None:
        """Delete the weights and predictions of the attempts of which the record of a trial that has ended names no file."""
        named = {path.split("/")[1] for path in digests}
        for attempt in self.store.list_folder(RESULTS):
            if attempt not in named:
                _WHILE_IN_USE(self.store.delete, f"{RESULTS}/{attempt}")

    def write_weights(self, state: Mapping[str, Tensor], attempt: int) -> dict[str, str]:
        """Store the final weights.

        Args:
            state: State dict of contiguous CPU tensors under torchvision's names.
            attempt: The attempt that trained them.

        Returns:
            The digest, by the path of the file.
        """
        return self._write(WEIGHTS, save(dict(state)), attempt)

    def delete_weights(self, digests: Mapping[str, str]) -> None:
        """Delete the final weights that a record names."""
        if path := find_file(WEIGHTS, digests):
            self.store.delete(path)

    def without_weights(self, digests: Mapping[str, str]) -> dict[str, str]:
        """Return the digests of a trial's files without that of its weights."""
        return {path: digest for path, digest in digests.items() if path != find_file(WEIGHTS, digests)}

    def read_weights(self, digests: Mapping[str, str]) -> bytes:
        """Return the content of the file of the final weights; see `load_weights` for `digests` and errors."""
        return self._read(WEIGHTS, digests)[0]

    def load_weights(self, model: nn.Module, digests: Mapping[str, str]) -> nn.Module:
        """Load the final weights into `model` and return it.

        Args:
            model: Model of the trial's architecture.
            digests: Digests from the trial's record, by the paths of the files.

        Raises:
            DamagedFileError: If the record names no such file, or it is missing, or is not the one that the trial stored.
        """
        data, where = self._read(WEIGHTS, digests)
        with decoding(where, SafetensorError, RuntimeError):
            model.load_state_dict(load(data))
        return model

    def read_trained(self) -> tuple[dict[str, Tensor], tuple[EpochMetrics, ...]]:
        """Return the final weights of a trial that ended, and its epochs; raise DamagedFileError if it has no intact weights."""
        record = self._read_record(TrialRecord.from_json)
        fields = set(EpochMetrics.model_fields)
        epochs = (EpochMetrics.model_validate(epoch.model_dump(include=fields)) for epoch in record.epochs)
        return load(self.read_weights(record.digests)), tuple(epochs)

    def write_predictions(self, predictions: Predictions, attempt: int) -> dict[str, str]:
        """Store the predictions on one split by the model of `attempt`; return the digest, by the path of the file."""
        return self._write(f"{predictions.split}.npz", predictions.to_npz(), attempt)

    def read_predictions(self, split: str, digests: Mapping[str, str]) -> Predictions:
        """Return the predictions on one split; see `load_weights` for `digests` and errors."""
        data, where = self._read(f"{split}.npz", digests)
        with decoding(where, Exception):  # NumPy and zipfile raise almost any class here
            return Predictions.from_npz(data)

    def _write(self, name: str, data: bytes, attempt: int) -> dict[str, str]:
        path = f"{RESULTS}/{attempt:04d}/{name}"
        self.store.write_bytes(path, data)
        return {path: _digest(data)}

    def _read(self, name: str, digests: Mapping[str, str]) -> tuple[bytes, str]:
        """Return the content of a file that the record names, and where it lies."""
        path = find_file(name, digests)
        if not path:
            raise DamagedFileError(f"{self.store.locate(RECORD)} names no {name}")
        where = self.store.locate(path)
        try:
            data = self.store.read_bytes(path)
        except FileNotFoundError:
            raise DamagedFileError(f"{where} is missing") from None
        if _digest(data) != digests[path]:
            raise DamagedFileError(f"{where} is damaged: its digest is not the one in the trial's record")
        return data, where

    def _read_checkpoints(self) -> Iterator[Checkpoint | DamagedFileError]:
        """Yield the checkpoints, latest first, or what is wrong with them."""
        for name in reversed(self._checkpoint_names()):
            path = f"{CHECKPOINTS}/{name}"
            try:
                yield Checkpoint.from_bytes(self.store.read_bytes(path), where=self.store.locate(path))
            except DamagedFileError as damage:
                yield damage
            except FileNotFoundError:  # deleted since it was listed
                continue

    def _checkpoint_names(self) -> list[str]:
        """Return the names of the checkpoints, latest last."""
        return [n for n in self.store.list_folder(CHECKPOINTS) if n.endswith(".safetensors") and not n.startswith(".")]

    def _read_record(self, parse: Callable[..., Result]) -> Result:
        """Return the record as `parse` makes it of the file's content and place; that of its copy if it is damaged or missing."""
        try:
            return parse(self.store.read_bytes(RECORD), where=self.store.locate(RECORD))
        except (DamagedFileError, FileNotFoundError):
            return parse(self.store.read_bytes(RECORD_COPY), where=self.store.locate(RECORD_COPY))


def find_file(name: str, digests: Mapping[str, str]) -> str:
    """Return the path below the trial's folder under which a record's digests name a file such as `WEIGHTS`; "" for none."""
    return next((path for path in digests if path.rpartition("/")[2] == name), "")


def _attempt_of(name: str) -> int:
    return int(name.removesuffix(".safetensors").rpartition("-")[2])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
