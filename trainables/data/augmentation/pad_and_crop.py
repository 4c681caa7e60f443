"""Pad-and-crop of a batch: torchvision's RandomCrop with padding, with an offset of its own for each image."""

import torch
from torch import Tensor


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
