"""`DistributedRun`: the training of one trial by several processes, each with a part of every batch."""

import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from search_spaces.settings import list_process_problems
from trainables.processes import prepare_to_train
from trainables.seeds import derive_seed
from trainables.training.batches import compute_total_weight
from trainables.training.checkpoint import Checkpoint
from trainables.training.epoch_metrics import EpochMetrics
from trainables.training.loop import RunOptions, TrainingRun
from trainables.training.ranks import OtherRanks, Ranks, connect, note_ready, own_device, read_arguments, without_reload
from trainables.training.trial_data import TrialData
from trainables.training.trial_run import EpochInterrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class RankArguments:
    """What the other processes of a trial are told.

    Attributes:
        config: Configuration of the trial.
        data: Images and splits.
        device: Device of the trial.
        weights: As of `TrainingRun`.
        checkpoint: Bytes of the checkpoint to continue from, if any.
        num_threads: CPU threads of each process.
    """

    config: TrialConfig
    data: TrialData
    device: torch.device
    weights: str | None
    checkpoint: bytes | None
    num_threads: int


class RankRun(TrainingRun):
    """The part of one process in the training of a trial: `TrainingRun` with a part of each batch.

    Gradients are averaged over the processes by torch's DistributedDataParallel. A step equals that of one process with the same
    batch, but for rounding, for batch normalization, whose statistics in training are those of a process's part, and for what
    augmentation draws: each process has generators of its own. Running statistics are those of rank 0. Equal numbers of
    processes give bitwise equal results, resumed or not.
    """

    def __init__(self, config: TrialConfig, data: TrialData, ranks: Ranks, **options: Unpack[RunOptions]) -> None:
        """Build the part of a process that is connected to the others; the other arguments are those of `TrainingRun`."""
        self._ranks = ranks
        super().__init__(config, data, **options)
        self._are_weights_equal = bool((self._class_weights == self._class_weights[0]).all())
        self._generator_names = ("rank", ranks.rank)
        self._noise_seed = derive_seed(config.seed, "rank", ranks.rank)

    def train_epoch(self, epoch: int, should_stop: Callable[[], bool] = lambda: False) -> float:
        """Train this process's part of an epoch, see `TrainingRun._train_epoch`; rank 0 alone decides about `should_stop`."""
        return super()._train_epoch(epoch, lambda: bool(self._ranks.agree(int(should_stop()))))

    def _make_forward(self) -> Callable[[Tensor], Tensor]:
        devices = None if self.device.type != "cuda" else [self.device]
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            return self.model
        return DistributedDataParallel(self.model, device_ids=devices)

    def _take_part(self, batch: Tensor) -> Tensor:
        return self._ranks.take_part(batch)

    def _weigh_loss(self, loss: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return a loss whose mean over the processes is that of the batch, and the batch's total weight."""
        is_even = self._are_weights_equal and self._batches.shape.batch_size % self._ranks.size == 0
        if is_even and self._steps.num_accumulated == 1:
            return loss, None
        own = compute_total_weight(targets, self._class_weights)
        # The very same number in all processes, whose weights would drift apart otherwise.
        total = self._ranks.sum(own)
        return loss if is_even else loss * (self._ranks.size * own / total), total

    def _average_loss(self, loss_sum: Tensor) -> float:
        return float(self._ranks.gather(loss_sum).mean())

    def _pack_state(self, own: Tensor) -> Tensor:
        return self._ranks.gather(own)

    def _unpack_state(self, packed: Tensor) -> Tensor:
        # A generator ignores where a view begins.
        return packed[self._ranks.rank].clone()


class DistributedRun(RankRun):
    """Rank 0 of a trial's processes: starts the others, evaluates, and has the interface of `TrainingRun`."""

    def __init__(self, config: TrialConfig, data: TrialData, **options: Unpack[RunOptions]) -> None:
        """Start the other processes and build this one's part; see `TrainingRun` for the arguments.

        Raises:
            UserInputError: As of `TrainingRun`, and for fewer GPUs than processes.
        """
        ranks = Ranks(rank=0, size=config.whole("processes"))
        batch_size = min(config.whole("batch_size"), len(data.splits.train))
        problems = list_process_problems(ranks.size, batch_size, config.word("compile"))
        if problems:
            raise UserInputError("; ".join(problems))
        device, checkpoint = own_device(options["device"], ranks), options.get("checkpoint")
        arguments = RankArguments(
            config=config,
            data=without_reload(data),
            device=device,
            weights=options.get("weights"),
            checkpoint=None if checkpoint is None else checkpoint.to_bytes(),
            num_threads=torch.get_num_threads(),
        )
        self._others = OtherRanks.start(ranks.size, arguments)
        self._finalizer = weakref.finalize(self, _end, self._others)
        try:
            with self._others.explaining():
                self._others.wait_until_ready()
                connect(ranks, self._others.rendezvous, device)
                options["device"] = device
                super().__init__(config, data, ranks, **options)
        except BaseException:
            self.close()
            raise

    def run_epoch(self, *, should_stop: Callable[[], bool] = lambda: False) -> EpochMetrics:
        """Train one epoch with the other processes, evaluate here and return the epoch's metrics; see `TrainingRun`."""
        with self._others.explaining():
            return super().run_epoch(should_stop=should_stop)

    def _train_epoch(self, epoch: int, should_stop: Callable[[], bool]) -> float:
        self._ranks.agree(epoch)
        return self.train_epoch(epoch, should_stop)

    def close(self) -> None:
        """End the other processes."""
        self._finalizer()


def _end(others: OtherRanks) -> None:
    others.end()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


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
