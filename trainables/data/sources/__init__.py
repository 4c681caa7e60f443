"""Image sources by name: each shipped one is a class whose fields are its options, a custom one is a function (`load_own`)."""

import inspect
import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from search_spaces.errors import UserInputError, check_choice, nearest_name
from search_spaces.extensions import is_location, list_entry_points, load_function, locating
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import ImageSet
from trainables.data.pixel_files import find_pixel_file
from trainables.data.problems import make_printable

if TYPE_CHECKING:
    from trainables.data.sources.labeled_files import ImageSource

# The class of each source, imported when it is needed: a spec is checked with the names alone.
SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "cifar10": "trainables.data.sources.published:Cifar10Source",
        "fashion_mnist": "trainables.data.sources.published:FashionMnistSource",
        "digits": "trainables.data.sources.published:DigitsSource",
        "planted": "trainables.data.sources.planted_scenes:PlantedSource",
        "folder": "trainables.data.sources.folders:FolderSource",
        "parquet": "trainables.data.sources.parquet:ParquetSource",
        "webdataset": "trainables.data.sources.webdataset:TarSource",
    }
)

ENTRY_POINTS = "abstudy.sources"

# The argument for the memory budget of a source, which is not an option of a spec.
MEMORY_BUDGET = "memory_budget"
# Arguments of the sources that decode files, which a spec sets as train.image_size, data.aspect and data.on_bad_image.
DECODING = ("image_size", "aspect", "on_bad_image")
# What every study has, and a custom function need not take.
OFFERED = ("path", "seed", *DECODING, MEMORY_BUDGET)


def check_source(source: str) -> None:
    """Raise UserInputError, with the nearest name, unless `source` is a name that a source can have; nothing is imported."""
    known = [*SOURCES, *list_entry_points(ENTRY_POINTS)]
    if source not in known and not is_location(source):
        near = nearest_name(source, known)
        own = "" if "did you mean" in near else "; one of your own is package.module:function"
        raise UserInputError(f"there is no source {source!r}{near}{own}")


def decoding_names(source: str) -> tuple[str, ...]:
    """Return those of `DECODING` that the source takes: all or none of `SOURCES`, those that a custom one names."""
    taken = tuple(name for name in DECODING if name in _list_arguments(source))
    return taken if source not in SOURCES or taken == DECODING else ()


def load_image_set(
    source: str,
    path: str | os.PathLike[str] | None = None,
    *,
    memory_budget: ImageMemoryBudget | None = None,
    **options: Any,
) -> ImageSet:
    """Return the images of a source.

    Args:
        source: Key of `SOURCES`, name of an entry point of the group `abstudy.sources`, or "package.module:function" in
            the working folder, if it is trusted.
        path: Location of the files; "" is the same as None. Sources that generate their images take none. Files at a URI, such as
            s3://bucket/photos, are copied to the folder of `memory_budget` first.
        memory_budget: Memory that images of a folder or of parquet files may take before they are mapped from a file;
            None for a quarter of the machine's memory and the user's cache folder.
        options: Fields of the source's class, or arguments of a custom function. Every source of `SOURCES` has `num_images` (size
            of a stratified part of the images outside the test set, or the number of planted scenes) and `seed` (of that draw, or
            of the scenes).

    Raises:
        UserInputError: For an unknown source or option, a value of the wrong type or out of range, a path for a source that
            reads none, or files that cannot be used.
    """
    check_source(source)
    names = _list_arguments(source)
    arguments = dict(options)
    if "path" in names:
        arguments["path"] = os.fspath(path) if path else None
    elif path:
        raise UserInputError(
            f'the source {source!r} reads no files, but data.path is {os.fspath(path)!r}; remove it, or set it to ""'
        )
    if MEMORY_BUDGET in names:
        budget = memory_budget or ImageMemoryBudget()
        arguments[MEMORY_BUDGET] = budget
        if source in SOURCES and "://" in (arguments.get("path") or ""):
            from trainables.data.sources.fetched_files import fetch_files, fetch_source

            # Only of a folder's files a table may stand for images beside it.
            fetch = fetch_source if source == "folder" else fetch_files
            arguments["path"] = str(fetch(arguments["path"], budget.folder))
    if source not in SOURCES:
        return load_own(source, _load(source), arguments)
    known = [name for name in names if name not in {"path", MEMORY_BUDGET}]
    for name in options:
        check_choice(f"the source {source!r} has no option", name, known)
    try:
        found: ImageSource = _load(source)(**arguments)
    except ValidationError as error:
        # If a number or a table is accepted, the problem inside the table is the informative one.
        problem = max(error.errors(), key=lambda p: len(p["loc"]))
        raise UserInputError(
            f"the source {source!r}, option {problem['loc'][0]}: {problem['msg']}, but got {problem['input']!r}"
        ) from None
    return found.load()


def _list_arguments(source: str) -> tuple[str, ...]:
    """Return the fields of the class of a shipped source, or the names of the arguments of a custom function."""
    found = _load(source)
    if source in SOURCES:
        return tuple(found.model_fields)
    parameters = inspect.signature(found).parameters.items()
    return tuple(name for name, p in parameters if p.kind in {p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD})


def _load(source: str) -> Any:
    """Return the class of a shipped source, or a custom function."""
    if source in SOURCES:
        return pkgutil.resolve_name(SOURCES[source])
    return load_function(source, ENTRY_POINTS, "the source")


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
    names = _list_arguments(source)
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
    images = found.images
    # Other nodes map a file of pixels by its name; any other mapped file is sent as it is in memory.
    if find_pixel_file(images) is None:
        images = np.ascontiguousarray(images)
    labels = np.asarray(found.labels, dtype=np.int64)
    return replace(
        found, images=images, labels=labels, class_names=tuple(map(make_printable, found.class_names)), source=source
    )
