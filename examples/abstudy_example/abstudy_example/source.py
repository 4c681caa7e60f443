"""The handwritten digits of scikit-learn as a source of images: some of the ten classes."""

from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_digits

from search_spaces.errors import UserInputError
from trainables.data.images import ImageSet

HIGHEST_LEVEL = 16


def load(*, seed: int, num_images: int | None = None, digits: Sequence[int] = tuple(range(10))) -> ImageSet:
    """Return 8x8 images, gray levels 0 to 16 scaled to 0 to 255 in three equal channels.

    Args:
        seed: Of the study; it draws the images to keep.
        num_images: `data.num_images` of the spec; None for all.
        digits: An option of the spec: those that are the classes.

    Raises:
        UserInputError: If there are fewer than two digits, or fewer images than `num_images`.
    """
    chosen = sorted(set(digits) & set(range(10)))
    if len(chosen) < 2 or len(chosen) < len(digits):
        raise UserInputError(f"data.options.digits must be two or more different digits, but got {list(digits)}")
    bunch = load_digits()
    kept = np.flatnonzero(np.isin(bunch.target, chosen))
    if num_images is not None:
        if num_images > len(kept):
            raise UserInputError(f"data.num_images must be at most {len(kept)}, but got {num_images}")
        kept = np.sort(np.random.default_rng(seed).choice(kept, num_images, replace=False))
    gray = np.rint(bunch.images[kept] * (255 / HIGHEST_LEVEL)).astype(np.uint8)
    return ImageSet(
        images=np.repeat(gray[..., None], 3, axis=3),
        labels=np.searchsorted(chosen, bunch.target[kept]),
        class_names=tuple(f"digit {digit}" for digit in chosen),
    )
