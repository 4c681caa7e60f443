"""The classification layer of a model: found in an architecture, and replaced by one for the classes of the data."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
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


def remove_head(model: nn.Module) -> None:
    """Replace the head by the identity, so that the model returns its features."""
    model.set_submodule(find_head(model)[0], nn.Identity())
