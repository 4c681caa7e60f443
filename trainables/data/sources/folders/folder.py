"""A user's images: class folders, train/ val/ test/, a manifest, or a Hugging Face imagefolder (`find_layout`)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import Field

from search_spaces.errors import UserInputError
from trainables.data.decoding.decode_set import DecodeRequest
from trainables.data.decoding.decoded_images import decode_files
from trainables.data.decoding.encoded_files import DiskImages
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import Aspect, ImageSet
from trainables.data.problems import DataProblemsError, Problem, make_error, make_printable
from trainables.data.sources.descriptions import resolve_groups
from trainables.data.sources.folders.layouts import Layout, find_layout, list_scarce_classes
from trainables.data.sources.folders.masks import add_masks

Result = TypeVar("Result")


def load_folder(
    path: str | None,
    *,
    seed: int = 0,
    num_images: Annotated[int, Field(ge=1)] | None = None,
    native_size: Annotated[int, Field(ge=8, le=1024)] | None = None,
    image_size: Annotated[int, Field(ge=8)] | None = None,
    aspect: Aspect = "crop",
    on_bad_image: Literal["refuse", "skip"] = "refuse",
    class_groups: Mapping[str, Sequence[str]] | None = None,
    group: str | None = None,
    memory_budget: ImageMemoryBudget,
) -> ImageSet:
    """Return the images that `find_layout` finds at `path`, in its order, with their masks if all have one.

    Args:
        path: The folder, or a manifest.
        seed: Seed of the subset.
        num_images: Keep this many images outside the test set, stratified; only these are decoded and checked.
        native_size: Side in pixels at which images are stored; see `decode_files`.
        image_size: Side in pixels of the images that models are trained on; set as train.image_size in a spec.
        aspect: How images become squares; set as data.aspect in a spec.
        on_bad_image: Whether images that cannot be used are skipped; set as data.on_bad_image in a spec.
        class_groups: Named groups of classes, such as {rigid = ["ship"], deformable = ["cat", "dog"]}.
        group: What the folders between a class and its images are, such as "patient": images of one such folder belong together,
            also with those of a folder of the same name in another class. In a manifest, the column of groups. Set as data.group
            in a spec.
        memory_budget: Memory that the decoded images may take; not an option of a spec.

    Raises:
        UserInputError: If nothing is at `path`; listing everything that is wrong with the folder, its images and its classes.
    """
    if not path:
        raise UserInputError(
            'the source "folder" needs data.path, a folder with one folder of images per class, or a manifest'
        )
    layout = find_layout(path, group=group)
    found = layout.label_files()
    checks = _Checks(layout)
    checks.run(lambda: resolve_groups(class_groups, layout.class_names))
    subset = checks.run(lambda: found.choose(num_images, seed))
    chosen = np.arange(len(layout.files)) if subset is None else subset
    request = DecodeRequest(native_size, image_size, aspect, on_bad_image)
    decoded = checks.run(lambda: decode_files(DiskImages([layout.files[i] for i in chosen]), request, memory_budget))
    checks.finish()
    assert decoded is not None
    origin = dataclasses.replace(decoded.origin, skipped=(*layout.skipped, *decoded.origin.skipped))
    image_set = found.make_image_set("folder", dataclasses.replace(decoded, origin=origin), chosen, class_groups)
    return add_masks(image_set, [layout.files[i] for i in chosen[decoded.kept]], request, memory_budget)


class _Checks:
    """The problems of a layout, and those of the steps that follow, so that one error lists all of them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._problems = list(layout.found_problems)

    def run(self, step: Callable[[], Result]) -> Result | None:
        """Return the result of a step; None, if it refuses or there is nothing to do."""
        if not self._layout.files:
            return None
        try:
            return step()
        except DataProblemsError as error:
            self._problems += error.problems
        except UserInputError as error:
            rule, _, advice = str(error).partition("; ")
            self._problems.append(Problem(rule, (), advice))
        return None

    def finish(self) -> None:
        """Raise one error if there is any problem; it also lists the classes with too few images."""
        if self._problems:
            problems = [*self._problems, *list_scarce_classes(self._layout)]
            raise make_error(make_printable(str(self._layout.root)), problems)
