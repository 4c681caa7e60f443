"""Contrast, saturation and hue of a batch: torchvision's ColorJitter, with factors of its own for each image."""

import torch
from torch import Tensor

from search_spaces.settings import AugmentationKeys

# ITU-R 601-2, in torchvision's precision.
LUMA = (0.2989, 0.587, 0.114)
# Red, green and blue part of a hue in [0, 6): offset + slope * |hue - center|, between 0 and 1.
RAMPS = ((3.0, 2.0, 4.0), (1.0, -1.0, -1.0), (-1.0, 2.0, 2.0))


def jitter_colors(pixels: Tensor, settings: AugmentationKeys, generator: torch.Generator) -> Tensor:
    """Return images with random contrast, saturation and hue, in this order; what is 0 is left out.

    torchvision's ColorJitter draws the order of its four operations for each call; here it is fixed, with brightness first.

    Args:
        pixels: (B, 3, S, S) float32 in [0, 255].
        settings: The factors of contrast and saturation are uniform in 1 +- their fraction, the shift of the hue in +- its
            fraction of the color circle.
        generator: On the CPU.
    """
    draws = (2 * torch.rand((3, len(pixels)), generator=generator) - 1).to(pixels.device, non_blocking=True)
    contrast, saturation, hue = draws[..., None, None, None]
    if settings.contrast_fraction > 0:
        pixels = adjust_contrast(pixels, 1 + contrast * settings.contrast_fraction)
    if settings.saturation_fraction > 0:
        pixels = adjust_saturation(pixels, 1 + saturation * settings.saturation_fraction)
    if settings.hue_fraction > 0:
        pixels = adjust_hue(pixels, hue * settings.hue_fraction)
    return pixels


def adjust_contrast(pixels: Tensor, factors: Tensor) -> Tensor:
    """Return torchvision's `adjust_contrast` of each image of (B, 3, S, S) in [0, 255] with its own of (B, 1, 1, 1) factors."""
    mean = _grayscale(pixels).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, pixels, factors).clamp_(0.0, 255.0)


def adjust_saturation(pixels: Tensor, factors: Tensor) -> Tensor:
    """Return torchvision's `adjust_saturation` of each image of (B, 3, S, S) in [0, 255] with its own of (B, 1, 1, 1) factors."""
    return torch.lerp(_grayscale(pixels), pixels, factors).clamp_(0.0, 255.0)


def adjust_hue(pixels: Tensor, shifts: Tensor) -> Tensor:
    """Return torchvision's `adjust_hue` of each image of (B, 3, S, S) in [0, 255] with its own of (B, 1, 1, 1) shifts.

    Value and saturation in HSV stay. The hue, in sixths of the color circle, is that of Smith 1978
    (https://doi.org/10.1145/965139.807361).
    """
    red, green, blue = pixels.unbind(1)
    low, value = torch.aminmax(pixels, dim=1)
    chroma = value - low
    divisor = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    hue = torch.where(value == red, (green - blue) / divisor, hue) + 6 * shifts[:, 0]
    hue = hue.sub_((hue / 6).floor_(), alpha=6)[:, None]
    center, slope, offset = (torch.tensor(row, device=pixels.device)[:, None, None] for row in RAMPS)
    part = (hue - center).abs_().mul_(slope).add_(offset).clamp_(0.0, 1.0)
    return torch.addcmul(low[:, None], chroma[:, None], part)


def _grayscale(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]
