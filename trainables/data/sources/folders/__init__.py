"""A user's images: class folders, train/ val/ test/, a manifest, or a Hugging Face imagefolder (`find_layout`)."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from search_spaces.errors import UserInputError
from trainables.data.images import ImageSet
from trainables.data.problems import DataProblemsError, Problem, make_error, make_printable
from trainables.data.sources.folders.layouts import find_layout, list_scarce_classes
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
        problems = list(layout.found_problems)

        def check(step: Callable[[], Result]) -> Result | None:
            """Return the result of a step; None, if there are no images or it refuses, which is one more problem."""
            try:
                return step() if layout.files else None
            except DataProblemsError as error:
                problems.extend(error.problems)
            except UserInputError as error:
                rule, _, advice = str(error).partition("; ")
                problems.append(Problem(rule, (), advice))
            return None

        check(lambda: resolve_groups(self.class_groups, layout.class_names))
        subset = check(lambda: self.choose(found))
        chosen = np.arange(len(layout.files)) if subset is None else subset
        decoded = check(lambda: self.decode(found.encode(chosen)))
        if problems:
            raise make_error(make_printable(str(layout.root)), [*problems, *list_scarce_classes(layout)])
        assert decoded is not None
        origin = replace(decoded.origin, skipped=(*layout.skipped, *decoded.origin.skipped))
        image_set = self.make_image_set(found, chosen, replace(decoded, origin=origin))
        files = [layout.files[i] for i in chosen[decoded.kept]]
        return add_masks(image_set, files, self.request, self.memory_budget)
