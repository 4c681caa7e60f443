"""Taking a cue away from an image at its native size: texture, shape, colour, or what surrounds the object.

Every removal is a blend between the image and its full removal. The shares are chosen so that all four change the pixels by the
same root mean square, that of the weakest full removal: no cue seems to matter more only because its removal does more.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from analysis.ring_swaps import RING_FRACTIONS, Images, make_ring
from search_spaces.errors import UserInputError

CUES = ("texture", "shape", "colour", "context")
# Of the image's side: the blur's standard deviation, and the patches per side that are shuffled.
BLUR_FRACTION = 1.5 / 32
PATCHES = 4
# ITU-R BT.601 luma.
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class CueRemoval:
    """What the removals of a set of images need besides the images.

    Attributes:
        donors: (n, H, W, 3) uint8, whose ring replaces each image's; of third classes.
        orders: (n, PATCHES^2) the order in which each image's patches are laid out.
        doses: share of the full removal, by cue, in (0, 1].
    """

    donors: Images
    orders: NDArray[np.int64]
    doses: Mapping[str, float]


def prepare_removal(images: Images, donors: Images, generator: np.random.Generator) -> CueRemoval:
    """Return the removals for `images`, (n, H, W, 3) uint8, with doses that are equal in pixel RMS.

    Raises UserInputError for images that are too small for `PATCHES` patches a side.
    """
    if min(images.shape[1:3]) < 2 * PATCHES:
        raise UserInputError(
            f"cues are removed from images of {2 * PATCHES} pixels a side at least, but these have {images.shape[1:3]}"
        )
    orders = generator.permuted(np.tile(np.arange(PATCHES**2), (len(images), 1)), axis=1)
    full = CueRemoval(donors=donors, orders=orders, doses=dict.fromkeys(CUES, 1.0))
    pixels = images.astype(np.float32)
    change = {cue: float(np.sqrt(np.mean((_remove_one(pixels, cue, full) - pixels) ** 2))) for cue in CUES}
    target = min(change.values())
    doses = {cue: target / rms if rms > 0 else 1.0 for cue, rms in change.items()}
    return CueRemoval(donors=donors, orders=orders, doses=doses)


def remove_cues(images: Images, cues: frozenset[str], removal: CueRemoval) -> Images:
    """Return `images` without the cues, always in one order: context, colour, texture, shape."""
    pixels = images.astype(np.float32)
    for cue in ("context", "colour", "texture", "shape"):
        if cue in cues:
            dose = removal.doses[cue]
            pixels = pixels + dose * (_remove_one(pixels, cue, removal) - pixels)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _remove_one(pixels: Pixels, cue: str, removal: CueRemoval) -> Pixels:
    height, width = pixels.shape[1:3]
    if cue == "texture":
        sigma = BLUR_FRACTION * min(height, width)
        return np.asarray(gaussian_filter(pixels, (0, sigma, sigma, 0), mode="nearest"), dtype=np.float32)
    if cue == "colour":
        return np.repeat((pixels @ LUMA)[..., None], 3, axis=3)
    if cue == "context":
        ring = make_ring(height, width, RING_FRACTIONS[0])
        return np.where(ring[None, :, :, None], removal.donors.astype(np.float32), pixels)
    return _shuffle_patches(pixels, removal.orders)


def _shuffle_patches(pixels: Pixels, orders: NDArray[np.int64]) -> Pixels:
    """Return the pixels with their PATCHES x PATCHES patches in another order; what does not divide evenly stays in place."""
    n, height, width = pixels.shape[:3]
    h, w = height // PATCHES, width // PATCHES
    inside = pixels[:, : h * PATCHES, : w * PATCHES]
    patches = inside.reshape(n, PATCHES, h, PATCHES, w, 3).transpose(0, 1, 3, 2, 4, 5).reshape(n, PATCHES**2, h, w, 3)
    moved = np.take_along_axis(patches, orders[:, :, None, None, None], axis=1)
    shuffled = pixels.copy()
    shuffled[:, : h * PATCHES, : w * PATCHES] = (
        moved.reshape(n, PATCHES, PATCHES, h, w, 3).transpose(0, 1, 3, 2, 4, 5).reshape(inside.shape)
    )
    return shuffled
