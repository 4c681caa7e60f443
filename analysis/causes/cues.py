"""Removal of a cue from an image at its native size: texture, shape, color or context (the surroundings of the object).

The removed image is blended with the original. The blending weights are chosen such that all removals change the pixels by the
same root mean square, that of the weakest full removal. Otherwise a cue could seem to matter more only because its removal
changes more pixels. A cue that the images lack, such as the color of gray ones, is not the weakest: it is absent.

Shape is removed by permuting patches of the details alone. What is smooth over half a patch stays where it is: permuted too, the
smooth surroundings behind the object would be removed with its shape, and their effect would be taken for the shape's.

The content of a padded image is resized to the whole square, and put back without the cue.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from analysis.shortcuts.swaps import LUMA, Images
from analysis.statistics.metrics import IntArray
from search_spaces.errors import UserInputError
from trainables.data.augmentation.mixing import RING_FRACTIONS, make_ring
from trainables.data.padding import lay_content, move_content

CUES = ("texture", "shape", "color", "context")
# The order in which several cues are removed.
REMOVAL_ORDER = ("context", "color", "texture", "shape")
# The bilateral filter: standard deviations in gray levels and as a fraction of the image's side, widest window in pixels.
SMOOTHED_LEVELS = 60.0
SMOOTHED_FRACTION = 2.0 / 32
WIDEST_WINDOW = 15
PATCHES = 4
# Sides of images that cues can be removed from, in pixels.
MIN_SIDE = 3 * PATCHES
# Standard deviation of the Gaussian filter that separates what is smooth from the details, as a fraction of the image's side:
# half a patch, and less to check that a finding about shape is not one about wide patterns.
SPARED_FRACTION, MORE_SPARED_FRACTION = 3.0 / 32, 2.0 / 32
# Rotation of the hue in radians. It changes the pixels as much as removing the color would, but keeps the edges of color.
HUE_TURN = np.pi / 3
# ITU-R BT.601: luma, and blue and red chroma.
YCBCR = np.stack([LUMA, [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]).astype(np.float32)
RGB = np.linalg.inv(YCBCR).astype(np.float32)
# Root mean square in gray levels below which a cue counts as absent: its removal changes next to nothing after rounding.
SMALLEST_CHANGE = 0.5
Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class CueRemoval:
    """Random choices and blending weights for the removals of n images.

    Attributes:
        donors: (n, H, W, 3) uint8 content of images of third classes; its rings replace those of the images.
        orders: (n, PATCHES^2) permutation of each image's patches.
        turns: (n,) +1 or -1, the direction in which each image's hue is rotated.
        doses: blending weight of the full removal by cue, in (0, 1].
        spared_fraction: width of the filter that separates the details whose patches are permuted, of the image's side.
        absent: cues whose full removal changes the pixels by less than `SMALLEST_CHANGE`; their dose is 1.
    """

    donors: Images
    orders: IntArray
    turns: IntArray
    doses: Mapping[str, float]
    spared_fraction: float = SPARED_FRACTION
    absent: tuple[str, ...] = ()


def prepare_removal(
    images: Images, donors: Images, generator: np.random.Generator, spared_fraction: float = SPARED_FRACTION
) -> CueRemoval:
    """Return the removals for some images, with doses of equal root mean square.

    Args:
        images: (n, H, W, 3) uint8.
        donors: (n, H, W, 3) uint8 images of third classes.
        generator: of patch orders and hue directions.
        spared_fraction: as in `CueRemoval`.

    Raises:
        UserInputError: if a side of the images is below `MIN_SIDE`.
    """
    if min(images.shape[1:3]) < MIN_SIDE:
        raise UserInputError(describe_small_images(*images.shape[1:3]))
    orders = generator.permuted(np.tile(np.arange(PATCHES**2), (len(images), 1)), axis=1)
    turns = generator.choice((-1, 1), size=len(images))
    images, donors = move_content(images), move_content(donors)
    doses = dict.fromkeys(CUES, 1.0)
    full = CueRemoval(donors=donors, orders=orders, turns=turns, doses=doses, spared_fraction=spared_fraction)
    pixels = images.astype(np.float32)
    change = {cue: float(np.sqrt(np.mean((_remove_one(pixels, cue, full) - pixels) ** 2))) for cue in CUES}
    present = {cue: rms for cue, rms in change.items() if rms >= SMALLEST_CHANGE}
    target = min(present.values(), default=0.0)
    doses = {cue: target / present[cue] if cue in present else 1.0 for cue in CUES}
    return replace(full, doses=doses, absent=tuple(cue for cue in CUES if cue not in present))


def remove_cues(images: Images, cues: frozenset[str], removal: CueRemoval) -> Images:
    """Return the images without some cues, which are removed in a fixed order: context, color, texture, shape.

    Args:
        images: (n, H, W, 3) uint8.
        cues: names in `CUES`.
        removal: prepared for these images.
    """
    pixels = move_content(images).astype(np.float32)
    for cue in REMOVAL_ORDER:
        if cue in cues:
            pixels = _remove_dose(pixels, cue, removal)
    return lay_content(_round(pixels), images)


def remove_every_set(images: Images, removal: CueRemoval) -> Iterator[tuple[frozenset[str], Images]]:
    """Yield each set of cues and the images without it, as `remove_cues`; sets share the removals that they begin with.

    Args:
        images: (n, H, W, 3) uint8.
        removal: prepared for these images.
    """

    def remove(pixels: Pixels, removed: frozenset[str], left: Sequence[str]) -> Iterator[tuple[frozenset[str], Images]]:
        if not left:
            yield removed, lay_content(_round(pixels), images)
            return
        yield from remove(pixels, removed, left[1:])
        yield from remove(_remove_dose(pixels, left[0], removal), removed | {left[0]}, left[1:])

    return remove(move_content(images).astype(np.float32), frozenset(), REMOVAL_ORDER)


def _remove_dose(pixels: Pixels, cue: str, removal: CueRemoval) -> Pixels:
    return pixels + removal.doses[cue] * (_remove_one(pixels, cue, removal) - pixels)


def _round(pixels: Pixels) -> Images:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _remove_one(pixels: Pixels, cue: str, removal: CueRemoval) -> Pixels:
    height, width = pixels.shape[1:3]
    if cue == "texture":
        return _smooth(pixels, SMOOTHED_FRACTION * min(height, width))
    if cue == "color":
        return _turn_hue(pixels, removal.turns)
    if cue == "context":
        ring = make_ring(height, width, RING_FRACTIONS[0])
        return np.where(ring[None, :, :, None], removal.donors.astype(np.float32), pixels)
    smooth = _filter(pixels, removal.spared_fraction * min(height, width))
    return smooth + _shuffle_patches(pixels - smooth, removal.orders)


def _smooth(pixels: Pixels, sigma: float) -> Pixels:
    """Return the pixels smoothed by a bilateral filter (Tomasi and Manduchi 1998), which keeps the edges of the shape."""
    window = min(2 * round(1.5 * sigma) + 1, WIDEST_WINDOW)
    images = np.ascontiguousarray(pixels)
    return np.stack([cv2.bilateralFilter(image, window, SMOOTHED_LEVELS, sigma) for image in images])


def _filter(pixels: Pixels, sigma: float) -> Pixels:
    """Return the pixels after a Gaussian filter."""
    images = np.ascontiguousarray(pixels)
    return np.stack([cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for image in images])


def _turn_hue(pixels: Pixels, turns: IntArray) -> Pixels:
    """Return the pixels with rotated chroma and unchanged luma; gray images would lose the edges that only color shows."""
    luma, blue, red = np.moveaxis(pixels @ YCBCR.T, -1, 0)
    cosine, sine = np.float32(np.cos(HUE_TURN)), np.float32(np.sin(HUE_TURN)) * turns[:, None, None].astype(np.float32)
    return np.stack([luma, cosine * blue - sine * red, sine * blue + cosine * red], axis=-1) @ RGB.T


def _shuffle_patches(pixels: Pixels, orders: IntArray) -> Pixels:
    """Return the pixels with the PATCHES x PATCHES patches inside the ring permuted.

    The ring (the context) is unchanged, and so are the pixels left over by the division into patches.
    """
    n, height, width = pixels.shape[:3]
    rows, columns = np.nonzero(~make_ring(height, width, RING_FRACTIONS[0]))
    top, left = rows.min(), columns.min()
    h, w = (rows.max() + 1 - top) // PATCHES, (columns.max() + 1 - left) // PATCHES
    place = (slice(None), slice(top, top + h * PATCHES), slice(left, left + w * PATCHES))
    inside = pixels[place]
    patches = inside.reshape(n, PATCHES, h, PATCHES, w, 3).transpose(0, 1, 3, 2, 4, 5).reshape(n, PATCHES**2, h, w, 3)
    moved = np.take_along_axis(patches, orders[:, :, None, None, None], axis=1)
    shuffled = pixels.copy()
    shuffled[place] = moved.reshape(n, PATCHES, PATCHES, h, w, 3).transpose(0, 1, 3, 2, 4, 5).reshape(inside.shape)
    return shuffled


def describe_small_images(height: int, width: int) -> str:
    """Return why cues cannot be removed from images of this size in pixels."""
    return f"cues are removed from images of {MIN_SIDE} pixels a side at least, but these have {height} x {width}"
