"""Custom sources: functions of installed packages or of the working folder that return an `ImageSet`."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from search_spaces.errors import UserInputError, nearest_name
from search_spaces.extensions import locating
from trainables.data.images import ImageSet
from trainables.data.pixel_files import find_pixel_file
from trainables.data.problems import make_printable
from trainables.data.sources import DECODING, MEMORY_BUDGET

# What every study has, and a function need not take.
OFFERED = ("path", "seed", *DECODING, MEMORY_BUDGET)


def load_own(source: str, loader: Callable[..., Any], given: Mapping[str, Any]) -> ImageSet:
    """Return the images of a custom source.

    Its function returns an `ImageSet` and is called with keyword arguments: those of `OFFERED` that its signature names, all
    options, and `data.num_images` and `data.group` if the spec has them. Integer labels of any width and lists of class names are
    accepted; the name of the source is that of the spec. The same arguments must give the same images, because a resumed study
    and, with a `memory_budget`, other nodes load them again.

    Example:
        A source that a spec names with ``source = "mylab.data:load"`` and ``options = { year = 2024 }``::

            def load(path: str | None, *, seed: int, year: int) -> ImageSet:
                pixels, labels = read_archive(path, year)  # (N, H, W, 3) uint8 RGB and (N,) integers from 0
                return ImageSet(images=pixels, labels=labels, class_names=("benign", "malignant"))

    Args:
        source: Name of an entry point of the group `abstudy.sources`, or "package.module:function".
        loader: Its function.
        given: Values of `OFFERED`, and options.

    Raises:
        UserInputError: If the function lacks an argument or takes none of that name, fails, or returns anything but a valid
            `ImageSet`.
    """
    parameters = inspect.signature(loader).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    arguments = {name: value for name, value in given.items() if name in parameters or name not in OFFERED}
    names = [name for name, p in parameters.items() if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    options = [name for name in names if name not in OFFERED]
    problems = [
        f"has no option {name!r}{nearest_name(name, options) if options else ', and takes none'}"
        for name in arguments
        if name not in names and not takes_any
    ]
    problems += [
        f"needs {name!r}, which data.options lacks"
        for name, p in parameters.items()
        if p.default is p.empty and p.kind not in {p.VAR_KEYWORD, p.VAR_POSITIONAL} and name not in arguments
    ]
    if problems:
        raise UserInputError(f"the source {source!r} {'; it '.join(problems)}")
    try:
        with locating(f"the source {source!r}"):
            found = loader(**arguments)
    except UserInputError as error:
        prefix = f"the source {source!r}"
        raise UserInputError(str(error) if str(error).startswith(prefix) else f"{prefix}: {error}") from None
    if not isinstance(found, ImageSet):
        raise UserInputError(
            f"the source {source!r} must return a trainables.data.images.ImageSet, but returned {type(found).__name__}"
        )
    return _finish(found, source)


def _finish(found: ImageSet, source: str) -> ImageSet:
    """Return the image set in the types of its attributes, under the name of the spec."""
    images = found.images
    # Other nodes map a file of pixels by its name; any other mapped file is sent as it is in memory.
    if find_pixel_file(images) is None:
        images = np.ascontiguousarray(images)
    labels = np.asarray(found.labels, dtype=np.int64)
    return replace(
        found, images=images, labels=labels, class_names=tuple(map(make_printable, found.class_names)), source=source
    )
