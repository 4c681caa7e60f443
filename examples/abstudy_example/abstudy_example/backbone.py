"""A small convolutional network as a backbone."""

import torch
from torch import nn


class ExampleNet(nn.Module):
    """Three stages of convolutions, the mean over the positions, and a linear head."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            _make_stage(3, width), _make_stage(width, 2 * width), _make_stage(2 * width, 4 * width)
        )
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return (N, K) logits of (N, 3, S, S) normalized images."""
        features: torch.Tensor = self.stages(inputs).mean(dim=(2, 3))
        logits: torch.Tensor = self.head(features)
        return logits


def build(*, num_classes: int, width: int = 16) -> nn.Module:
    """Return the network with `num_classes` outputs; `[model.arguments]` of a spec may set its `width` in channels."""
    return ExampleNet(num_classes, width)


def _make_stage(num_inputs: int, num_outputs: int) -> nn.Module:
    """Return a stage that halves the side of its maps."""
    return nn.Sequential(
        nn.Conv2d(num_inputs, num_outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(num_outputs), nn.ReLU()
    )
