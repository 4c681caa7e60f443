"""TrivialAugmentWide of a batch: one operation of torchvision's, at one strength, for each image."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

NUM_BINS = 31


class Operation(NamedTuple):
    """An operation of TrivialAugmentWide.

    Attributes:
        name: As in torchvision.
        magnitudes: `NUM_BINS` strengths; (0.0,) for an operation that has none.
        signed: Whether half of the draws have the opposite sign.
        apply: Returns (G, 3, S, S) uint8 images after the operation at one strength.
    """

    name: str
    magnitudes: tuple[float, ...]
    signed: bool
    apply: Callable[[Tensor, float], Tensor]


def _move(images: Tensor, *, translate: Sequence[int] = (0, 0), shear: Sequence[float] = (0.0, 0.0)) -> Tensor:
    center = [0, 0] if any(shear) else None
    moved: Tensor = functional.affine(
        images, angle=0.0, translate=list(translate), scale=1.0, shear=list(shear), center=center
    )
    return moved


def _degrees(magnitude: float) -> float:
    return math.degrees(math.atan(magnitude))


def _range(low: float, high: float) -> tuple[float, ...]:
    return tuple(torch.linspace(low, high, NUM_BINS).tolist())


_STRENGTHS = _range(0.0, 0.99)
_BITS = tuple((8 - torch.arange(NUM_BINS) / ((NUM_BINS - 1) / 6)).round().tolist())
OPERATIONS: tuple[Operation, ...] = (
    Operation("Identity", (0.0,), False, lambda images, _: images),
    Operation("ShearX", _STRENGTHS, True, lambda images, by: _move(images, shear=(_degrees(by), 0.0))),
    Operation("ShearY", _STRENGTHS, True, lambda images, by: _move(images, shear=(0.0, _degrees(by)))),
    Operation("TranslateX", _range(0.0, 32.0), True, lambda images, by: _move(images, translate=(int(by), 0))),
    Operation("TranslateY", _range(0.0, 32.0), True, lambda images, by: _move(images, translate=(0, int(by)))),
    Operation("Rotate", _range(0.0, 135.0), True, lambda images, by: functional.rotate(images, angle=by)),
    Operation("Brightness", _STRENGTHS, True, lambda images, by: functional.adjust_brightness(images, 1.0 + by)),
    Operation("Color", _STRENGTHS, True, lambda images, by: functional.adjust_saturation(images, 1.0 + by)),
    Operation("Contrast", _STRENGTHS, True, lambda images, by: functional.adjust_contrast(images, 1.0 + by)),
    Operation("Sharpness", _STRENGTHS, True, lambda images, by: functional.adjust_sharpness(images, 1.0 + by)),
    Operation("Posterize", _BITS, False, lambda images, by: functional.posterize(images, int(by))),
    Operation("Solarize", _range(1.0, 0.0), False, lambda images, by: functional.solarize(images, 255 * by)),
    Operation("AutoContrast", (0.0,), False, lambda images, _: functional.autocontrast(images)),
    Operation("Equalize", (0.0,), False, lambda images, _: functional.equalize(images)),
)


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
