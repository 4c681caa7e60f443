"""The training images of a configuration: those of the split, without those that it leaves out."""

import numpy as np
from numpy.typing import NDArray

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, list_some

MOST_NAMED = 5


def choose_training_images(config: TrialConfig, train: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the training split without the images of `leave_out`.

    Args:
        config: of the trial; reads `leave_out`, sample ids with spaces between them.
        train: (N,) sample ids of the training split.

    Raises:
        UserInputError: if an image that is to be left out is not in the split, or fewer than two are left.
    """
    left_out = np.array(config.word("leave_out").split(), dtype=np.int64)
    unknown = np.setdiff1d(left_out, train)
    if len(unknown):
        raise UserInputError(
            f"train.leave_out must name images of the training split, but {len(unknown)} of its {len(left_out)} are not in it "
            f"({list_some(unknown, MOST_NAMED)})"
        )
    kept = train[~np.isin(train, left_out)]
    if len(kept) < 2:
        without = f", {len(left_out)} of which train.leave_out leaves out" if len(left_out) else ""
        raise UserInputError(f"training needs at least 2 images, but the training split has {len(train)}{without}")
    return kept
