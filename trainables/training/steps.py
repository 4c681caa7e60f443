"""`OptimizerSteps`: what happens between the loss of a batch and the next weights; the random numbers that modules draw."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from search_spaces.settings import ACCUMULATION_IN_GRAPHS, FOR_GPUS
from trainables.models.parameter_groups import BACKBONE, HEAD
from trainables.seeds import derive_seed
from trainables.training.checkpoint import Checkpoint, LossScale
from trainables.training.optimization import (
    WeightAverage,
    build_optimizer,
    build_schedule,
    find_lr,
    read_optimizer_state,
    restore_optimizer_state,
    restore_schedule,
)


@contextmanager
def seeded_modules(
    seed: int, epoch: int, device: torch.device, state: Tensor | None = None
) -> Iterator[torch.Generator]:
    """Seed the global generator of the device for an epoch; yield it, and restore its state at the end.

    Args:
        seed: Of the trial.
        epoch: Number of the epoch.
        device: That the modules compute on.
        state: To continue from in the middle of the epoch, from `torch.Generator.get_state`.
    """
    generator = _find_generator(device)
    before = generator.get_state()
    generator.manual_seed(derive_seed(seed, "modules", epoch))
    if state is not None:
        generator.set_state(state)
    try:
        yield generator
    finally:
        generator.set_state(before)


def _find_generator(device: torch.device) -> torch.Generator:
    if device.type != "cuda":
        return torch.default_generator
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]


def check_recipe(config: TrialConfig, device: torch.device) -> None:
    """Check the settings that not every device supports, or that exclude each other.

    Args:
        config: Reads `tf32`, `deterministic`, `accumulate` and `compile`.
        device: Device that trains.

    Raises:
        UserInputError: Listing all problems.
    """
    problems = [
        f"train.{name} = {str(value).lower()} needs a CUDA device, but the trial is on {device.type}; set it to "
        f"{str(not value).lower()}, or train on a GPU"
        for name, value in FOR_GPUS.items()
        if config[name] is value and device.type != "cuda"
    ]
    if config.whole("accumulate") > 1 and config["compile"] == "cuda_graphs":
        problems.append(ACCUMULATION_IN_GRAPHS)
    if problems:
        raise UserInputError("; ".join(problems))


class OptimizerSteps:
    """Optimizer, schedule, loss scale and weight average of one trial.

    `backward` is called once per batch, `step` after each `num_accumulated` batches. A step clips the gradients, updates the
    weights and advances the schedule. Under fp16, losses are multiplied by a scale that adapts itself, and a step whose gradients
    overflow leaves the weights unchanged (torch's GradScaler; Micikevicius et al. 2018, Mixed Precision Training, ICLR).

    Attributes:
        num_accumulated: Batches per step.
    """

    def __init__(
        self, model: nn.Module, config: TrialConfig, device: torch.device, *, batches_per_epoch: int, batch_size: int
    ) -> None:
        """Build optimizer, schedule, loss scale and weight average.

        Args:
            model: Placed model.
            config: Reads `accumulate`, `clip_norm`, `ema_decay` and `precision`, and is passed to `build_optimizer` and
                `build_schedule`.
            device: Device of the model.
            batches_per_epoch: Batches that an epoch has at most; `accumulate` is limited to them.
            batch_size: Images per batch.
        """
        self._model = model
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._batch_size = batch_size
        self._clip_norm = config.number("clip_norm")
        self.num_accumulated = min(config.whole("accumulate"), batches_per_epoch)
        self._optimizer = build_optimizer(model, config)
        self._schedule = build_schedule(self._optimizer, config, batches_per_epoch // self.num_accumulated)
        self._scaler = torch.amp.GradScaler(device.type, enabled=config["precision"] == "fp16")
        ema_decay = config.number("ema_decay")
        self._average = WeightAverage(model, ema_decay) if ema_decay else None
        self._total_weight = torch.zeros((), device=device)

    @property
    def averaged_model(self) -> nn.Module | None:
        """The model with the averaged weights; None without `ema_decay`."""
        return None if self._average is None else self._average.model

    @property
    def num_steps(self) -> int:
        """Steps done, which is the position in the schedule."""
        return self._schedule.last_epoch

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """Learning rates of the next step, one per parameter group."""
        return tuple(float(lr) for lr in self._schedule.get_last_lr())

    @property
    def head_and_backbone_lr(self) -> tuple[float, float]:
        """Learning rates of head and backbone in the next step."""
        return find_lr(self._optimizer, HEAD), find_lr(self._optimizer, BACKBONE)

    def backward(self, loss: Tensor, total_weight: Tensor | None) -> None:
        """Add the gradients of a batch.

        Args:
            loss: Scalar, mean over the batch.
            total_weight: Scalar, the total weight of the images that `loss` is the mean of, by which the batches of a step are
                averaged as one batch would be; not used if a step has one batch.
        """
        if self.num_accumulated > 1:
            assert total_weight is not None
            self._total_weight += total_weight
            loss = loss * (total_weight / (self._batch_size * self.num_accumulated))
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Update the weights with the gradients of the batches since the last step, and advance the schedule."""
        if self.num_accumulated > 1:
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            torch._foreach_mul_(gradients, self._batch_size * self.num_accumulated / self._total_weight)
            self._total_weight.zero_()
        if self._clip_norm:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._advance_schedule()
        if self._average is not None:
            self._average.update(self._model)

    def _advance_schedule(self) -> None:
        if not self._scaler.is_enabled():
            self._schedule.step()
            return
        with warnings.catch_warnings():
            # The schedule also advances where the loss scale skipped the first step.
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
            self._schedule.step()

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return the optimizer's tensors, not copied; see `read_optimizer_state`."""
        return read_optimizer_state(self._optimizer, self._model)

    def loss_scale(self) -> LossScale | None:
        """Return the state of the loss scale; None unless the precision is fp16."""
        if not self._scaler.is_enabled():
            return None
        state = self._scaler.state_dict()
        return LossScale(scale=float(state["scale"]), num_good_steps=int(state["_growth_tracker"]))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over the state of a checkpoint whose configuration is that of this trial; the model's weights are not touched."""
        restore_optimizer_state(self._optimizer, self._model, checkpoint.optimizer_state)
        restore_schedule(self._schedule, checkpoint.num_steps, checkpoint.learning_rates)
        if checkpoint.loss_scale is not None:
            state = {"scale": checkpoint.loss_scale.scale, "_growth_tracker": checkpoint.loss_scale.num_good_steps}
            self._scaler.load_state_dict({**self._scaler.state_dict(), **state})
        if self._average is not None:
            self._average.restore(checkpoint.average_state, checkpoint.num_steps)
