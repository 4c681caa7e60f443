"""A user's images: class folders, train/ val/ test/, a manifest, or a Hugging Face imagefolder (`find_layout`)."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from search_spaces.errors import UserInputError
from trainables.data.images import ImageSet
from trainables.data.problems import DataProblemsError, Problem, make_error, make_printable
from trainables.data.sources.folders.layouts import Layout, find_layout, list_scarce_classes
from trainables.data.sources.folders.masks import add_masks
from trainables.data.sources.labeled_files import FileSource, resolve_groups

Result = TypeVar("Result")


class FolderSource(FileSource):
    """The images that `find_layout` finds at a path, in its order, with their masks if all have one.

    The path is a folder or a manifest. The group is what the folders between a class and its images are, such as "patient":
    images of one such folder belong together, also with those of a folder of the same name in another class. In a manifest, it
    is the column of groups.

    Raises:
        UserInputError: If nothing is at the path; listing everything that is wrong with the folder, its images and its
            classes.
    """

    name = "folder"

    def load(self) -> ImageSet:
        """Return the images."""
        if not self.path:
            raise UserInputError(
                'the source "folder" needs data.path, a folder with one folder of images per class, or a manifest'
            )
        layout = find_layout(self.path, group=self.group)
        found = layout.label_files()
        checks = _Checks(layout)
        checks.run(lambda: resolve_groups(self.class_groups, layout.class_names))
        subset = checks.run(lambda: self.choose(found))
        chosen = np.arange(len(layout.files)) if subset is None else subset
        decoded = checks.run(lambda: self.decode(found.encode(chosen)))
        checks.finish()
        assert decoded is not None
        origin = replace(decoded.origin, skipped=(*layout.skipped, *decoded.origin.skipped))
        image_set = self.make_image_set(found, chosen, replace(decoded, origin=origin))
        files = [layout.files[i] for i in chosen[decoded.kept]]
        return add_masks(image_set, files, self.request, self.memory_budget)


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
