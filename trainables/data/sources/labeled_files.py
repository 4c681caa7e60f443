"""Labeled images as a source finds them, before they are decoded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.data.decoding.decoded_images import Decoded
from trainables.data.images import ImageSet
from trainables.data.problems import make_printable
from trainables.data.sources.descriptions import resolve_groups
from trainables.data.sources.subset import choose_subset

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabeledFiles:
    """N labeled images, without their pixels.

    Attributes:
        labels: (N,) int64 in [0, K).
        class_names: K names, which become printable.
        parts: (N,) position of each image's published split in `PARTS`.
        groups: N names of the groups that images belong to; None where images are independent.
    """

    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    parts: NDArray[np.int64]
    groups: Sequence[str] | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(map(make_printable, self.class_names)))

    def mark(self, split: str) -> NDArray[np.bool_] | None:
        """Return (N,) which images are of a published split; None if no image is."""
        marks: NDArray[np.bool_] = self.parts == PARTS.index(split)
        return marks if marks.any() else None

    def choose(self, num_images: int | None, seed: int) -> NDArray[np.int64]:
        """Return the sorted positions of a stratified part; see `choose_subset` for arguments and errors."""
        return choose_subset(self.labels, self.mark("test"), num_images, seed, self.mark("validation"))

    def make_image_set(
        self, source: str, decoded: Decoded, chosen: NDArray[np.int64], class_groups: Mapping[str, Sequence[str]] | None
    ) -> ImageSet:
        """Return the image set of the images that were chosen and could be decoded.

        Args:
            source: Name of the source.
            decoded: Of the chosen images.
            chosen: (M,) int64 from `choose`.
            class_groups: Named groups of classes; None for those of the described data set with the same classes.
        """
        kept = chosen[decoded.kept]
        test, validation = self.mark("test"), self.mark("validation")
        group_names, numbers = np.unique(np.array(self.groups or (), dtype=str), return_inverse=True)
        return ImageSet(
            images=decoded.images,
            labels=self.labels[kept],
            class_names=self.class_names,
            source=source,
            official_test=None if test is None else test[kept],
            official_validation=None if validation is None else validation[kept],
            class_groups=resolve_groups(class_groups, self.class_names),
            groups=None if self.groups is None else numbers[kept],
            group_names=tuple(make_printable(str(name)) for name in group_names),
            origin=decoded.origin,
        )
