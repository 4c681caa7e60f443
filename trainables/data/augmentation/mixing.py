"""Parts of another image in an image: CutMix, MixUp, and swaps of the outer ring, which the ring audit makes too."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_spaces.errors import UserInputError
from search_spaces.settings import AugmentationKeys
from trainables.data.padding import find_content, lay_masks, resample_content
from trainables.seeds import numpy_generator

# Ring widths as fractions of the image's side, the narrowest first: 4 and 6 of 32 pixels.
RING_FRACTIONS = (4 / 32, 6 / 32)


def measure_ring(height: int, width: int, fraction: float) -> int:
    """Return the width in pixels of an outer ring: round(fraction * shorter side), at least one.

    Raises:
        UserInputError: If the ring would cover the whole image.
    """
    pixels = max(1, round(fraction * min(height, width)))
    if 2 * pixels >= min(height, width):
        raise UserInputError(f"a ring of {pixels} pixels covers the whole image of {height}x{width}")
    return pixels


def make_ring(height: int, width: int, fraction: float) -> NDArray[np.bool_]:
    """Return (H, W) bool, True in an outer ring that is round(fraction * shorter side) pixels wide, at least one.

    Raises:
        UserInputError: If the ring would cover the whole image.
    """
    pixels = measure_ring(height, width, fraction)
    ring = np.ones((height, width), dtype=bool)
    ring[pixels:-pixels, pixels:-pixels] = False
    return ring


def mix_images(
    inputs: Tensor, targets: Tensor, boxes: tuple[Tensor, Tensor, float] | None, settings: AugmentationKeys, seed: int
) -> tuple[Tensor, Tensor]:
    """Return inputs, mixed in place, and targets after CutMix or MixUp, at most one of them for an image.

    CutMix chooses first, by its own draw; MixUp chooses among the images that are left, so that its share of all images is
    (1 - cutmix_probability) * mixup_probability, and switching it on or off does not change what CutMix does. (timm's Mixup
    and torchvision's reference recipe choose one of the two for a whole batch.)

    CutMix (Yun et al. 2019, https://arxiv.org/abs/1905.04899, section 3.1 and algorithm A1): a box of area fraction 1 - lambda,
    lambda ~ Beta(1, 1), is copied from the partner, and lambda is recomputed from the box as clipped at the border.
    MixUp (Zhang et al. 2018, https://arxiv.org/abs/1710.09412, equation 2): lambda * image + (1 - lambda) * partner,
    lambda ~ Beta(alpha, alpha). Partners are those of a random permutation, one for each of the two methods.

    Args:
        inputs: (B, 3, S, S), normalized.
        targets: (B, K) float32.
        boxes: Of CutMix (B,) partners, (4, B) uniform draws of decision, lambda, center x and center y, and its probability;
            None if it is disabled.
        settings: Of MixUp, its probability for an image without CutMix, and both parameters of the distribution of lambda.
        seed: Of the draws of MixUp.
    """
    has_box = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
    weights, fractions = targets.new_zeros((len(inputs), 1, 1, 1)), targets.new_zeros((len(inputs), 1))
    partner = None
    if boxes is not None:
        partner, draws, cutmix_probability = boxes
        has_box = draws[0] < cutmix_probability
        weights, fractions = _choose_boxes(draws, has_box, inputs.shape[-1])
    if settings.mixup_probability > 0:
        other, share = _draw_mixup(len(inputs), settings.mixup_probability, settings.mixup_alpha, seed)
        other, share = (t.to(inputs.device, non_blocking=True) for t in (other, share.to(inputs.dtype)[:, None]))
        blended = (share > 0) & ~has_box[:, None]
        partner = other if partner is None else torch.where(blended[:, 0], other, partner)
        weights = torch.where(blended[..., None, None], share[..., None, None], weights)
        fractions = torch.where(blended, share, fractions)
    if partner is None:
        return inputs, targets
    # A lerp by 0 or 1 is exact, and in the memory's own order it is several times faster than `where` on NCHW.
    pixels = inputs.permute(0, 2, 3, 1)
    mixed = pixels.lerp_(pixels.index_select(0, partner), weights).permute(0, 3, 1, 2)
    return mixed, targets * (1.0 - fractions) + targets[partner] * fractions


def _draw_mixup(num_images: int, probability: float, alpha: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the partners (B,) and their shares 1 - lambda (B,), which are 0 where MixUp does not choose the image."""
    generator = numpy_generator(seed, "mixup")
    partner, decision = generator.permutation(num_images), generator.random(num_images)
    share = np.where(decision < probability, generator.beta(alpha, alpha, num_images), 0.0)
    return torch.from_numpy(partner), torch.from_numpy(share)


def _choose_boxes(draws: Tensor, has_box: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return (B, S, S, 1), 1 inside of the boxes and 0 elsewhere, and (B, 1), their share of the area."""
    side = (size * torch.sqrt(1.0 - draws[1])).floor() * has_box
    # Around each center, (2, B): the positions of an interval of this length that lie in the image.
    start = (draws[2:] * size).floor() - (side / 2).floor()
    position = torch.arange(size, device=draws.device)
    inside_x, inside_y = ((position >= start[..., None]) & (position < (start + side)[..., None])).unbind()
    box = (inside_y[:, :, None] & inside_x[:, None, :]).to(draws.dtype)[..., None]
    return box, inside_x.sum(1, keepdim=True) * inside_y.sum(1, keepdim=True) / size**2


# Rows of random numbers that one image needs: a decision, its donor and the width of its ring.
NUM_SWAP_DRAWS = 3


def swap_rings(images: Tensor, labels: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Return the images, some of them with the ring of an image of another class of the batch.

    The rings are those of the ring audit (`measure_ring`); each image draws one of its widths. The donor of an image is drawn
    uniformly from the images of other classes, as they are in `images`. Where the batch has one class, nothing is swapped.
    Rings lie in the content of padded images: the content of the donor is stretched onto that of the image.

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
    content = find_content(images)
    if bool((content[:, 2:] < torch.tensor(images.shape[1:3], device=images.device)).any()):
        moved, result = resample_content(images[donors], content[donors], content), images
        for number, fraction in enumerate(RING_FRACTIONS):
            ring = torch.from_numpy(make_ring(images.shape[1], images.shape[2], fraction)).to(images.device)
            is_moved = lay_masks(ring, content) & (swapped & (width == number))[:, None, None]
            result = torch.where(is_moved[..., None], moved, result)
        return result
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
