"""Ring swaps of a batch: the outer ring of some images is replaced by that of an image of another class."""

import torch
from torch import Tensor

from trainables.data.rings import RING_FRACTIONS, measure_ring

# Rows of random numbers that one image needs: a decision, its donor and the width of its ring.
NUM_SWAP_DRAWS = 3


def swap_rings(images: Tensor, labels: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Return the images, some of them with the ring of an image of another class of the batch.

    The rings are those of the ring audit (`trainables.data.rings`); each image draws one of its widths. The donor of an image is
    drawn uniformly from the images of other classes, as they are in `images`. Where the batch has one class, nothing is swapped.

    Args:
        images: (B, H, W, 3), not changed.
        labels: (B,) int64, the classes, on the images' device.
        probability: Share of the images that get another ring.
        generator: On the CPU.

    Raises:
        UserInputError: If a ring would cover the whole image.
    """
    draws = torch.rand((NUM_SWAP_DRAWS, len(images)), generator=generator).to(images.device, non_blocking=True)
    donors, has_donor = choose_donors(labels, draws[1])
    swapped = has_donor & (draws[0] < probability)
    own, width = torch.arange(len(images), device=images.device), (len(RING_FRACTIONS) * draws[2]).long()
    result = images.index_select(0, torch.where(swapped, donors, own))
    # Ring by ring from the outside; without a mask of each image this takes a quarter of the time.
    for number, fraction in enumerate(RING_FRACTIONS):
        pixels = measure_ring(images.shape[1], images.shape[2], fraction)
        inside = (slice(None), slice(pixels, -pixels), slice(pixels, -pixels))
        result[inside] = images[inside].index_select(0, torch.where(swapped & (width > number), donors, own))
    return result


def choose_donors(labels: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each image the index of one of another class, uniformly, and whether there is one.

    Args:
        labels: (B,) int64, the classes.
        draws: (B,) uniform in [0, 1).

    Returns:
        (B,) int64 indices, and (B,) bool, False where all images are of one class.
    """
    in_order, order = torch.sort(labels, stable=True)
    start = torch.searchsorted(in_order, labels)
    num_own = torch.searchsorted(in_order, labels, right=True) - start
    num_others = len(labels) - num_own
    place = (draws * num_others).long()
    # In the order of the classes, images of the same class are skipped.
    place = torch.where(place < start, place, place + num_own).clamp_(max=len(labels) - 1)
    return order[place], num_others > 0
