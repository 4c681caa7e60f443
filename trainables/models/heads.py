"""The classification layer of a model: found in an architecture, replaced by one for the classes, and folded into it."""

import copy
import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from trainables.models.convolutions import FoldedConv2d
from trainables.seeds import torch_generator

# Buffers of a head that standardizes its inputs, which `fold_state` makes part of weight and bias.
MEAN, SCALE = "feature_mean", "feature_scale"


class Head(nn.Linear):
    """The classification layer that `replace_head` puts in, which computes in float32 inside autocast too.

    Its type distinguishes it from all other layers. In bfloat16, with 8 significant bits, the two largest logits of an image may
    be equal although its features are not, and the class with the lower index would be predicted.
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's own name
        """Return (N, K) float32 of (N, D) in any floating-point type."""
        with torch.autocast(input.device.type, enabled=False):
            if MEAN not in self._buffers:
                return super().forward(input.float())
            weight, bias = fold(self.weight, self.bias, self.feature_mean, self.feature_scale)
            return nn.functional.linear(input.float(), weight, bias)

    def standardize(self, mean: Tensor, scale: Tensor) -> None:
        """Subtract the mean (D,) of the inputs and divide by their scale (D,) from now on; a head without bias divides alone."""
        for name, value in ((MEAN, mean if self.bias is not None else torch.zeros_like(mean)), (SCALE, scale)):
            self.register_buffer(name, value.to(self.weight.device, torch.float32))


def fold(weight: Tensor, bias: Tensor | None, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return weight (K, D) and bias (K,) that do without the standardization of the inputs."""
    folded = weight / scale
    return folded, None if bias is None else bias - folded @ mean


def fold_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict in which the standardization of the head is part of its weight and bias, as the library names them."""
    found = dict(state)
    for name in [name for name in state if name.endswith(f".{MEAN}")]:
        head = name.removesuffix(MEAN)
        mean, scale = found.pop(name), found.pop(f"{head}{SCALE}")
        weight, bias = fold(found[f"{head}weight"], found.get(f"{head}bias"), mean, scale)
        found[f"{head}weight"] = weight
        if bias is not None:
            found[f"{head}bias"] = bias
    return found


def find_linear_head(model: nn.Module, num_outputs: int, backbone: str) -> str:
    """Return the name of the last `nn.Linear` with `num_outputs` outputs.

    Raises:
        UserInputError: If there is none.
    """
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == num_outputs]
    if not names:
        raise UserInputError(
            f"the head of {backbone} was not found: it has no linear layer with {num_outputs} outputs; wrap it in a function "
            "that returns the model with a linear layer at its end, and give model.backbone as package.module:function"
        )
    return str(names[-1])


def replace_head(model: nn.Module, name: str, config: TrialConfig, num_classes: int) -> None:
    """Replace the layer `name` by a linear one with the same inputs and bias and K outputs, initialized from the seed.

    The distribution is that of `nn.Linear`: uniform in +-1/sqrt(inputs).

    Args:
        model: Float32, on the CPU.
        name: Dotted name of an `nn.Linear`.
        config: Reads `seed` and `backbone`.
        num_classes: K.

    Raises:
        UserInputError: For a layer that is not linear.
    """
    old = dict(model.named_modules()).get(name)
    if not isinstance(old, nn.Linear):
        raise UserInputError(
            f"the head of {config.word('backbone')} must be a linear layer, but {name!r} is {type(old).__name__}"
        )
    with torch.device("meta"):
        head = Head(old.in_features, num_classes, bias=old.bias is not None)
    head.to_empty(device="cpu")
    bound, generator = 1.0 / math.sqrt(old.in_features), torch_generator(config.seed, "head")
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    model.set_submodule(name, head)


def find_head(model: nn.Module) -> tuple[str, Head]:
    """Return name and layer of the head of a model of `build_model`; raise ValueError if it has none."""
    for name, module in model.named_modules():
        if isinstance(module, Head):
            return name, module
    raise ValueError(f"{type(model).__name__} has no head of replace_head")


# Largest difference of the logits, in float32, of their own size.
TOLERANCE = 1e-3


def fold_batch_norm(model: nn.Module, config: TrialConfig) -> nn.Module:
    """Return an evaluating copy of a model in which each batch normalization is part of the convolution before it.

    A pass over ResNet18 or ResNet50 at 64 px takes 8 to 22 % less time (two cores, batches of 64 and 256). Logits are the same
    but for rounding: in bfloat16 they differ in the third digit, as they do between kinds of devices. A model whose logits differ
    by more than `TOLERANCE` in float32, or are not finite, is returned as it is.

    Args:
        model: Float32 on the CPU, not placed yet.
        config: Reads `image_size`.
    """
    model = model.eval()
    side = config.whole("image_size")
    inputs = torch.randn((2, 3, side, side), generator=torch_generator(0, "folding"))
    folded = copy.deepcopy(model)
    with torch.no_grad():
        expected = model(inputs)
        for before, normalization in _find_pairs(folded, inputs):
            convolution, norm = folded.get_submodule(before), folded.get_submodule(normalization)
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            fused = fuse_conv_bn_eval(convolution, norm)
            fused.__class__ = FoldedConv2d
            folded.set_submodule(before, fused)
            folded.set_submodule(normalization, nn.Identity())
        found = folded(inputs)
    allowed = TOLERANCE * (1 + float(expected.abs().max()))
    return folded if bool(((found - expected).abs() <= allowed).all()) else model


def _find_pairs(model: nn.Module, inputs: Tensor) -> list[tuple[str, str]]:
    """Return the names of each convolution that is called once, and of the normalization that takes its output as it is."""
    made: dict[int, tuple[str, Tensor]] = {}
    calls: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if type(module) is nn.Conv2d:

                def note(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
                    calls[name] = calls.get(name, 0) + 1
                    made[id(output)] = (name, output)

                hooks.callback(module.register_forward_hook(note).remove)
            elif type(module) is nn.BatchNorm2d and module.track_running_stats:

                def match(_: nn.Module, given: tuple[Tensor, ...], name: str = name) -> None:
                    calls[name] = calls.get(name, 0) + 1
                    if given and id(given[0]) in made:
                        pairs.append((made[id(given[0])][0], name))

                hooks.callback(module.register_forward_pre_hook(match).remove)
        model(inputs)
    return [pair for pair in pairs if all(calls[name] == 1 for name in pair)]
