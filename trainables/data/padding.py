"""Padding of photographs to squares, and what lies on the content of padded images: masks, and the content of other images."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

from trainables.data.image_array import PAD_COLOR, has_padding

# Images whose content is moved at once.
CHUNK_IMAGES = 128

Images = NDArray[np.uint8]


def pad_to_square(image: Image.Image, side: int) -> Image.Image:
    """Return an RGB image whose sides are at most `side`, in the center of a square of `PAD_COLOR`."""
    left, top = (side - image.width) // 2, (side - image.height) // 2
    around = [left, top, side - image.width - left, side - image.height - top]
    return transforms.pad(image, around, fill=list(PAD_COLOR))  # type: ignore[no-any-return]


def find_content(images: Tensor) -> Tensor:
    """Return (B, 4) int64: top, left, height and width of the rectangle inside the padding of each image.

    Rows and columns at the borders count as padding where every pixel has `PAD_COLOR`; an image of this color alone is content.

    Args:
        images: (B, H, W, 3) uint8, on any device.
    """
    red, green, blue = PAD_COLOR
    is_padding = (images[..., 0] == red) & (images[..., 1] == green) & (images[..., 2] == blue)
    spans = []
    for axis, length in ((2, images.shape[1]), (1, images.shape[2])):
        inside = ~is_padding.all(dim=axis)
        inside |= ~inside.any(dim=1, keepdim=True)
        start, after = inside.to(torch.uint8).argmax(dim=1), inside.flip(1).to(torch.uint8).argmax(dim=1)
        spans.append((start, length - start - after))
    (top, height), (left, width) = spans
    return torch.stack([top, left, height, width], dim=1)


def lay_masks(mask: Tensor, content: Tensor) -> Tensor:
    """Return (B, H, W) bool: a mask (H, W) of the whole image, fitted into the content of each image; False in the padding."""
    places = [_locate(axis, length, content, length) for axis, length in enumerate(mask.shape)]
    inside_y, inside_x = ((at >= 0) & (at < length) for at, length in zip(places, mask.shape, strict=True))
    y, x = (at.long().clamp(0, length - 1) for at, length in zip(places, mask.shape, strict=True))
    return mask[y[:, :, None], x[:, None, :]] & inside_y[:, :, None] & inside_x[:, None, :]


def resample_content(images: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Return (B, H, W, 3) uint8 images: what is in one rectangle of each is stretched onto another, bilinearly.

    Args:
        images: (B, H, W, 3) uint8.
        source: (B, 4) as in `find_content`.
        target: (B, 4) likewise; outside of it the border of the content is repeated.
    """
    grid = []
    for axis, length in enumerate(images.shape[1:3]):
        size = source[:, axis + 2, None]
        at = _locate(axis, length, target, size)
        grid.append(2 * (at.clamp(min=0.5).minimum(size - 0.5) + source[:, axis, None]) / length - 1)
    height, width = images.shape[1:3]
    y, x = grid[0][:, :, None].expand(-1, -1, width), grid[1][:, None, :].expand(-1, height, -1)
    pixels = images.permute(0, 3, 1, 2).to(torch.float32)
    moved = functional.grid_sample(pixels, torch.stack([x, y], dim=3), padding_mode="border", align_corners=False)
    return moved.round_().to(torch.uint8).permute(0, 2, 3, 1)


def _locate(axis: int, length: int, target: Tensor, size: Tensor | int) -> Tensor:
    """Return (B, length) where the pixels of an axis lie in what is stretched onto `target`, in pixels from its border.

    Args:
        axis: 0 for rows, 1 for columns.
        length: of the axis.
        target: (B, 4) as in `find_content`.
        size: (B, 1) or one length of what is stretched.
    """
    places = torch.arange(length, device=target.device) + 0.5
    return (places - target[:, axis, None]) / target[:, axis + 2, None] * size


def move_content(images: Images, onto: Images | None = None) -> Images:
    """Return (N, H, W, 3) images whose content is stretched onto that of other ones; as they are where nothing is padded.

    Args:
        images: (N, H, W, 3).
        onto: of the same shape; None for the whole square.
    """
    if not has_padding(images) and (onto is None or not has_padding(onto)):
        return images
    return np.concatenate(list(_move_chunks(images, onto)))


def _move_chunks(images: Images, onto: Images | None) -> Iterator[Images]:
    for first in range(0, len(images), CHUNK_IMAGES):
        chunk = torch.from_numpy(np.array(images[first : first + CHUNK_IMAGES]))
        target = torch.tensor([[0, 0, *images.shape[1:3]]]).expand(len(chunk), 4)
        if onto is not None:
            target = find_content(torch.from_numpy(np.array(onto[first : first + CHUNK_IMAGES])))
        yield resample_content(chunk, find_content(chunk), target).numpy()


def lay_mask(mask: NDArray[np.bool_], onto: Images) -> NDArray[np.bool_]:
    """Return (N, H, W) a mask (H, W) fitted into the content of each image; (1, H, W), the mask itself, if none is padded."""
    if not has_padding(onto):
        return mask[None]
    chunks = (onto[first : first + CHUNK_IMAGES] for first in range(0, len(onto), CHUNK_IMAGES))
    found = [lay_masks(torch.from_numpy(mask), find_content(torch.from_numpy(np.array(chunk)))) for chunk in chunks]
    return torch.cat(found).numpy()


def lay_content(frames: Images, onto: Images) -> Images:
    """Return images (N, H, W, 3) with other content, which fills the whole square in `frames`."""
    inside = lay_mask(np.ones(onto.shape[1:3], dtype=bool), onto)[..., None]
    return np.where(inside, move_content(frames, onto), onto)
