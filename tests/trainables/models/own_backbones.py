"""Backbones as a package of somebody else would bring them."""

import torch
from torch import nn

from trainables.models.catalog import Backbone


class SmallNet(nn.Module):
    """A CNN with dropout, a scale per channel and a head that is not the last module."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.classify = nn.Linear(2 * width, num_classes)
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()),
            nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU()),
        )
        self.gamma = nn.Parameter(torch.ones(1, 2 * width, 1, 1))
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, K) logits."""
        maps = self.blocks(self.stem(x)) * self.gamma
        return self.classify(self.dropout(maps.mean(dim=(2, 3))))


def build(*, num_classes: int, width: int = 8) -> nn.Module:
    """Return a small network."""
    return SmallNet(num_classes, width)


class CarefulNet(SmallNet):
    """A network that looks at the values of its inputs, which meta tensors do not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, K) logits."""
        assert torch.isfinite(x).all()
        return super().forward(x)


def build_careful(*, num_classes: int, width: int = 6) -> nn.Module:
    """Return a network that checks its inputs."""
    return CarefulNet(num_classes, width)


def build_with_error(*, num_classes: int) -> nn.Module:
    """Fail as somebody's code may."""
    raise ValueError(f"no weights for {num_classes} classes")


def build_without_head(*, num_classes: int) -> nn.Module:
    """Return a network whose head is a convolution."""
    return nn.Sequential(nn.Conv2d(3, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def build_list(*, num_classes: int) -> object:
    """Return what is no model."""
    return [num_classes]


half = Backbone(name="half", build=build, head="classify", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
