"""The optimizer, its learning rates by part of the model, the schedule of those rates, and the average of the weights."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from search_spaces.config import TrialConfig
from search_spaces.errors import check_choice
from trainables.models.parameter_groups import BACKBONE, HEAD, group_parameters

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
    `use_buffers`, since statistics of the latest weights do not fit averaged weights. Source: Polyak and Juditsky 1992; decay
    warm-up as in timm's `ModelEmaV3`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start with a copy of `model`; `decay` is the final decay, in (0, 1)."""
        self._decay = decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._average, use_buffers=True)

    @property
    def model(self) -> nn.Module:
        """The model with the averaged weights, on the device of the trained one."""
        module = self._averaged.module
        assert isinstance(module, nn.Module)
        return module

    def update(self, model: nn.Module) -> None:
        """Include the model's weights after a step; the first update copies them."""
        self._averaged.update_parameters(model)

    def restore(self, state: Mapping[str, Tensor], num_averaged: int) -> None:
        """Take over a state dict of `model` and the number of updates that it resulted from."""
        self.model.load_state_dict(dict(state))
        self._averaged.n_averaged.fill_(num_averaged)

    def _average(
        self,
        averaged: tuple[Tensor, ...] | list[Tensor],
        current: tuple[Tensor, ...] | list[Tensor],
        num_averaged: Tensor | int,
    ) -> None:
        # The count on the CPU, since reading `num_averaged` would wait for the device.
        decay = compute_decay(int(self._averaged.n_averaged), self._decay)
        get_ema_multi_avg_fn(decay)(averaged, current, num_averaged)  # type: ignore[no-untyped-call]


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
    groups, max_lr = _group_parameters(model, config), config.number("max_lr")
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=max_lr, fused=True)
    momentum = config.number("momentum")
    # Where a loss scale skips the first step, the fused SGD (torch 2.13) leaves its momentum unwritten.
    fused = config["precision"] != "fp16"
    return torch.optim.SGD(groups, lr=max_lr, momentum=momentum, nesterov=momentum > 0, fused=fused)


def _group_parameters(model: nn.Module, config: TrialConfig) -> list[dict[str, Any]]:
    max_lr, decay = config.number("max_lr"), config.number("weight_decay")
    rates = {HEAD: max_lr, BACKBONE: max_lr * config.number("backbone_lr_ratio")}
    return [
        {
            "params": list(group.parameters),
            "lr": rates[group.part] * group.scale,
            "weight_decay": decay if group.has_decay else 0.0,
            "part": group.part,
        }
        for group in group_parameters(model, config.number("layer_decay"))
    ]


def read_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the optimizer's tensors (not copies): SGD's momentum by parameter name, AdamW's as "name/exp_avg" and so on."""
    return {
        key: optimizer.state[parameter][entry]
        for key, parameter, entry in _list_state(optimizer, model)
        if optimizer.state.get(parameter, {}).get(entry) is not None
    }


def restore_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy the tensors of `read_optimizer_state` into the optimizer, in the memory layout of the parameters."""
    for key, parameter, entry in _list_state(optimizer, model):
        if key in state:
            like = torch.zeros((), device=parameter.device) if state[key].ndim == 0 else parameter
            optimizer.state[parameter][entry] = torch.empty_like(like, requires_grad=False).copy_(state[key])


def _list_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> Iterator[tuple[str, nn.Parameter, str]]:
    for name, parameter in model.named_parameters():
        for entry in _STATE_ENTRIES[type(optimizer)]:
            yield name if entry == _MOMENTUM else f"{name}/{entry}", parameter, entry


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
        return LambdaLR(optimizer, _make_cosine(num_warmup_steps, total_steps))
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


def _make_cosine(num_warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """Return the learning rate of a 0-based step, as a factor of its peak."""

    def compute_factor(step: int) -> float:
        if step < num_warmup_steps:
            return WARMUP_START_FACTOR + (1.0 - WARMUP_START_FACTOR) * step / num_warmup_steps
        progress = (step - num_warmup_steps) / max(1, total_steps - num_warmup_steps)
        return COSINE_FLOOR_FACTOR + (1.0 - COSINE_FLOOR_FACTOR) * (1.0 + math.cos(math.pi * progress)) / 2.0

    return compute_factor


def restore_schedule(schedule: LRScheduler, num_steps: int, learning_rates: tuple[float, ...]) -> None:
    """Put the schedule and its optimizer at the step after `num_steps` steps, with the learning rates of that step."""
    for group, lr in zip(schedule.optimizer.param_groups, learning_rates, strict=True):
        group["lr"] = lr
    position = {"last_epoch": num_steps, "_step_count": num_steps + 1, "_last_lr": list(learning_rates)}
    schedule.load_state_dict({**schedule.state_dict(), **position})


def find_lr(optimizer: torch.optim.Optimizer, part: str) -> float:
    """Return the largest learning rate of "backbone" or "head" in the next step; 0.0 for a frozen part."""
    return max((float(group["lr"]) for group in optimizer.param_groups if group["part"] == part), default=0.0)
