"""Backbones with a new head, initialized from the trial's seed alone."""

import math
import os
import shutil
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, nearest_name
from trainables.models.convolutions import use_small_map_convolutions
from trainables.models.weights import HEAD_PREFIX, load_backbone_weights
from trainables.seeds import derive_seed, torch_generator

BACKBONES: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {"resnet18": torchvision.models.resnet18, "resnet50": torchvision.models.resnet50}
)
COMPILERS = ("none", "inductor", "cuda_graphs")
HEAD_PRECISIONS = ("fp32", "as_backbone")


class Float32Linear(nn.Linear):
    """An `nn.Linear` that computes in float32 inside autocast too.

    In bfloat16, with 8 significant bits, the two largest logits of an image may be equal although its features are not, and
    the class with the lower index would be predicted.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's own name
        """Return (N, K) float32 of (N, D) in any floating-point type."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def build_model(config: TrialConfig, num_classes: int, *, weights: str | None = None) -> nn.Module:
    """Return a torchvision ResNet, float32 on the CPU, with a pretrained or random backbone and a random head `fc`.

    Args:
        config: Reads `seed`, `backbone`, `weights`, `freeze` and `head_precision`: "fp32" computes the logits in float32,
            "as_backbone" in the precision of the backbone. The parameters of a frozen backbone require no gradient;
            `set_training_mode` keeps its BatchNorm statistics fixed.
        num_classes: Outputs K of the head.
        weights: Location of the pretrained weights on this machine. None means the `weights` of `config`, which in a
            study are only an identity ("sha256:...").

    Raises:
        UserInputError: For an unknown backbone or precision, or weights that are missing or do not match the backbone.
    """
    backbone = config.word("backbone")
    weights = config.word("weights") if weights is None else weights
    if backbone not in BACKBONES:
        raise UserInputError(f"there is no backbone {backbone!r}{nearest_name(backbone, BACKBONES)}")
    if weights == "none":
        model = _build_fresh(backbone, config.seed)
    else:
        with torch.device("meta"):  # skips the initialization, which would draw random numbers
            model = BACKBONES[backbone](weights=None)
        model.to_empty(device="cpu")
        load_backbone_weights(model, backbone, weights)
    head_type = _find_head_type(config)
    model.fc = _build_head(head_type, _num_features(model), num_classes, torch_generator(config.seed, "head"))
    if config.get("freeze", False):
        for parameter in split_parameters(model)[0]:
            parameter.requires_grad_(False)
    return model


def place_model(model: nn.Module, config: TrialConfig, device: torch.device) -> nn.Module:
    """Move `model` to `device` in the memory layout of the training, which affects the last bits of results.

    On a CPU its convolutions become `SmallMapConv2d` with the same parameters.

    Args:
        model: Model of `build_model`.
        config: Reads `channels_last`.
        device: Target device.
    """
    if device.type == "cpu":
        use_small_map_convolutions(model)
    layout = torch.channels_last if config["channels_last"] else torch.contiguous_format
    return model.to(device=device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def compile_model(model: nn.Module, config: TrialConfig, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the model's forward pass, compiled if the configuration asks for it; the parameters are shared.

    Each trial compiles again, and a compiled model rounds differently from the plain one.

    Args:
        model: Placed model.
        config: Reads `compile`: "none", "inductor" (torch.compile) or "cuda_graphs" (torch.compile with CUDA graphs).
        device: Device of the model.

    Raises:
        UserInputError: For another value, CUDA graphs without CUDA, or a CPU without a C++ compiler.
    """
    kind = str(config.get("compile", "none"))
    if kind not in COMPILERS:
        raise UserInputError(f"there is no train.compile {kind!r}{nearest_name(kind, COMPILERS)}")
    if kind == "none":
        return model
    if device.type != "cuda" and kind == "cuda_graphs":
        raise UserInputError(
            f'train.compile = "cuda_graphs" needs a CUDA device, but the trial is on {device.type}; use "inductor" or "none"'
        )
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise UserInputError(
            f'train.compile = "{kind}" on a CPU needs a C++ compiler, but there is no {compiler}; install one, set CXX, or '
            'use "none"'
        )
    # An actor serves many trials, and torch stops compiling after a few models with the same forward method.
    torch.compiler.reset()
    compiled = torch.compile(model, dynamic=False, mode="reduce-overhead" if kind == "cuda_graphs" else None)
    return cast(Callable[[Tensor], Tensor], compiled)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters of the backbone and those of the head `fc`, each in the model's order."""
    backbone = [p for name, p in model.named_parameters() if not name.startswith(HEAD_PREFIX)]
    head = [p for name, p in model.named_parameters() if name.startswith(HEAD_PREFIX)]
    return backbone, head


def set_training_mode(model: nn.Module, *, freeze: bool) -> None:
    """Switch to training mode; with `freeze` stay in evaluation mode, so that BatchNorm keeps its statistics."""
    model.train(not freeze)


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_forward_flops(config: TrialConfig, num_classes: int) -> int:
    """Return the floating-point operations of one image's forward pass; a multiply-add counts as two.

    Counted by torch on meta tensors.

    Args:
        config: Reads `backbone` and `image_size`.
        num_classes: Outputs K of the head.
    """
    side = config.whole("image_size")
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        BACKBONES[config.word("backbone")](weights=None, num_classes=num_classes).eval()(torch.empty(1, 3, side, side))
    return int(counter.get_total_flops())


def _build_fresh(backbone: str, seed: int) -> nn.Module:
    """Initialize as torchvision does, which uses the global generator; its state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "backbone"))
        return BACKBONES[backbone](weights=None)


def _num_features(model: nn.Module) -> int:
    if not isinstance(model.fc, nn.Linear):
        raise TypeError(f"the head of a torchvision ResNet must be a Linear layer, but got {type(model.fc).__name__}")
    return model.fc.in_features


def _find_head_type(config: TrialConfig) -> type[nn.Linear]:
    precision = config.word("head_precision")
    if precision not in HEAD_PRECISIONS:
        raise UserInputError(f"there is no head_precision {precision!r}{nearest_name(precision, HEAD_PRECISIONS)}")
    return Float32Linear if precision == "fp32" else nn.Linear


def _build_head(
    head_type: type[nn.Linear], num_features: int, num_classes: int, generator: torch.Generator
) -> nn.Linear:
    """Return a linear layer with the distribution of `nn.Linear`: uniform in +-1/sqrt(num_features)."""
    with torch.device("meta"):
        head = head_type(num_features, num_classes)
    head.to_empty(device="cpu")
    bound = 1.0 / math.sqrt(num_features)
    with torch.no_grad():
        head.weight.uniform_(-bound, bound, generator=generator)
        head.bias.uniform_(-bound, bound, generator=generator)
    return head
