"""`DistributedRun`: the training of one trial by several processes, each with a part of every batch."""

import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import torch

from search_spaces.config import TrialConfig
from search_spaces.errors import refuse_any
from search_spaces.settings import list_process_problems
from trainables.processes import prepare_to_train
from trainables.training.epoch_metrics import EpochMetrics
from trainables.training.loop import RunOptions, TrainingRun
from trainables.training.ranks import OtherRanks, Ranks, connect, own_device, read_arguments
from trainables.training.trial_data import TrialData
from trainables.training.trial_run import EpochInterrupted

# What the other processes of a trial are told: configuration, images and splits, options of `TrainingRun`, and CPU threads of
# each.
RankArguments = tuple[TrialConfig, TrialData, RunOptions, int]


class DistributedRun(TrainingRun):
    """Rank 0 of a trial's processes: starts the others, evaluates, and has the interface of `TrainingRun`."""

    def __init__(self, config: TrialConfig, data: TrialData, **options: Unpack[RunOptions]) -> None:
        """Start the other processes and build this one's part; see `TrainingRun` for the arguments.

        Raises:
            UserInputError: As of `TrainingRun`, and for fewer GPUs than processes.
        """
        ranks = Ranks(rank=0, size=config.whole("processes"))
        batch_size = min(config.whole("batch_size"), len(data.splits.train))
        refuse_any(list_process_problems(ranks.size, batch_size, config.word("compile")))
        device = options["device"] = own_device(options["device"], ranks)
        options["ranks"] = ranks
        # In a form that any process of this machine can unpickle.
        sent = replace(data, reload=None, class_groups=dict(data.class_groups))
        weights, checkpoint = options.get("weights"), options.get("checkpoint")
        told: RunOptions = {"device": device, "weights": weights, "checkpoint": checkpoint}
        self._others = OtherRanks.start(ranks.size, (config, sent, told, torch.get_num_threads()))
        self._finalizer = weakref.finalize(self, _end, self._others)
        try:
            with self._others.explaining():
                self._others.wait_until_ready()
                connect(ranks, Path(self._others.folder.name), device)
                super().__init__(config, data, **options)
        except BaseException:
            self.close()
            raise

    def run_epoch(self, *, should_stop: Callable[[], bool] = lambda: False) -> EpochMetrics:
        """Train one epoch with the other processes, evaluate here and return the epoch's metrics; see `TrainingRun`."""
        with self._others.explaining():
            return super().run_epoch(should_stop=should_stop)

    def train_epoch(self, epoch: int, should_stop: Callable[[], bool]) -> float:
        """Announce an epoch to the other processes, train this one's part and return the mean loss."""
        self._ranks.agree(epoch)
        return super().train_epoch(epoch, should_stop)

    def close(self) -> None:
        """End the other processes."""
        self._finalizer()


def _end(others: OtherRanks) -> None:
    others.end()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def train_as_rank() -> None:
    """Train this process's part of each epoch that rank 0 announces.

    Its rank, the number of processes and the folder of the arguments are on the command line. Standard input is a pipe from rank
    0: when that ends, for whatever reason, this process ends too.
    """
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    for number in (signal.SIGTERM, signal.SIGINT):
        # Rank 0 decides when a trial is interrupted.
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_pipe, daemon=True).start()
    try:
        arguments: RankArguments = read_arguments(folder)
        config, data, options, num_threads = arguments
        prepare_to_train(num_threads)
        ranks = Ranks(rank=rank, size=size)
        device = options["device"] = own_device(options["device"], ranks)
        if device.type == "cuda":
            # Threads of this process, such as that of a DataLoader, would open a context on the first GPU.
            torch.cuda.set_device(device)
        connect(ranks, folder, device)
        options["ranks"] = ranks
        run = TrainingRun(config, data, **options)
        while True:
            with suppress(EpochInterrupted):
                run.train_epoch(ranks.agree(0), lambda: False)
    except BaseException:
        # At once: leaving the group of processes in order would wait for the others, which wait for this one.
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _end_with_pipe() -> None:
    sys.stdin.buffer.read()
    os._exit(0)
