"""Models of a configuration: backbone and new head, initialized from the trial's seed alone, and how images enter them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, check_choice
from search_spaces.extensions import refusing
from trainables.data.augmentation.pipeline import AugmentationSettings, prepare_batch
from trainables.models.catalog import NUM_OUTPUTS, Backbone, read_backbone
from trainables.models.convolutions import use_small_map_convolutions
from trainables.models.heads import find_linear_head, replace_head
from trainables.models.parameter_groups import freeze_layers
from trainables.models.weights import copy_weights, find_weights_file, load_weights_file
from trainables.seeds import derive_seed

COMPILERS = ("none", "inductor", "cuda_graphs")


def build_model(config: TrialConfig, num_classes: int, *, weights: str | None = None) -> nn.Module:
    """Return the model of a configuration, float32 on the CPU, with a pretrained or random backbone and a random head.

    Args:
        config: Reads `seed`, `backbone`, `model_arguments`, `image_size`, `weights`, `tuning` and `freeze_depth`.
            Frozen parameters require no gradient, and
            `set_training_mode` keeps the BatchNorm statistics beside them fixed.
        num_classes: Outputs K of the head.
        weights: Location of the pretrained weights on this machine. None means the `weights` of `config`, which in a
            study are only an identity ("sha256:...").

    Raises:
        UserInputError: For an unknown backbone or precision, a head that is not found, an input size that the model does not
            take, or weights that are missing or do not match the backbone.
    """
    backbone = read_backbone(config)
    weights = config.word("weights") if weights is None else weights
    path = find_weights_file(backbone.name, weights)
    # A custom function need not have other numbers of outputs.
    num_outputs = NUM_OUTPUTS if backbone.is_of_library else num_classes
    model, head = _build_backbone(backbone, config, num_outputs, path)
    replace_head(model, head, config, num_classes)
    freeze_layers(model, config)
    return model


def _build_backbone(
    backbone: Backbone, config: TrialConfig, num_outputs: int, path: Path | None
) -> tuple[nn.Module, str]:
    """Return the model with its own head, and the name of that head."""
    arguments = backbone.read_arguments(config)
    state = None if path is None else load_weights_file(path)
    # Libraries initialize from the global generator; its state is restored.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(config.seed, "backbone"))
        if state is not None and path is not None and backbone.build_from is not None:
            model = backbone.construct_from(arguments, num_outputs, state, path)
        elif state is not None and backbone.is_fixed_init:
            with torch.device("meta"):  # skips the initialization
                model = backbone.construct(arguments, num_outputs)
            model.to_empty(device="cpu")
        else:
            model = backbone.construct(arguments, num_outputs)
    head = backbone.head or find_linear_head(model, num_outputs, backbone.name)
    if state is not None and path is not None and backbone.build_from is None:
        copy_weights(model, state if backbone.adapt is None else backbone.adapt(state), head, backbone.name, path)
    return model, head


def check_input_size(config: TrialConfig, model: nn.Module) -> None:
    """Pass one image through the model; raise UserInputError if it does not take the size or returns no logits of K classes."""
    side, name = config.whole("image_size"), config.word("backbone")
    with (
        refusing(
            lambda reason: (
                f"{name} does not take images of {side} px ({reason}); set train.image_size to a size that it takes, or give "
                "its size argument in [model.arguments]"
            )
        ),
        torch.inference_mode(),
    ):
        output = model.eval()(torch.zeros(1, 3, side, side))
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserInputError(f"{name} must return logits (N, K), but returned {shape}")


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
    kind = config.word("compile")
    check_choice("there is no train.compile", kind, COMPILERS)
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


def set_training_mode(model: nn.Module, config: TrialConfig) -> None:
    """Switch to training mode, except for frozen layers, whose BatchNorm keeps its statistics and whose dropout is off.

    Args:
        model: Model of `build_model`.
        config: Reads `tuning` and `freeze_depth`.
    """
    is_frozen = config["tuning"] == "probe"
    model.train(not is_frozen)
    if not is_frozen and (config["tuning"] != "full" or config.whole("freeze_depth")):
        for module in model.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_forward_flops(config: TrialConfig, num_classes: int) -> int:
    """Return the floating-point operations of one image's forward pass; a multiply-add counts as two.

    Counted by torch, on meta tensors; on the CPU where a custom model computes with values.

    Args:
        config: Reads `backbone`, `model_arguments` and `image_size`.
        num_classes: Outputs K of the head.
    """
    backbone, side = read_backbone(config), config.whole("image_size")
    arguments = backbone.read_arguments(config)

    def count(device: str) -> int:
        # Some models cannot be built on the meta device, where nothing is initialized.
        with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter, torch.no_grad():
            with torch.device(device if backbone.is_fixed_init else "cpu"):
                model = backbone.construct(arguments, num_classes).to(device).eval()
            model(torch.zeros(1, 3, side, side, device=device))
        return int(counter.get_total_flops())

    try:
        return count("meta")
    except Exception:
        # Whatever a network raises that looks at its values; the CPU raises it again if it is another reason.
        return count("cpu")


def prepare_inputs(images: Tensor, config: TrialConfig) -> Tensor:
    """Return (B, 3, S, S) float32 inputs for evaluation.

    Args:
        images: (B, H, W, 3) uint8.
        config: Reads `backbone`, `image_size`, `interpolation` and `channels_last`.
    """
    backbone = read_backbone(config)
    return prepare_batch(
        images,
        image_size=config.whole("image_size"),
        interpolation=config.word("interpolation"),
        channels_last=bool(config["channels_last"]),
        mean=backbone.mean,
        std=backbone.std,
    )


def read_augmentation(config: TrialConfig) -> AugmentationSettings:
    """Return the augmentation of a configuration, with the normalization of its backbone."""
    backbone = read_backbone(config)
    return AugmentationSettings.from_config(config, backbone.mean, backbone.std)
