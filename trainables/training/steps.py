"""`OptimizerSteps`: what happens between the loss of a batch and the next weights.

Its parts are the optimizer, its learning rates by part of the model, their schedule, and the average of the weights.
"""

import copy
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from search_spaces.config import TrialConfig
from search_spaces.errors import check_choice
from trainables.models.parameter_groups import BACKBONE, HEAD, group_parameters
from trainables.training.checkpoint import Checkpoint

# As in timm's ModelEmaV3 with its decay warm-up.
WARMUP_POWER = 2 / 3


def compute_decay(num_averaged: int, max_decay: float) -> float:
    """Return the decay of the update that follows `num_averaged` updates: 1 - (1 + n)^(-2/3), at most `max_decay`.

    Without this warm-up, the untrained head would keep a share of decay^n in the average, which is 37 % after 1000 steps with
    a decay of 0.999; a fine-tuning trial often has no more.
    """
    return min(max_decay, 1.0 - float((1.0 + num_averaged) ** -WARMUP_POWER))


class WeightAverage:
    """The average of a model's weights and of its floating-point buffers, such as the statistics of BatchNorm.

    After each step, average = d * average + (1 - d) * weights, with d of `compute_decay`: torch's `AveragedModel` with
    `use_buffers`, since statistics of the latest weights do not fit averaged weights; but counters are copied, and nothing waits
    for the device. Source: Polyak and Juditsky 1992; decay warm-up as in timm's `ModelEmaV3`.

    Attributes:
        model: The model with the averaged weights, on the device of the trained one.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start with a copy of `model`, whose tensors stay where they are; `decay` is the final decay, in (0, 1)."""
        self.model = copy.deepcopy(model)
        self._decay, self._num_averaged = decay, 0
        own, trained = ([t.detach() for t in itertools.chain(m.parameters(), m.buffers())] for m in (self.model, model))
        self._averages, self._weights = ([t for t in held if t.is_floating_point()] for held in (own, trained))
        self._counters, self._counted = ([t for t in held if not t.is_floating_point()] for held in (own, trained))

    def update(self) -> None:
        """Include the model's weights after a step; the first update copies them."""
        decay = compute_decay(self._num_averaged, self._decay)
        self._num_averaged += 1
        torch._foreach_lerp_(self._averages, self._weights, 1.0 - decay)
        if self._counters:
            torch._foreach_copy_(self._counters, self._counted)

    def restore(self, state: Mapping[str, Tensor], num_averaged: int) -> None:
        """Take over a state dict of `model` and the number of updates that it resulted from."""
        self.model.load_state_dict(dict(state))
        self._num_averaged = num_averaged


OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("onecycle", "cosine")

# Of the cosine schedule, as factors of the peak: the rate of the first step of a warm-up, and the rate that the cosine falls to.
WARMUP_START_FACTOR = 0.01
COSINE_FLOOR_FACTOR = 1e-3

_MOMENTUM = "momentum_buffer"
_STATE_ENTRIES: Mapping[type, tuple[str, ...]] = {
    torch.optim.SGD: (_MOMENTUM,),
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq", "step"),
}


def build_optimizer(model: nn.Module, config: TrialConfig) -> torch.optim.Optimizer:
    """Return the optimizer over the trainable parameters.

    "sgd" is SGD with Nesterov momentum (Sutskever et al. 2013, On the importance of initialization and momentum in deep
    learning, ICML); "adamw" is AdamW with betas of 0.9 and 0.999 and an epsilon of 1e-8 (Loshchilov and Hutter 2019, Decoupled
    Weight Decay Regularization, ICLR), which `momentum` does not affect. The learning rate is `max_lr` for the head and
    `max_lr * backbone_lr_ratio` for the backbone, times a factor of the layer's depth with `layer_decay` below 1
    (`trainables.models.parameter_groups`, which also says what takes no weight decay). The
    entry "part" of a parameter group is "backbone" or "head".

    Args:
        model: Model of `build_model`.
        config: Reads `optimizer`, `max_lr`, `backbone_lr_ratio`, `layer_decay`, `weight_decay`, `momentum` and
            `precision`.

    Raises:
        UserInputError: For an unknown optimizer.
    """
    name = config.word("optimizer")
    check_choice("there is no train.optimizer", name, OPTIMIZERS)
    groups, max_lr = group_parameters(model, config), config.number("max_lr")
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=max_lr, fused=True)
    momentum = config.number("momentum")
    # Where a loss scale skips the first step, the fused SGD (torch 2.13) leaves its momentum unwritten.
    fused = config["precision"] != "fp16"
    return torch.optim.SGD(groups, lr=max_lr, momentum=momentum, nesterov=momentum > 0, fused=fused)


def build_schedule(optimizer: torch.optim.Optimizer, config: TrialConfig, steps_per_epoch: int) -> LRScheduler:
    """Return the schedule over all steps of all epochs, to be stepped after each step of the optimizer.

    The schedule spans the whole trial even if the trial is pruned later. Momentum is constant.

    "onecycle": the learning rate rises from max_lr / 25 to max_lr over the first `lr_peak_fraction` of the steps and falls to
    max_lr / 250,000, both along a cosine (Smith and Topin 2019, Super-Convergence).
    "cosine": over the first `warmup_fraction` of the steps, the learning rate rises linearly from max_lr / 100; then it falls
    along a cosine toward max_lr / 1000 (Loshchilov and Hutter 2017, SGDR, ICLR). It equals torch's
    `SequentialLR([LinearLR, CosineAnnealingLR])`.

    Args:
        optimizer: Optimizer of `build_optimizer`.
        config: Reads `schedule`, `max_epochs`, and `lr_peak_fraction` or `warmup_fraction`.
        steps_per_epoch: Steps of the optimizer per epoch.

    Raises:
        UserInputError: For an unknown schedule.
    """
    name = config.word("schedule")
    check_choice("there is no train.schedule", name, SCHEDULES)
    total_steps = steps_per_epoch * config.whole("max_epochs")
    if name == "cosine":
        num_warmup_steps = round(config.number("warmup_fraction") * total_steps)
        return LambdaLR(optimizer, lambda step: _compute_cosine(step, num_warmup_steps, total_steps))
    peak_fraction = config.number("lr_peak_fraction")
    if peak_fraction * total_steps == 1.0:  # torch divides by the number of steps before the peak, here 0
        peak_fraction *= 1.0 - 1e-9
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=peak_fraction,
        cycle_momentum=False,
    )


def _compute_cosine(step: int, num_warmup_steps: int, total_steps: int) -> float:
    """Return the learning rate of a 0-based step, as a factor of its peak."""
    if step < num_warmup_steps:
        return WARMUP_START_FACTOR + (1.0 - WARMUP_START_FACTOR) * step / num_warmup_steps
    progress = (step - num_warmup_steps) / max(1, total_steps - num_warmup_steps)
    return COSINE_FLOOR_FACTOR + (1.0 - COSINE_FLOOR_FACTOR) * (1.0 + math.cos(math.pi * progress)) / 2.0


def find_lr(optimizer: torch.optim.Optimizer, part: str) -> float:
    """Return the largest learning rate of "backbone" or "head" in the next step; 0.0 for a frozen part."""
    return max((float(group["lr"]) for group in optimizer.param_groups if group["part"] == part), default=0.0)


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
            self._average.update()

    def _advance_schedule(self) -> None:
        if not self._scaler.is_enabled():
            self._schedule.step()
            return
        with warnings.catch_warnings():
            # The schedule also advances where the loss scale skipped the first step.
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
            self._schedule.step()

    def _list_state(self) -> Iterator[tuple[str, nn.Parameter, str]]:
        """Yield the name of each tensor of the optimizer in checkpoints, its parameter, and its entry in the optimizer."""
        for name, parameter in self._model.named_parameters():
            for entry in _STATE_ENTRIES[type(self._optimizer)]:
                yield name if entry == _MOMENTUM else f"{name}/{entry}", parameter, entry

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return the optimizer's tensors, not copied: SGD's momentum by parameter name, AdamW's as "name/exp_avg" and so on."""
        state = self._optimizer.state
        return {
            key: state[parameter][entry]
            for key, parameter, entry in self._list_state()
            if state.get(parameter, {}).get(entry) is not None
        }

    def loss_scale(self) -> Mapping[str, float] | None:
        """Return the state of the loss scale; None unless the precision is fp16."""
        if not self._scaler.is_enabled():
            return None
        state = self._scaler.state_dict()
        return {"scale": float(state["scale"]), "num_good_steps": int(state["_growth_tracker"])}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over the state of a checkpoint whose configuration is that of this trial; the model's weights are not touched."""
        for key, parameter, entry in self._list_state():
            if key in checkpoint.optimizer_state:
                held = checkpoint.optimizer_state[key]
                # In the memory layout of the parameter.
                like = torch.zeros((), device=parameter.device) if held.ndim == 0 else parameter
                self._optimizer.state[parameter][entry] = torch.empty_like(like, requires_grad=False).copy_(held)
        # The step after `num_steps` steps, with the learning rates of that step.
        rates, number = checkpoint.learning_rates, checkpoint.num_steps
        for group, lr in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = lr
        position = {"last_epoch": number, "_step_count": number + 1, "_last_lr": list(rates)}
        self._schedule.load_state_dict({**self._schedule.state_dict(), **position})
        if checkpoint.loss_scale is not None:
            scale = checkpoint.loss_scale
            state = {"scale": scale["scale"], "_growth_tracker": scale["num_good_steps"]}
            self._scaler.load_state_dict({**self._scaler.state_dict(), **state})
        if self._average is not None:
            self._average.restore(checkpoint.average_state, checkpoint.num_steps)
