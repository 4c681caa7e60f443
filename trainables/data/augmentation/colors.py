"""Colors of a batch, drawn for each image: torchvision's ColorJitter and TrivialAugmentWide."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import TrivialAugmentWide
from torchvision.transforms.v2 import functional as transforms

from search_spaces.settings import AugmentationKeys
from trainables.devices import hold_constant

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
    center, slope, offset = hold_constant(RAMPS, pixels.device)[..., None, None]
    part = (hue - center).abs_().mul_(slope).add_(offset).clamp_(0.0, 1.0)
    return torch.addcmul(low[:, None], chroma[:, None], part)


def _grayscale(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.unbind(1)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]


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


def _read_operation(name: str) -> Operation:
    make_magnitudes, signed = TrivialAugmentWide._AUGMENTATION_SPACE[name]
    magnitudes = make_magnitudes(NUM_BINS, 0, 0)
    return Operation(name, (0.0,) if magnitudes is None else tuple(magnitudes.tolist()), signed)


# Those of torchvision's class, which applies one operation to all images that it is given, drawn from the global generator.
OPERATIONS: tuple[Operation, ...] = tuple(map(_read_operation, TrivialAugmentWide._AUGMENTATION_SPACE))


def trivially_augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return images after one operation each (Müller and Hutter 2021, https://arxiv.org/abs/2103.10158).

    Operations and strengths are those of `torchvision.transforms.v2.TrivialAugmentWide()`: nearest-neighbor interpolation, black
    outside of the image, and translation by up to 32 pixels whatever the size of the image.

    Args:
        pixels: (B, 3, S, S) float32 in [0, 255]; rounded first, because the operations are those of uint8 images.
        generator: On the CPU, so that the operations are known without waiting for the device.

    Returns:
        A new (B, 3, S, S) float32 tensor of whole numbers in [0, 255].
    """
    return apply_operations(pixels, draw_operations(len(pixels), generator))


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


def apply_operations(pixels: Tensor, drawn: Sequence[tuple[int, float]]) -> Tensor:
    """Return images after one operation each. Those of one kind are computed together, each with its own strength.

    Args:
        pixels: (B, 3, S, S) float32 in [0, 255], rounded first.
        drawn: Index in `OPERATIONS` and signed strength of each image.

    Returns:
        A new (B, 3, S, S) float32 tensor of whole numbers in [0, 255].
    """
    order, size = sorted(range(len(drawn)), key=drawn.__getitem__), pixels.shape[-1]
    chosen = [(OPERATIONS[drawn[index][0]].name, drawn[index][1]) for index in order]
    moves = [MOVES[name](strength, size) if name in MOVES else STAY for name, strength in chosen]
    place, strengths, matrices = (
        torch.tensor(values).to(pixels.device, non_blocking=True) for values in (order, [s for _, s in chosen], moves)
    )
    images, start, changed = pixels.round().index_select(0, place), 0, []
    for kind, members in itertools.groupby(chosen, key=lambda drawn: "" if drawn[0] in MOVES else drawn[0]):
        group = slice(start, start + len(list(members)))
        start = group.stop
        if kind in KERNELS:
            changed.append(KERNELS[kind](images[group], strengths[group, None, None, None]))
        else:
            changed.append(images[group] if kind else _move(images[group], matrices[group]))
    return torch.empty_like(pixels).index_copy_(0, place, torch.cat(changed))


Matrix = tuple[float, float, float, float, float, float]


STAY: Matrix = (1, 0, 0, 0, 1, 0)


def _rotate_by(degrees: float, _: int) -> Matrix:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return cosine, -sine, 0, sine, cosine, 0


# By a strength and the side S of the image: the two rows of the matrix that leads from (x, y, 1) in the result to (x, y) in the
# source, in pixels from the center of the image. A shear keeps the upper left corner.
MOVES: Mapping[str, Callable[[float, int], Matrix]] = {
    "ShearX": lambda strength, size: (1, strength, strength * size / 2, 0, 1, 0),
    "ShearY": lambda strength, size: (1, 0, 0, strength, 1, strength * size / 2),
    "TranslateX": lambda strength, _: (1, 0, -int(strength), 0, 1, 0),
    "TranslateY": lambda strength, _: (1, 0, 0, 0, 1, -int(strength)),
    "Rotate": _rotate_by,
}


def _move(images: Tensor, matrices: Tensor) -> Tensor:
    """Return (G, 3, S, S) images moved by (G, 6) matrices. No product of matrices: TF32 would round positions to whole pixels."""
    size = images.shape[-1]
    position = torch.linspace((1 - size) / 2, (size - 1) / 2, size, device=images.device)
    across, down, shift = (matrices.view(-1, 1, 1, 2, 3) * (2 / size)).unbind(-1)
    grid = torch.addcmul(torch.addcmul(shift, across, position[:, None]), down, position[:, None, None])
    return functional.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _blend(images: Tensor, other: Tensor, strengths: Tensor) -> Tensor:
    """Return the images, as far away from other ones as the strength says: images + strength * (images - other)."""
    return torch.addcmul(images, images - other, strengths).clamp_(0, 255).floor_()


def _sharpen(images: Tensor, strengths: Tensor) -> Tensor:
    """Blend with the image smoothed by a 3 x 3 kernel of 1 / 13 around 5 / 13; the border stays."""
    inside, changed = images[..., 1:-1, 1:-1], images.clone()
    smooth = functional.avg_pool2d(images, 3, stride=1, divisor_override=13).add_(inside, alpha=4 / 13).round_()
    changed[..., 1:-1, 1:-1] = _blend(inside, smooth, strengths)
    return changed


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    step = torch.exp2(8 - bits)
    return (images / step).floor_() * step


def _stretch(images: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel from its range to [0, 255]; a channel of one value stays."""
    low, high = (function(images, dim=(-2, -1), keepdim=True) for function in (torch.amin, torch.amax))
    stretched = (images - low).div_((high - low) * (1 / 255)).floor_()
    return torch.where(high == low, images, stretched)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    equalized: Tensor = transforms.equalize_image(images.to(torch.uint8))
    return equalized.to(torch.float32)


# What is not a move, by strengths (G, 1, 1, 1): on (G, 3, S, S) whole numbers in [0, 255], with whole numbers as torchvision's
# functions have on uint8 images, but for rounding.
KERNELS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Brightness": lambda images, strengths: torch.addcmul(images, images, strengths).clamp_(0, 255).floor_(),
    "Color": lambda images, strengths: _blend(images, _grayscale(images).floor_(), strengths),
    "Contrast": lambda images, strengths: _blend(
        images, _grayscale(images).floor_().mean(dim=(1, 2, 3), keepdim=True), strengths
    ),
    "Sharpness": _sharpen,
    "Posterize": _posterize,
    "Solarize": lambda images, strengths: torch.where(images >= 255 * strengths, 255 - images, images),
    "AutoContrast": _stretch,
    "Equalize": _equalize,
}
