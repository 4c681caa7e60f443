"""SGD with a learning rate for the backbone and one for the head, under OneCycle."""

from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from search_spaces.config import TrialConfig
from trainables.models.backbones import split_parameters

BACKBONE, HEAD = "backbone", "head"


def build_optimizer(model: nn.Module, config: TrialConfig) -> torch.optim.SGD:
    """Return Nesterov SGD over the trainable parameters, fused.

    The head learns at `max_lr`, the backbone at `max_lr * backbone_lr_ratio`; weight decay spares biases and BatchNorm
    (every parameter of one dimension). Each parameter group says in "part" whether it is "backbone" or "head".
    Reads `max_lr`, `backbone_lr_ratio`, `weight_decay` and `momentum` of `config`.
    """
    max_lr, ratio = config.number("max_lr"), config.number("backbone_lr_ratio")
    backbone, head = split_parameters(model)
    groups: list[dict[str, Any]] = []
    for part, parameters, lr in ((BACKBONE, backbone, max_lr * ratio), (HEAD, head, max_lr)):
        trainable = [p for p in parameters if p.requires_grad]
        matrices = [p for p in trainable if p.ndim > 1]
        vectors = [p for p in trainable if p.ndim <= 1]
        for members, decay in ((matrices, config.number("weight_decay")), (vectors, 0.0)):
            if members:
                groups.append({"params": members, "lr": lr, "weight_decay": decay, "part": part})
    momentum = float(config.get("momentum", 0.9))
    return torch.optim.SGD(groups, lr=max_lr, momentum=momentum, nesterov=momentum > 0, fused=True)


def build_schedule(optimizer: torch.optim.SGD, config: TrialConfig, steps_per_epoch: int) -> OneCycleLR:
    """Return OneCycleLR over every step of every epoch, to be stepped after each batch.

    The cycle is that of the whole trial whatever pruning does later. From max_lr / 25 up to max_lr over the first
    `lr_peak_fraction` of the steps, then down to max_lr / 250,000, both along a cosine; momentum stays fixed.
    """
    total_steps = steps_per_epoch * config.whole("max_epochs")
    peak_fraction = _peak_fraction(config)
    if peak_fraction * total_steps == 1.0:  # a rise of no steps: torch divides by its length
        peak_fraction *= 1.0 - 1e-9
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=peak_fraction,
        cycle_momentum=False,
    )


def find_lr(optimizer: torch.optim.Optimizer, part: str) -> float:
    """Return the learning rate that the next step uses for "backbone" or "head"; 0.0 for a part that is frozen."""
    return next((float(group["lr"]) for group in optimizer.param_groups if group["part"] == part), 0.0)


def _peak_fraction(config: TrialConfig) -> float:
    return float(config.get("lr_peak_fraction", 0.3))
