"""`TrialData`: the images and splits that all trials of a study share, and the training images of a configuration."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, list_some
from trainables.data.decoding.streamed_images import StreamedImages
from trainables.data.image_array import ImageArray
from trainables.data.image_memory import ImageMemoryBudget, MappedImages
from trainables.data.splits import SPLIT_NAMES, Splits
from trainables.data.stratified import cut_folds


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialData:
    """The images and splits of a study's trials. Pickles memory-mapped images as the name of their file.

    Attributes:
        images: (N, H, W, 3) uint8; may be read-only, memory-mapped or streamed. They are not copied on the CPU.
        labels: (N,) int64 in [0, K).
        splits: Indices of the four splits.
        class_names: K names.
        class_groups: Named groups of class names.
        groups: (N,) int64, number of the group of each image; None where images are independent.
        reload: Loads the images from their source within a memory budget; called on a node without the mapped file or the
            encoded images.
    """

    images: ImageArray
    labels: NDArray[np.int64]
    splits: Splits
    class_names: tuple[str, ...]
    class_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: NDArray[np.int64] | None = None
    reload: Callable[[ImageMemoryBudget], object] | None = None

    def of_trial(self, config: TrialConfig) -> "TrialData":
        """Return the data of a trial: with its fold as the test split, and all other images of the splits as the training split.

        The search and the confirm split stay as they are, and such a trial trains on their images too: its scores there say
        nothing about images that it has not seen. Without a fold, the data are the same for all trials.
        """
        if not config.fold:
            return self
        place, number = map(int, config.fold.split("/"))
        splits, test = self.splits, self.splits.test
        groups = None if self.groups is None else self.groups[test]
        held_out = test[cut_folds(self.labels[test], groups, number, config.seed) == place]
        used = np.concatenate([getattr(splits, name) for name in SPLIT_NAMES])
        return replace(self, splits=replace(splits, train=np.setdiff1d(used, held_out), test=held_out))

    def __reduce__(self) -> tuple[Callable[..., "TrialData"], tuple[object, ...]]:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        if isinstance(self.images, np.memmap):
            values["images"] = MappedImages(Path(str(self.images.filename)), self.images.shape, self.reload)
        elif isinstance(self.images, StreamedImages):
            values["images"] = replace(self.images, reload=self.reload, _workers=None)
        return _unpack_data, (values,)


def _unpack_data(values: dict[str, Any]) -> TrialData:
    images = values["images"]
    return TrialData(**{**values, "images": images.open() if isinstance(images, MappedImages) else images})


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
