"""The outer ring of an image: the border region that the ring audit and `ring_swap_probability` swap between images."""

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError

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
