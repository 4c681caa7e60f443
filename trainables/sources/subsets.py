"""Stratified, seeded subsets of what is not the test set."""

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError
from trainables.seeds import numpy_generator


def choose_subset(labels: NDArray[np.int64], num_images: int | None, seed: int) -> NDArray[np.int64]:
    """Return sorted indices of `num_images` images with the classes in their proportions; all where it is None.

    The largest remainders get the images that rounding leaves over. Raises UserInputError if there are fewer images.
    """
    if num_images is None:
        return np.arange(len(labels), dtype=np.int64)
    if num_images > len(labels):
        raise UserInputError(
            f"data.num_images must be at most {len(labels)}, the images there are, but got {num_images}"
        )
    generator = numpy_generator(seed, "subset")
    counts = np.bincount(labels)
    exact = counts * num_images / len(labels)
    quota = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - quota), kind="stable")
    quota[order[: num_images - quota.sum()]] += 1
    chosen = [generator.permutation(np.flatnonzero(labels == c))[: quota[c]] for c in range(len(counts)) if quota[c]]
    return np.sort(np.concatenate(chosen)).astype(np.int64)
