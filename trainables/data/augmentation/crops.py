"""Crops and erased rectangles, one per image of a batch: torchvision's RandomResizedCrop, RandomCrop and RandomErasing."""

import math

import torch
from torch import Tensor

from trainables.devices import hold_constant

# As many proposals as torchvision's RandomResizedCrop.get_params makes before it falls back to the center.
NUM_PROPOSALS = 10
# Rows of random numbers that one image needs: two for each proposal, and two for the position.
NUM_CROP_DRAWS = 2 * NUM_PROPOSALS + 2
CUBIC_COEFFICIENT = -0.5


def choose_crops(
    draws: Tensor, height: int, width: int, *, min_area: float, max_ratio: float, content: Tensor | None = None
) -> Tensor:
    """Return the boxes of random crops, distributed as those of torchvision's `RandomResizedCrop.get_params`.

    A crop's share of the area is uniform in [min_area, 1], and the logarithm of its aspect ratio (width / height) is uniform
    within that of [1 / max_ratio, max_ratio]. Of ten proposals the first that fits into the image is taken, at a uniform
    position; if none fits, the crop is the largest one in the center whose ratio is within the limits.

    In a padded image the position is uniform among those where a crop of this size holds as much of the content as it can: it
    contains the content, or lies inside, in each direction.

    Args:
        draws: (22, B) uniform in [0, 1).
        height: H of the images in pixels.
        width: W of the images in pixels.
        min_area: Smallest share of the area, in (0, 1].
        max_ratio: Largest aspect ratio, at least 1.
        content: (B, 4) of `trainables.data.padding.find_content`; None for images without padding.

    Returns:
        (B, 4) float32 of whole numbers: top, left, height and width in pixels.
    """
    area = height * width * (min_area + (1 - min_area) * draws[:NUM_PROPOSALS])
    ratio = torch.exp((2 * draws[NUM_PROPOSALS : 2 * NUM_PROPOSALS] - 1) * math.log(max_ratio))
    heights, widths = torch.sqrt(area / ratio).round(), torch.sqrt(area * ratio).round()
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    free = hold_constant((height, width), draws.device)[:, None]
    size = take_first(fits, heights, widths)
    first, last = torch.zeros_like(size), free - size
    if content is not None:
        start, length = content.T[:2].to(size.dtype), content.T[2:].to(size.dtype)
        either = torch.stack([start, start + length - size])
        first, last = either.amin(dim=0).clamp(min=0), either.amax(dim=0).minimum(last)
    corner = first + (draws[-2:] * (last - first + 1)).floor()
    center = hold_constant(_center_crop(height, width, max_ratio), draws.device)[:, None]
    return torch.where(fits.any(dim=0), torch.cat([corner, size]), center).T


def take_first(fits: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
    """Return (2, B): height and width of the first of each image's proposals that fits; of the very first if none does.

    Args:
        fits: (P, B) bool.
        heights: (P, B).
        widths: (P, B).
    """
    first = fits.to(torch.int8).argmax(dim=0, keepdim=True)
    return torch.cat([heights.gather(0, first), widths.gather(0, first)])


def _center_crop(height: int, width: int, max_ratio: float) -> tuple[float, float, float, float]:
    """Return top, left, height and width of the crop that is taken where no proposal fits."""
    crop_height, crop_width = height, width
    if width / height < 1 / max_ratio:
        crop_height = round(width * max_ratio)
    elif width / height > max_ratio:
        crop_width = round(height * max_ratio)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return float(top), float(left), float(crop_height), float(crop_width)


def resize_crops(images: Tensor, boxes: Tensor, image_size: int, interpolation: str) -> Tensor:
    """Return the crops as a new (B, 3, S, S) float32 tensor in [0, 255], resampled with antialiasing.

    Resampling is linear and separable, so that each image is multiplied by two matrices, one for its rows and one for its
    columns, whose weights are those of `functional.interpolate(..., antialias=True)` on the crop alone. `functional.grid_sample`
    takes as long, but does not antialias and uses another cubic kernel: from 256 to 224 px, with crops of 0.35 of the area
    or more, smooth images differ by 0.3 (bilinear) and 1.2 (bicubic) of 255 gray levels on average, and by up to 17.

    Args:
        images: (B, H, W, 3) uint8.
        boxes: (B, 4) as in `choose_crops`.
        image_size: S in pixels.
        interpolation: "bicubic" (clamped to [0, 255]) or "bilinear".
    """
    height, width = images.shape[1:3]
    rows = _resampling_weights(boxes[:, 0], boxes[:, 2], height, image_size, interpolation)
    columns = _resampling_weights(boxes[:, 1], boxes[:, 3], width, image_size, interpolation)
    pixels = torch.bmm(rows, images.to(torch.float32).flatten(2))
    pixels = pixels.view(len(images), image_size, width, 3).permute(0, 1, 3, 2).flatten(1, 2)
    pixels = torch.bmm(pixels, columns.mT).view(len(images), image_size, 3, image_size).permute(0, 2, 1, 3)
    return pixels.clamp_(0.0, 255.0) if interpolation == "bicubic" else pixels


def _resampling_weights(start: Tensor, length: Tensor, size: int, image_size: int, interpolation: str) -> Tensor:
    """Return (B, S, size): the weights of each source position in each output position; rows sum to 1."""
    start, length = start[:, None, None], length[:, None, None]
    scale = length / image_size
    stretch = scale.clamp_min(1.0)
    source = torch.arange(size, device=start.device, dtype=start.dtype)
    target = (torch.arange(image_size, device=start.device, dtype=start.dtype)[:, None] + 0.5) * scale + start
    distance = ((source + 0.5 - target) / stretch).abs_()
    weights = _cubic(distance) if interpolation == "bicubic" else (1.0 - distance).clamp_min_(0.0)
    weights = weights.mul_((source >= start) & (source < start + length))
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _cubic(distance: Tensor) -> Tensor:
    """Return Keys' cubic convolution kernel at distances >= 0, with the coefficient of Pillow and of torch's antialiasing."""
    a = CUBIC_COEFFICIENT
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


def pad_and_crop(pixels: Tensor, padding: int, mode: str, generator: torch.Generator) -> Tensor:
    """Return images that are padded on all sides and cropped to their size at a uniform position.

    The result is that of torchvision's `RandomCrop(S, padding=padding, padding_mode=...)` on each image: "reflect" mirrors the
    image without repeating its border, "zero" is torchvision's "constant". He et al. 2016 (https://arxiv.org/abs/1512.03385,
    section 4.2) pad 32 px images by 4.

    Args:
        pixels: (B, 3, S, S) float32.
        padding: In pixels, 0 <= padding < S.
        mode: "reflect" or "zero".
        generator: On the CPU.
    """
    offsets = torch.randint(0, 2 * padding + 1, (2, len(pixels)), generator=generator)
    return crop_padded(pixels, offsets.to(pixels.device, non_blocking=True), padding, mode)


def crop_padded(pixels: Tensor, offsets: Tensor, padding: int, mode: str) -> Tensor:
    """Return the crops at given positions of the padded images.

    Args:
        pixels: (B, 3, S, S) float32.
        offsets: (2, B) int64 in [0, 2 * padding]: top and left of each crop in the padded image.
        padding: In pixels, 0 <= padding < S.
        mode: "reflect" or "zero".
    """
    num, size = len(pixels), pixels.shape[-1]
    position = torch.arange(size, device=pixels.device)
    rows, columns = position + offsets[..., None] - padding
    inside = ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[:, None, :]
    rows, columns = _reflect(rows, size), _reflect(columns, size)
    image = torch.arange(num, device=pixels.device)[:, None, None]
    source = (image * size + rows[:, :, None]) * size + columns[:, None, :]
    by_pixel = pixels.permute(0, 2, 3, 1).reshape(-1, pixels.shape[1])
    crops = by_pixel.index_select(0, source.flatten()).view(num, size, size, -1)
    if mode == "zero":
        crops.masked_fill_(~inside[..., None], 0.0)
    return crops.permute(0, 3, 1, 2)


def _reflect(position: Tensor, size: int) -> Tensor:
    """Return positions in [-size + 1, 2 * size - 2] mirrored at the first and the last pixel."""
    return size - 1 - (size - 1 - position.abs()).abs()


# Limits of the erased share of the area and of height / width: those of the paper, and torchvision's defaults.
AREA = (0.02, 0.33)
RATIO = (0.3, 3.3)
# Rows of random numbers that one image needs: a decision, two for each proposal, and two for the position.
NUM_RECTANGLE_DRAWS = 1 + 2 * NUM_PROPOSALS + 2


def erase_rectangles(inputs: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Set a rectangle of some of the images to 0, the mean color, in place (Zhong et al. 2020, https://arxiv.org/abs/1708.04896).

    Args:
        inputs: (B, 3, S, S), normalized.
        probability: Share of the images that lose a rectangle.
        generator: On the CPU.
    """
    # Chosen on the CPU: two dozen operations on a few numbers.
    draws = torch.rand((NUM_RECTANGLE_DRAWS, len(inputs)), generator=generator)
    rectangles = choose_rectangles(draws, inputs.shape[-1], probability).to(inputs.device, non_blocking=True)
    top, left, height, width = rectangles.T[..., None]
    position = torch.arange(inputs.shape[-1], device=inputs.device)
    rows = (position >= top) & (position < top + height)
    columns = (position >= left) & (position < left + width)
    return inputs.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def choose_rectangles(draws: Tensor, size: int, probability: float) -> Tensor:
    """Return the rectangles, distributed as those of torchvision's `RandomErasing`.

    The share of the area is uniform in `AREA`, the logarithm of height / width within that of `RATIO`. Of ten proposals the
    first that is smaller than the image is taken, at a uniform position; if there is none, nothing is erased.

    Args:
        draws: (23, B) uniform in [0, 1).
        size: S of the images in pixels.
        probability: Share of the images that lose a rectangle.

    Returns:
        (B, 4) float32 of whole numbers: top, left, height and width in pixels; all 0 where nothing is erased.
    """
    areas, ratios = draws[1 : NUM_PROPOSALS + 1], draws[NUM_PROPOSALS + 1 : -2]
    area = size**2 * (AREA[0] + (AREA[1] - AREA[0]) * areas)
    ratio = torch.exp(math.log(RATIO[0]) + math.log(RATIO[1] / RATIO[0]) * ratios)
    heights, widths = torch.sqrt(area * ratio).round(), torch.sqrt(area / ratio).round()
    fits = (heights < size) & (widths < size)
    sides = take_first(fits, heights, widths)
    corner = (draws[-2:] * (size - sides + 1)).floor()
    erased = fits.any(dim=0) & (draws[0] < probability)
    return torch.where(erased, torch.cat([corner, sides]), 0.0).T
