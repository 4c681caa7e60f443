"""Batch normalization that becomes part of a convolution changes logits by rounding alone, or nothing is changed."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.trainables.models.test_backbones import change
from trainables.models.backbones import build_model, place_model
from trainables.models.convolutions import SmallMapConv2d
from trainables.models.heads import fold_batch_norm

CPU = torch.device("cpu")
CONFIG = change(image_size=64)


def shake(model: nn.Module) -> nn.Module:
    """Give the normalizations statistics and parameters of their own."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            for tensor, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2.0)):
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
    return model.eval()


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "torchvision:densenet121", "timm:mobilenetv3_small_050"])
def test_logits_stay_and_normalizations_go(backbone: str) -> None:
    config = change(backbone=backbone, image_size=64, channels_last=True)
    with torch.no_grad():
        model = shake(build_model(config, 5, weights="none"))
        inputs = torch.randn((3, 3, 64, 64), generator=torch.Generator().manual_seed(0))
        expected = model(inputs)
        folded = place_model(fold_batch_norm(model, config), config, CPU)
        torch.testing.assert_close(folded(inputs), expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(model(inputs), expected, rtol=0, atol=0)
    left, had = (sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) for net in (folded, model))
    # DenseNet normalizes before it convolves, and timm's normalizations of MobileNet are of another class.
    assert (left == 0) is backbone.startswith("resnet")
    assert left <= had
    if backbone == "resnet18":
        assert any(isinstance(m, SmallMapConv2d) and m.bias is not None for m in folded.modules())


class Twice(nn.Module):
    """A convolution whose output is also used without its normalization, or that is called twice."""

    def __init__(self, *, repeats: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Linear(3, 2)
        self.repeats = repeats

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.norm(y) + (self.conv(y) if self.repeats else y)
        logits: Tensor = self.head(z.mean((2, 3)))
        return logits


@pytest.mark.parametrize("repeats", [True, False])
def test_a_model_that_would_change_stays_as_it_is(repeats: bool) -> None:
    with torch.no_grad():
        model = shake(Twice(repeats=repeats))
    before = copy.deepcopy(model.state_dict())
    folded = fold_batch_norm(model, CONFIG)
    assert isinstance(folded.norm, nn.BatchNorm2d)
    assert all(torch.equal(value, before[name]) for name, value in folded.state_dict().items())


def test_a_model_that_diverged_stays_as_it_is() -> None:
    model = build_model(CONFIG, 5, weights="none").eval()
    with torch.no_grad():
        next(iter(model.parameters())).fill_(float("nan"))
    assert fold_batch_norm(model, CONFIG) is model
