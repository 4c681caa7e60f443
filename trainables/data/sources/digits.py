"""The 1,797 handwritten digits of scikit-learn: 8x8 grayscale, ten classes, without a download."""

from typing import Annotated

import numpy as np
from pydantic import Field
from sklearn.datasets import load_digits as load_sklearn_digits

from trainables.data.images import ImageSet
from trainables.data.sources.descriptions import load_descriptions
from trainables.data.sources.subset import choose_subset

HIGHEST_LEVEL = 16


def load_digits(*, seed: int = 0, num_images: Annotated[int, Field(ge=1)] | None = None) -> ImageSet:
    """Return the digits: gray levels 0..16 scaled to 0..255 and replicated into three equal channels.

    Args:
        seed: Seed of the subset.
        num_images: Keep this many of the 1,797 images, stratified.

    Raises:
        UserInputError: If `num_images` is out of range.
    """
    bunch = load_sklearn_digits()
    labels = np.asarray(bunch.target, dtype=np.int64)
    kept = choose_subset(labels, None, num_images, seed)
    gray = np.rint(bunch.images[kept] * (255 / HIGHEST_LEVEL)).astype(np.uint8)
    description = load_descriptions()["digits"]
    return ImageSet(
        images=np.repeat(gray[..., None], 3, axis=3),
        labels=labels[kept],
        class_names=description.class_names,
        source="digits",
        class_groups=description.groups,
    )
