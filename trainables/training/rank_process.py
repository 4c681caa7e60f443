"""A process of a trial beside rank 0: trains its part of each epoch that rank 0 announces.

Its standard input is a pipe from rank 0: when that ends, for whatever reason, this process ends too.
"""

import os
import pickle
import signal
import sys
import threading
from pathlib import Path

import torch

from trainables.processes import prepare_to_train
from trainables.training.checkpoint import Checkpoint
from trainables.training.distributed_run import RankArguments, RankRun
from trainables.training.loop import EpochInterrupted
from trainables.training.ranks import Ranks, connected


def main(rank: int, size: int, folder: Path) -> None:
    """Train as rank `rank` of `size`, with the arguments in `folder`, until the process of rank 0 ends the pipe."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # Rank 0 decides when a trial is interrupted.
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_pipe, daemon=True).start()
    arguments: RankArguments = pickle.loads((folder / "arguments").read_bytes())
    prepare_to_train(arguments.num_threads)
    ranks = Ranks(rank=rank, size=size)
    device = torch.device("cuda", rank) if arguments.device.type == "cuda" else arguments.device
    with connected(ranks, folder / "rendezvous", device):
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
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
