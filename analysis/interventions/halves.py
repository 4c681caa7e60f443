"""The two halves of the test images: one chooses the targets and the predictions of interventions, the other judges them."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.metrics import IntArray

# A half with fewer images of the target's classes cannot judge; all images do then, and the target counts as seen.
MIN_TARGET_IMAGES = 100


def find_choosing(sample_ids: IntArray, groups: IntArray | None, seed: int) -> NDArray[np.bool_]:
    """Return (N,) True for the images that choose; the others judge.

    The half of an image depends on the seed and on its sample id alone, or on its group, so that images that belong together stay
    together.

    Args:
        sample_ids: (N,) of the test images.
        groups: (N,) number of the group of each image; None where images are independent.
        seed: of the study.
    """
    units = sample_ids if groups is None else groups
    found, inverse = np.unique(units, return_inverse=True)
    is_choosing = [hashlib.sha256(f"{seed}/half/{unit}".encode()).digest()[0] % 2 == 0 for unit in found.tolist()]
    return np.asarray(is_choosing, dtype=bool)[inverse]
