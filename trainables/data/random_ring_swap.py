"""Ring swaps of a batch: the outer ring of some images is replaced by that of an image of another class."""

import functools

import torch
from torch import Tensor

from trainables.data.rings import RING_FRACTIONS, make_ring

# Rows of random numbers that one image needs: a decision, its donor and the width of its ring.
NUM_DRAWS = 3


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
    draws = torch.rand((NUM_DRAWS, len(images)), generator=generator).to(images.device, non_blocking=True)
    donors, has_donor = choose_donors(labels, draws[1])
    swapped = has_donor & (draws[0] < probability)
    ring = torch.where(swapped, 1 + (len(RING_FRACTIONS) * draws[2]).long(), 0)
    masks = _make_masks(images.shape[1], images.shape[2], images.device)
    return torch.where(masks.index_select(0, ring), images.index_select(0, donors), images)


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
    # In the order of the classes, the images of one's own class are skipped.
    place = torch.where(place < start, place, place + num_own).clamp_(max=len(labels) - 1)
    return order[place], num_others > 0


@functools.lru_cache(maxsize=16)
def _make_masks(height: int, width: int, device: torch.device) -> Tensor:
    """Return (1 + widths, H, W, 1) bool on `device`: no ring, and the rings of all widths."""
    rings = torch.stack([torch.from_numpy(make_ring(height, width, fraction)) for fraction in RING_FRACTIONS])
    return torch.cat([torch.zeros_like(rings[:1]), rings])[..., None].to(device)
