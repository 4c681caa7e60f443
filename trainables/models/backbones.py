"""The backbones with a new head, initialised from the trial's seed alone."""

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
    {
        "resnet18": torchvision.models.resnet18,
        "resnet50": torchvision.models.resnet50,
    }
)
COMPILERS = ("none", "inductor", "cuda_graphs")


def build_model(config: TrialConfig, num_classes: int, *, weights: str | None = None) -> nn.Module:
    """Return a torchvision ResNet, float32 on the CPU, with pretrained or fresh backbone and a fresh head `fc`.

    Args:
        config: reads `seed`, `backbone`, `weights` and `freeze`. A frozen backbone's parameters require no gradient;
            its BatchNorm statistics stay fixed through `set_training_mode`.
        num_classes: outputs K of the head.
        weights: where the pretrained weights lie on this machine; None means `config`'s own `weights`, which in a
            study is only their identity ("sha256:...").

    Raises:
        UserInputError: for an unknown backbone, or weights that are missing or do not fit.
    """
    backbone = config.word("backbone")
    weights = config.word("weights") if weights is None else weights
    if backbone not in BACKBONES:
        raise UserInputError(f"there is no backbone {backbone!r}{nearest_name(backbone, BACKBONES)}")
    if weights == "none":
        model = _build_fresh(backbone, config.seed)
    else:
        with torch.device("meta"):  # spares the initialisation that the weights overwrite, and draws no numbers
            model = BACKBONES[backbone](weights=None)
        model.to_empty(device="cpu")
        load_backbone_weights(model, backbone, weights)
    model.fc = _build_head(_num_features(model), num_classes, torch_generator(config.seed, "head"))
    if config.get("freeze", False):
        for parameter in split_parameters(model)[0]:
            parameter.requires_grad_(False)
    return model


def place_model(model: nn.Module, config: TrialConfig, device: torch.device) -> nn.Module:
    """Move `model` to `device` in the memory layout that `config` trains in; the layout decides about the last bits.

    On a CPU its convolutions become `SmallMapConv2d` over the same parameters.
    """
    if device.type == "cpu":
        use_small_map_convolutions(model)
    layout = torch.channels_last if config["channels_last"] else torch.contiguous_format
    return model.to(device=device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def compile_model(model: nn.Module, config: TrialConfig, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the model's forward pass, compiled where `config` says so; the parameters stay the model's own.

    `compile` is "none", "inductor" (torch.compile), or "cuda_graphs" (the same, replayed as CUDA graphs). What is compiled costs
    its start again in every trial, and rounds otherwise than the plain model.
    Raises UserInputError for another word, CUDA graphs without CUDA, and a CPU without the C++ compiler that this needs.
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
    # An actor serves many trials, and torch gives up after a few models with one forward method.
    torch.compiler.reset()
    compiled = torch.compile(model, dynamic=False, mode="reduce-overhead" if kind == "cuda_graphs" else None)
    return cast(Callable[[Tensor], Tensor], compiled)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return (backbone parameters, head parameters), each in the model's order; the head is `fc`."""
    backbone: list[nn.Parameter] = []
    head: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (head if name.startswith(HEAD_PREFIX) else backbone).append(parameter)
    return backbone, head


def set_training_mode(model: nn.Module, *, freeze: bool) -> None:
    """Switch to training; with `freeze` BatchNorm keeps its statistics, for nothing but the head may change."""
    model.train(not freeze)


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_forward_flops(config: TrialConfig, num_classes: int) -> int:
    """Return the floating-point operations of one image's forward pass; a multiplication and an addition are two.

    Counted by torch on tensors without data; `config` reads `backbone` and `image_size`.
    """
    side = config.whole("image_size")
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        BACKBONES[config.word("backbone")](weights=None, num_classes=num_classes).eval()(torch.empty(1, 3, side, side))
    return int(counter.get_total_flops())


def _build_fresh(backbone: str, seed: int) -> nn.Module:
    """Initialise as torchvision does; its initialisers take no generator, so the global one is lent and restored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "backbone"))
        return BACKBONES[backbone](weights=None)


def _num_features(model: nn.Module) -> int:
    if not isinstance(model.fc, nn.Linear):
        raise TypeError(f"the head of a torchvision ResNet is a Linear layer, but got {type(model.fc).__name__}")
    return model.fc.in_features


def _build_head(num_features: int, num_classes: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer drawn as `nn.Linear` draws it: uniform in +-1/sqrt(num_features)."""
    with torch.device("meta"):
        head = nn.Linear(num_features, num_classes)
    head.to_empty(device="cpu")
    bound = 1.0 / math.sqrt(num_features)
    with torch.no_grad():
        head.weight.uniform_(-bound, bound, generator=generator)
        head.bias.uniform_(-bound, bound, generator=generator)
    return head
