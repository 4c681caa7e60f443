"""A process of a trial beside rank 0: trains its part of each epoch that rank 0 announces.

Its standard input is a pipe from rank 0: when that ends, for whatever reason, this process ends too.
"""

import os
import signal
import sys
import threading
import traceback
from pathlib import Path

import torch

from trainables.processes import prepare_to_train
from trainables.training.checkpoint import Checkpoint
from trainables.training.distributed_run import RankArguments, RankRun
from trainables.training.ranks import Ranks, connect, note_ready, read_arguments
from trainables.training.trial_run import EpochInterrupted


def train_as_rank(rank: int, size: int, folder: Path) -> None:
    """Train as rank `rank` of `size`, with the arguments in `folder`, until the process of rank 0 ends the pipe."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # Rank 0 decides when a trial is interrupted.
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_pipe, daemon=True).start()
    try:
        arguments: RankArguments = read_arguments(folder)
        prepare_to_train(arguments.num_threads)
        device = torch.device("cuda", rank) if arguments.device.type == "cuda" else arguments.device
        if device.type == "cuda":
            # Threads of this process, such as that of a DataLoader, would open a context on the first GPU.
            torch.cuda.set_device(device)
        ranks = Ranks(rank=rank, size=size)
        note_ready(folder, rank)
        connect(ranks, folder / "rendezvous", device)
        _train(arguments, ranks, device)
    except BaseException:
        # At once: leaving the group of processes in order would wait for the others, which wait for this one.
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _train(arguments: RankArguments, ranks: Ranks, device: torch.device) -> None:
    run = RankRun(
        arguments.config,
        arguments.data,
        ranks,
        device=device,
        weights=arguments.weights,
        checkpoint=None if arguments.checkpoint is None else Checkpoint.from_bytes(arguments.checkpoint),
    )
    while True:
        try:
            run.train_epoch(ranks.agree(0))
        except EpochInterrupted:
            continue


def _end_with_pipe() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    train_as_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
