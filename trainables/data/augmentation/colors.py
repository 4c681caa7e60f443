"""Colors of a batch, drawn for each image: torchvision's ColorJitter and TrivialAugmentWide."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import TrivialAugmentWide

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


NUM_BINS = 31


class Operation(NamedTuple):
    """An operation of TrivialAugmentWide.

    Attributes:
        name: As in torchvision.
        magnitudes: `NUM_BINS` strengths; (0.0,) for an operation that has none.
        signed: Whether half of the draws have the opposite sign.
    """

    name: str
    magnitudes: tuple[float, ...]
    signed: bool

    def apply(self, images: Tensor, magnitude: float) -> Tensor:
        """Return (G, 3, S, S) uint8 images after the operation at one strength."""
        changed: Tensor = _WIDE._apply_image_or_video_transform(
            images, self.name, magnitude, interpolation=_WIDE.interpolation, fill=_WIDE._fill
        )
        return changed


def _read_operation(name: str) -> Operation:
    make_magnitudes, signed = _WIDE._AUGMENTATION_SPACE[name]
    magnitudes = make_magnitudes(NUM_BINS, 0, 0)
    return Operation(name, (0.0,) if magnitudes is None else tuple(magnitudes.tolist()), signed)


# It applies one operation to all images that it is given, drawn from the global generator: its parts are used here.
_WIDE = TrivialAugmentWide(NUM_BINS)
OPERATIONS: tuple[Operation, ...] = tuple(map(_read_operation, _WIDE._AUGMENTATION_SPACE))


def trivially_augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return images after one operation each (Müller and Hutter 2021, https://arxiv.org/abs/2103.10158).

    Operations, strengths and kernels are those of `torchvision.transforms.v2.TrivialAugmentWide()`: nearest-neighbor
    interpolation, black outside of the image, and translation by up to 32 pixels whatever the size of the image. Images that
    drew the same operation and strength are computed together.

    Args:
        pixels: (B, 3, S, S) float32 in [0, 255]; rounded first, because the operations are those of uint8 images.
        generator: On the CPU, so that the groups are known without waiting for the device.

    Returns:
        A new (B, 3, S, S) float32 tensor of whole numbers in [0, 255].
    """
    drawn = draw_operations(len(pixels), generator)
    order = sorted(range(len(drawn)), key=drawn.__getitem__)
    place = torch.tensor(order).to(pixels.device, non_blocking=True)
    images = pixels.round().to(torch.uint8).index_select(0, place)
    changed, start = torch.empty_like(images), 0
    for (number, magnitude), members in itertools.groupby(order, key=drawn.__getitem__):
        group = slice(start, start + len(list(members)))
        changed[group] = OPERATIONS[number].apply(images[group], magnitude)
        start = group.stop
    return torch.empty_like(pixels).index_copy_(0, place, changed.to(torch.float32))


def draw_operations(num_images: int, generator: torch.Generator) -> list[tuple[int, float]]:
    """Return the index in `OPERATIONS` and the signed strength of each image: uniform over operations, bins and signs."""
    numbers, bins = (
        torch.randint(high, (num_images,), generator=generator).tolist() for high in (len(OPERATIONS), NUM_BINS)
    )
    negative = (torch.rand(num_images, generator=generator) <= 0.5).tolist()
    drawn = []
    for number, chosen, minus in zip(numbers, bins, negative, strict=True):
        operation = OPERATIONS[number]
        magnitude = operation.magnitudes[chosen % len(operation.magnitudes)]
        drawn.append((number, -magnitude if operation.signed and minus else magnitude))
    return drawn
