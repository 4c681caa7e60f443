"""Subsets of image sets."""

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError
from trainables.data.stratified import choose_stratified
from trainables.seeds import numpy_generator


def choose_subset(
    labels: NDArray[np.int64],
    official_test: NDArray[np.bool_] | None,
    num_images: int | None,
    seed: int,
    official_validation: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return the sorted indices of the images to keep: all official test images, and `num_images` of the others.

    The others keep the shares of their classes, and of the official validation images within each class.

    Args:
        labels: (N,) int64 >= 0.
        official_test: (N,) bool, or None.
        num_images: Number of images to keep outside the official test set, stratified; None keeps all.
        seed: Seed of the draw.
        official_validation: (N,) bool, or None.

    Raises:
        UserInputError: If there are fewer than `num_images`, or `num_images` is less than the number of classes.
    """
    n = len(labels)
    if num_images is None:
        return np.arange(n, dtype=np.int64)
    is_test = np.zeros(n, dtype=bool) if official_test is None else official_test
    others = np.flatnonzero(~is_test)
    if num_images > len(others):
        raise UserInputError(
            f"data.num_images <= {len(others)} must hold (the number of images outside the test set), but got {num_images}"
        )
    num_classes = len(np.unique(labels[others]))
    if num_images < num_classes:
        raise UserInputError(
            f"data.num_images must be at least the number of classes ({num_classes}), but got {num_images}"
        )
    strata = labels if official_validation is None else 2 * labels + official_validation
    kept = others[choose_stratified(strata[others], num_images, numpy_generator(seed, "subset"))]
    return np.sort(np.concatenate([kept, np.flatnonzero(is_test)])).astype(np.int64)
