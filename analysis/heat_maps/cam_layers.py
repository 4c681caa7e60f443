"""A network with the arithmetic of its trial, and the layers that heat maps can be computed at.

A CNN gives one layer for each size of its maps: of the outermost modules with maps of that size, the last one that holds a
fair share of their parameters, such as the stages of a ResNet or a ConvNeXt. The maps of a transformer all have one size, so
its layers are blocks at a quarter, half and three quarters of its depth and the last but one: where the class is read from a
token of its own, the other tokens of the last block have no influence on the logits.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.shortcuts.swaps import Images
from analysis.statistics.metrics import FloatArray
from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, nearest_name
from trainables.models.backbones import prepare_inputs
from trainables.training.evaluation import autocast, deterministic_kernels

# Images per forward pass.
BATCH_SIZE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CamNetwork:
    """A network and the configuration of its trial.

    Attributes:
        model: placed as in training (`trainables.models.backbones.place_model`).
        config: gives image size, interpolation, memory layout and precision, as for
            `trainables.training.evaluation.compute_logits`.
    """

    model: nn.Module
    config: TrialConfig

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return next(self.model.parameters()).device

    def prepare(self, images: Images) -> torch.Tensor:
        """Return (n, 3, S, S) float32 inputs on the CPU for (n, H, W, 3) images."""
        return prepare_inputs(torch.from_numpy(np.array(images)), self.config)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Set evaluation mode, precision and kernels; restore every module's mode, and each parameter's gradient and flag.

        Gradients are neither switched on nor off.
        """
        modes = [(module, module.training) for module in self.model.modules()]
        parameters = [(p, p.requires_grad, p.grad) for p in self.model.parameters()]
        try:
            self.model.eval()
            with deterministic_kernels(self.config, self.device), autocast(self.config, self.device):
                yield
        finally:
            for module, training in modes:
                module.training = training
            for parameter, requires_grad, gradient in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient

    def compute_logits(self, inputs: torch.Tensor) -> FloatArray:
        """Return (N, K) float64 logits of (N, 3, S, S) inputs."""
        with self.evaluating(), torch.no_grad():
            batches = [self.model(batch.to(self.device)).float().cpu() for batch in torch.split(inputs, BATCH_SIZE)]
        return np.asarray(torch.cat(batches).double().numpy())


# Share of the parameters of the largest module with maps of a size, below which a module (a norm, a pooling) is no stage.
MIN_SHARE = 0.1
QUARTERS = 4

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Output:
    """A module and the size of its output in cells; `is_map` tells 4-D outputs from tokens."""

    name: str
    module: nn.Module
    size: Size
    is_map: bool

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    def is_inside(self, other: "_Output") -> bool:
        return self.name.startswith(f"{other.name}.")


def find_map_layers(model: nn.Module, run: Callable[[], object]) -> list[tuple[str, Size]]:
    """Return name and (height, width) in cells of the layers with maps, the deepest first.

    Args:
        model: Whose modules are measured.
        run: Passes an image through it.
    """
    outputs: list[_Output] = []

    def record(name: str, module: nn.Module) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            size = _find_size(output)
            if size is not None:
                outputs.append(_Output(name, module, size, output.ndim == 4))

        return hook

    handles = [module.register_forward_hook(record(name, module)) for name, module in model.named_modules() if name]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    maps = [output for output in outputs if output.is_map and output.num_parameters]
    stages = [output for output in maps if next(output.module.children(), None) is not None]
    tokens = [output for output in outputs if not output.is_map and output.num_parameters]
    chosen, blocks = _choose_stages(stages), _find_blocks(tokens)
    # A transformer's patch embedding may have maps, and parts of its own.
    if blocks and _count_parameters(blocks) > _count_parameters(chosen):
        chosen = _spread(blocks)
    return [(output.name, output.size) for output in chosen or _choose_stages(maps)]


def find_module(model: nn.Module, name: str) -> nn.Module:
    """Return a module by its name; raise UserInputError with the nearest name if there is none."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if not name or name not in modules:
        raise UserInputError(f"the model has no layer {name!r}{nearest_name(name, [n for n in modules if n])}")
    return modules[name]


def to_map(output: Tensor) -> Tensor:
    """Return the output of a layer as (N, C, h, w): maps with the channels first or last, or tokens after those without a place.

    Args:
        output: (N, C, h, w), (N, h, w, C), or (N, p + h * w, C) with as few p other tokens as possible, h = w.
    """
    if output.ndim == 4:
        return output.permute(0, 3, 1, 2) if _has_channels_last(output) else output
    size = _find_size(output)
    assert size is not None
    cells = output[:, output.shape[1] - size[0] * size[1] :]
    return cells.transpose(1, 2).reshape(len(output), output.shape[2], *size)


def _find_size(output: object) -> Size | None:
    """Return the (height, width) of an output of one image or more; None if it is neither a map nor tokens."""
    if not isinstance(output, Tensor) or not torch.is_floating_point(output):
        return None
    if output.ndim == 4:
        height, width = output.shape[1:3] if _has_channels_last(output) else output.shape[2:]
        return int(height), int(width)
    if output.ndim == 3 and output.shape[1] > 1:
        side = isqrt(output.shape[1])
        return side, side
    return None


def _has_channels_last(output: Tensor) -> bool:
    return output.shape[1] == output.shape[2] != output.shape[3]


def _choose_stages(maps: Sequence[_Output]) -> list[_Output]:
    """Return one module for each size, the last that was run first."""
    by_size: dict[Size, list[_Output]] = {}
    for output in maps:
        by_size.setdefault(output.size, []).append(output)
    chosen = []
    for of_size in by_size.values():
        outermost = [one for one in of_size if not any(one.is_inside(other) for other in of_size)]
        largest = max(one.num_parameters for one in outermost)
        large = [one for one in outermost if one.num_parameters >= MIN_SHARE * largest]
        # Not a part of the next stage, which has maps of the size of this one at its beginning.
        fewest = min(one.name.count(".") for one in large)
        chosen.append([one for one in large if one.name.count(".") == fewest][-1])
    return sorted(chosen, key=maps.index, reverse=True)


def _count_parameters(outputs: Sequence[_Output]) -> int:
    return sum(output.num_parameters for output in outputs)


def _find_blocks(tokens: Sequence[_Output]) -> list[_Output]:
    """Return the blocks of a transformer: of the modules of one class, those with the most parameters together."""
    by_class: dict[type, list[_Output]] = {}
    for output in tokens:
        by_class.setdefault(type(output.module), []).append(output)
    families = [
        outermost
        for members in by_class.values()
        if len(outermost := [one for one in members if not any(one.is_inside(other) for other in members)]) > 1
    ]
    return max(families, key=_count_parameters, default=[])


def _spread(blocks: Sequence[_Output]) -> list[_Output]:
    """Return the blocks at quarters of the depth, the deepest first."""
    places = {min(round(len(blocks) * k / QUARTERS) - 1, len(blocks) - 2) for k in range(1, QUARTERS + 1)}
    return [blocks[place] for place in sorted(places, reverse=True) if place >= 0]
