"""The processes that train one trial together on one machine: how they start, talk to each other, and end.

The process of the trial is rank 0. It starts the others, which end when it closes their standard input or dies itself.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from search_spaces.errors import UserInputError
from trainables.devices import is_out_of_memory

# Of a process beside rank 0.
PROGRAM = "from trainables.training.distributed_run import train_as_rank; train_as_rank()"
# Rank 0 evaluates and writes between two epochs, while the others wait.
PATIENCE = timedelta(hours=12)
END_SECONDS = 20.0
LOOPBACK = {"linux": "lo", "darwin": "lo0"}
NUM_ERROR_LINES = 12
POLL_SECONDS = 0.02
ARGUMENTS = "arguments"
# Smaller arrays are copied into each process.
MIN_SHARED_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """One process of a trial among all of them, which may be one.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def names(self) -> tuple[str | int, ...]:
        """Names of the random numbers of one of several processes, beyond those of the trial."""
        return () if self.size == 1 else ("rank", self.rank)

    def take_part(self, batch: Tensor) -> Tensor:
        """Return this process's part of a batch; parts differ by one image at most."""
        return torch.tensor_split(batch, self.size)[self.rank]

    def gather(self, own: Tensor) -> Tensor:
        """Return (size, ...) tensors of all processes, which have equal shapes."""
        if self.size == 1:
            return own[None]
        found = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(found, own.contiguous())
        return torch.stack(found)

    def agree(self, number: int) -> int:
        """Return the number that rank 0 gives; what the others give does not count."""
        if self.size == 1:
            return number
        told = torch.tensor([number])
        distributed.broadcast(told, src=0)
        return int(told)

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total

    def pack(self, own: Tensor) -> Tensor:
        """Return a tensor of an interrupted epoch as a checkpoint holds it."""
        return own if self.size == 1 else self.gather(own)

    def unpack(self, packed: Tensor) -> Tensor:
        """Return the tensor of this process, from `pack`."""
        # A generator ignores where a view begins.
        return packed if self.size == 1 else packed[self.rank].clone()


ALONE = Ranks()


def connect(ranks: Ranks, folder: Path, device: torch.device) -> None:
    """Connect this process to the others, which wait for each other and find each other through a file in the folder.

    Raises:
        UserInputError: If this process belongs to a group of processes already.
    """
    if distributed.is_initialized():
        raise UserInputError(
            "train.processes > 1 makes a group of torch.distributed, but this process belongs to one already; train in a "
            "process of its own"
        )
    (folder / _name_ready(ranks.rank)).touch()
    # All processes are on one machine, whatever its host name resolves to.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK.get(sys.platform, ""))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(
        backend, init_method=(folder / "rendezvous").as_uri(), rank=ranks.rank, world_size=ranks.size, timeout=PATIENCE
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherRanks:
    """The other processes of a trial, as rank 0 sees them.

    Attributes:
        folder: Temporary folder of the rendezvous, the arguments and what the processes print.
        processes: By rank, from 1.
    """

    folder: tempfile.TemporaryDirectory[str]
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def start(cls, size: int, arguments: Any) -> "OtherRanks":
        """Start ranks 1 to `size` - 1, each of which calls `distributed_run.train_as_rank` with the pickled `arguments`."""
        started = cls(folder=tempfile.TemporaryDirectory(prefix="abstudy-ranks-"))
        place = Path(started.folder.name)
        write_arguments(place, arguments)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        for rank in range(1, size):
            with (place / f"output-{rank}").open("wb") as output:
                started.processes[rank] = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, str(rank), str(size), str(place)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                )
        return started

    def wait_until_ready(self) -> None:
        """Wait until the other processes are about to connect; raise RuntimeError, with what it printed, if one of them ends."""
        waiting = set(self.processes)
        while waiting:
            waiting = {rank for rank in waiting if not (Path(self.folder.name) / _name_ready(rank)).exists()}
            if any(self.processes[rank].poll() is not None for rank in waiting):
                raise RuntimeError("a process of the trial ended before it began to train")
            time.sleep(POLL_SECONDS)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Add what a process that ended printed to an error of the connection to it."""
        try:
            yield
        except RuntimeError as error:
            # That of memory says what to do; other processes that ended did so for the same reason.
            ended = "" if is_out_of_memory(error) else self._describe_ended()
            if not ended:
                raise
            raise RuntimeError(f"{ended}\n{error}") from error

    def _describe_ended(self) -> str:
        for rank, process in self.processes.items():
            try:
                code = process.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                continue
            lines = (Path(self.folder.name) / f"output-{rank}").read_text(errors="replace").splitlines()
            return "\n".join([f"process {rank} of the trial ended with status {code}", *lines[-NUM_ERROR_LINES:]])
        return ""

    def end(self) -> None:
        """End the processes, kindly at first, and delete the folder."""
        for process in self.processes.values():
            if process.stdin is not None:
                process.stdin.close()
        for process in self.processes.values():
            try:
                process.wait(timeout=END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.folder.cleanup()


def _name_ready(rank: int) -> str:
    return f"ready-{rank}"


def write_arguments(folder: Path, arguments: Any) -> None:
    """Write what the other processes get; large arrays, such as images, into files that all of them map."""
    shared: list[pickle.PickleBuffer] = []

    def stays_inside(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < MIN_SHARED_BYTES:
            return True
        shared.append(buffer)
        return False

    (folder / ARGUMENTS).write_bytes(pickle.dumps(arguments, protocol=5, buffer_callback=stays_inside))
    for number, buffer in enumerate(shared):
        _name_shared(folder, number).write_bytes(buffer.raw())


def read_arguments(folder: Path) -> Any:
    """Return what `write_arguments` wrote; large arrays are read-only and in the memory of the machine once."""
    number = sum(1 for _ in folder.glob(_name_shared(folder, "*").name))
    buffers = [np.memmap(_name_shared(folder, place), mode="r") for place in range(number)]
    return pickle.loads((folder / ARGUMENTS).read_bytes(), buffers=buffers)


def _name_shared(folder: Path, number: object) -> Path:
    return folder / f"array-{number}"


def own_device(device: torch.device, ranks: Ranks) -> torch.device:
    """Return the device of one process: its own GPU, or the CPU.

    Raises:
        UserInputError: If there are fewer GPUs than processes.
    """
    if device.type != "cuda":
        return device
    if torch.cuda.device_count() < ranks.size:
        raise UserInputError(
            f"train.processes = {ranks.size} needs as many GPUs, but this process sees {torch.cuda.device_count()}; set "
            f"resources.gpu to {ranks.size}, or lower train.processes"
        )
    return torch.device("cuda", ranks.rank)
