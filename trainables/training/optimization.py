"""SGD with a learning rate for the backbone and one for the head, under OneCycle."""

from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from search_spaces.config import TrialConfig
from trainables.models.parameter_groups import BACKBONE, HEAD, group_parameters


def build_optimizer(model: nn.Module, config: TrialConfig) -> torch.optim.SGD:
    """Return fused SGD with Nesterov momentum over the trainable parameters.

    The learning rate is `max_lr` for the head and `max_lr * backbone_lr_ratio` for the backbone, times a factor of the layer's
    depth with `layer_decay` below 1 (`trainables.models.parameter_groups`, which also says what takes no weight decay). The
    entry "part" of a parameter group is "backbone" or "head".

    Args:
        model: Model of `build_model`.
        config: Reads `max_lr`, `backbone_lr_ratio`, `layer_decay`, `weight_decay` and `momentum`.
    """
    max_lr, decay = config.number("max_lr"), config.number("weight_decay")
    rates = {HEAD: max_lr, BACKBONE: max_lr * config.number("backbone_lr_ratio")}
    groups: list[dict[str, Any]] = [
        {
            "params": list(group.parameters),
            "lr": rates[group.part] * group.scale,
            "weight_decay": decay if group.has_decay else 0.0,
            "part": group.part,
        }
        for group in group_parameters(model, config.number("layer_decay"))
    ]
    momentum = float(config.get("momentum", 0.9))
    return torch.optim.SGD(groups, lr=max_lr, momentum=momentum, nesterov=momentum > 0, fused=True)


def build_schedule(optimizer: torch.optim.SGD, config: TrialConfig, steps_per_epoch: int) -> OneCycleLR:
    """Return OneCycleLR over all steps of all epochs, to be stepped after each batch.

    The cycle spans the whole trial even if the trial is pruned later. The learning rate rises from max_lr / 25 to max_lr
    over the first `lr_peak_fraction` of the steps and falls to max_lr / 250,000, both along a cosine. Momentum is constant.

    Args:
        optimizer: Optimizer of `build_optimizer`.
        config: Reads `max_epochs` and `lr_peak_fraction`.
        steps_per_epoch: Batches per epoch.
    """
    total_steps = steps_per_epoch * config.whole("max_epochs")
    peak_fraction = float(config.get("lr_peak_fraction", 0.3))
    if peak_fraction * total_steps == 1.0:  # torch divides by the number of steps before the peak, here 0
        peak_fraction *= 1.0 - 1e-9
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=peak_fraction,
        cycle_momentum=False,
    )


def find_lr(optimizer: torch.optim.Optimizer, part: str) -> float:
    """Return the largest learning rate of "backbone" or "head" in the next step; 0.0 for a frozen part."""
    return max((float(group["lr"]) for group in optimizer.param_groups if group["part"] == part), default=0.0)
