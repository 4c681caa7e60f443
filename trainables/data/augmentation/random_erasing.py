"""Random erasing of a batch: torchvision's RandomErasing, with a rectangle of its own for each image."""

import math

import torch
from torch import Tensor

from trainables.data.augmentation.random_crops import NUM_PROPOSALS, take_first

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
    draws = torch.rand((NUM_RECTANGLE_DRAWS, len(inputs)), generator=generator).to(inputs.device, non_blocking=True)
    top, left, height, width = choose_rectangles(draws, inputs.shape[-1], probability).T[..., None]
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
