"""Human labels of the test images, such as CIFAR-10H: how often people chose each class for each image."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.confusions.rates import compute_human_shares
from search_spaces.errors import UserInputError, first_line
from trainables.data.images import ImageSet


def load_human_shares(path: str, image_set: ImageSet) -> NDArray[np.float64]:
    """Return the shares of human labels for every image.

    Args:
        path: .npy file of counts, shape (T, K): a row for each image of the published test set in its order, or for every image
            if the source has no test set.
        image_set: N images of K classes.

    Returns:
        Shares by sample id, shape (N, K), float64; NaN for images outside the test set.

    Raises:
        UserInputError: if the counts do not fit the images.
    """
    file = Path(path).expanduser()
    counts = read_counts(file)
    official = image_set.official_test
    rows = np.arange(len(image_set)) if official is None else np.flatnonzero(official)
    try:
        shares = compute_human_shares(counts, len(rows), image_set.class_names)
    except UserInputError as error:
        raise UserInputError(f"{file}: {error}") from None
    every = np.full((len(image_set), image_set.num_classes), np.nan)
    every[rows] = shares
    return every


def read_counts(file: Path) -> NDArray[np.generic]:
    """Return the array of an .npy file; raise UserInputError if the file does not exist or holds no numbers."""
    try:
        with file.open("rb") as opened:  # which NumPy would leave open where it fails
            counts = np.load(opened, allow_pickle=False)
    except FileNotFoundError:
        raise UserInputError(f"human counts: there is no file {file}") from None
    except Exception as error:  # NumPy and zipfile raise almost any class here
        raise UserInputError(f"human counts: {file} is not an .npy file of numbers: {first_line(error)}") from None
    if not isinstance(counts, np.ndarray) or counts.dtype.kind not in "iuf":
        raise UserInputError(f"human counts: {file} is not an .npy file of numbers")
    return counts
