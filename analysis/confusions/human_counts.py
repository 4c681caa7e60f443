"""Human counts: how many annotators chose each class for each image, and the shares that follow."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError


def compute_human_shares(
    counts: NDArray[np.generic], num_images: int, class_names: Sequence[str]
) -> NDArray[np.float64]:
    """Return the share of annotators who chose each class.

    Args:
        counts: (N, K) numbers of annotators who chose each class for each image.
        num_images: N.
        class_names: K names.

    Returns:
        (N, K) float64; each row sums to 1.

    Raises:
        UserInputError: if the counts do not fit the images, are negative or not finite, or an image has none.
    """
    expected = (num_images, len(class_names))
    if counts.shape != expected:
        raise UserInputError(
            f"human counts must be (images, classes) = {expected}, a row for each image of the test set, but are {counts.shape}"
        )
    numbers = np.asarray(counts, dtype=np.float64)
    if not np.isfinite(numbers).all() or (numbers < 0).any():
        raise UserInputError("human counts must be finite and not negative")
    empty = np.flatnonzero(numbers.sum(axis=1) == 0)
    if len(empty):
        raise UserInputError(f"every image needs a human label, but image {empty[0]} of the test set has none")
    return np.asarray(numbers / numbers.sum(axis=1, keepdims=True))
