"""A user's images: class folders, train/ val/ test/, a manifest, or a Hugging Face imagefolder (`find_layout`)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from search_spaces.errors import UserInputError
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import ImageSet
from trainables.data.sources.decoding import EncodedImage, decode_images
from trainables.data.sources.descriptions import resolve_groups
from trainables.data.sources.layouts import ImageFile, find_layout, make_layout_error
from trainables.data.sources.subset import choose_subset

MAX_FILE_BYTES = 500_000_000


def load_folder(
    path: str | None,
    *,
    seed: int = 0,
    num_images: Annotated[int, Field(ge=1)] | None = None,
    native_size: Annotated[int, Field(ge=8, le=1024)] | None = None,
    class_groups: Mapping[str, Sequence[str]] | None = None,
    group: str | None = None,
    memory_budget: ImageMemoryBudget,
) -> ImageSet:
    """Return the images that `find_layout` finds at `path`. A grayscale set is replicated into three equal channels.

    Args:
        path: The folder, or a manifest.
        seed: Seed of the subset.
        num_images: Keep this many images outside the test set, stratified; only these are decoded and checked.
        native_size: Resize all images to this side in pixels (bicubic, without preserving the aspect ratio); without it
            all images must have the same size.
        class_groups: Named groups of classes, such as {rigid = ["ship"], deformable = ["cat", "dog"]}.
        group: What the folders between a class and its images are, such as "patient": images of one such folder belong together,
            also with those of a folder of the same name in another class. In a manifest, the column of groups. Set as data.group
            in a spec.
        memory_budget: Memory that the decoded images may take; not an option of a spec.

    Raises:
        UserInputError: Listing everything that is wrong with the folder, or naming the file that cannot be used.
    """
    if not path:
        raise UserInputError(
            'the source "folder" needs data.path, a folder with one folder of images per class, or a manifest'
        )
    layout = find_layout(path, group=group)
    error = make_layout_error(layout)
    if error is not None:
        raise error
    files = layout.files
    numbers = {name: number for number, name in enumerate(layout.class_names)}
    labels = np.array([numbers[file.class_name] for file in files], dtype=np.int64)
    official_test, official_validation = _mark(files, "test"), _mark(files, "validation")
    kept = choose_subset(labels, official_test, num_images, seed, official_validation)
    group_names, groups = np.unique([file.group or "" for file in files], return_inverse=True)
    has_groups = files[0].group is not None
    return ImageSet(
        images=decode_images(_read_files([files[i] for i in kept]), len(kept), native_size, memory_budget),
        labels=labels[kept],
        class_names=layout.class_names,
        source="folder",
        official_test=None if official_test is None else official_test[kept],
        official_validation=None if official_validation is None else official_validation[kept],
        class_groups=resolve_groups(class_groups, layout.class_names),
        groups=groups[kept] if has_groups else None,
        group_names=tuple(map(str, group_names)) if has_groups else (),
    )


def _mark(files: Sequence[ImageFile], split: str) -> NDArray[np.bool_] | None:
    """Return which images are of a published split; None if none is."""
    marks = np.array([file.split == split for file in files], dtype=bool)
    return marks if marks.any() else None


def _read_files(files: Sequence[ImageFile]) -> Iterator[EncodedImage]:
    for file in files:
        try:
            if file.path.stat().st_size > MAX_FILE_BYTES:
                raise UserInputError(f"{file.name} is larger than {MAX_FILE_BYTES / 1e6:.0f} MB; replace or remove it")
            data = file.path.read_bytes()
        except OSError as error:
            raise UserInputError(f"{file.name} cannot be read ({error.strerror}); check its permissions") from None
        yield EncodedImage(file.name, data)
