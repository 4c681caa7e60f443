"""Image sources: one loader per source, and `load_image_set`, which calls them by name.

A custom source is a function that returns an `ImageSet`: see `trainables.data.sources.own.load_own`.
"""

import inspect
import os
import pkgutil
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError, validate_call

from search_spaces.errors import UserInputError, check_choice, nearest_name
from search_spaces.extensions import is_location, list_entry_points, load_function
from trainables.data.image_memory import DEFAULT_SHARE, ImageMemoryBudget, default_folder, physical_memory

if TYPE_CHECKING:
    from trainables.data.images import ImageSet

# The loader of each source, imported when it is needed: a spec is checked with the names alone.
SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "cifar10": "trainables.data.sources.published:load_cifar10",
        "fashion_mnist": "trainables.data.sources.published:load_fashion_mnist",
        "digits": "trainables.data.sources.published:load_digits",
        "planted": "trainables.data.sources.planted_scenes:load_planted",
        "folder": "trainables.data.sources.folders.folder:load_folder",
        "parquet": "trainables.data.sources.parquet:load_parquet",
        "webdataset": "trainables.data.sources.webdataset:load_webdataset",
    }
)

ENTRY_POINTS = "abstudy.sources"

# The parameter for the memory budget of a loader, which is not an option of a spec.
MEMORY_BUDGET = "memory_budget"
# Parameters of the loaders that decode files, which a spec sets as train.image_size, data.aspect and data.on_bad_image.
DECODING = ("image_size", "aspect", "on_bad_image")


def check_source(source: str) -> None:
    """Raise UserInputError, with the nearest name, unless `source` is a name that a source can have; nothing is imported."""
    known = [*SOURCES, *list_entry_points(ENTRY_POINTS)]
    if source not in known and not is_location(source):
        near = nearest_name(source, known)
        own = "" if "did you mean" in near else "; one of your own is package.module:function"
        raise UserInputError(f"there is no source {source!r}{near}{own}")


def decoding_names(source: str) -> tuple[str, ...]:
    """Return those of `DECODING` that the source takes: all or none of `SOURCES`, those that a custom one names."""
    taken = tuple(name for name in DECODING if name in _keywords(source))
    return taken if source not in SOURCES or taken == DECODING else ()


def load_image_set(
    source: str,
    path: str | os.PathLike[str] | None = None,
    *,
    memory_budget: ImageMemoryBudget | None = None,
    **options: Any,
) -> "ImageSet":
    """Return the images of a source.

    Args:
        source: Key of `SOURCES`, name of an entry point of the group `abstudy.sources`, or "package.module:function" in
            the working folder, if it is trusted.
        path: Location of the files; "" is the same as None. Sources that generate their images take none. Files at a URI, such as
            s3://bucket/photos, are copied to the folder of `memory_budget` first.
        memory_budget: Memory that images of a folder or of parquet files may take before they are mapped from a file;
            None for a quarter of the machine's memory and the user's cache folder.
        options: Options of the source's loader, and `image_size`, `aspect` and `on_bad_image` of one that decodes files. Every
            source of `SOURCES` has `num_images` (size of a stratified part of the images outside the test set, or the number of
            planted scenes) and `seed` (of that draw, or of the scenes).

    Raises:
        UserInputError: For an unknown source or option, a value of the wrong type or out of range, a path for a source that
            reads none, or files that cannot be used.
    """
    check_source(source)
    loader = _load(source)
    parameters = inspect.signature(loader).parameters
    arguments = dict(options)
    if "path" in parameters:
        arguments["path"] = os.fspath(path) if path else None
    elif path:
        raise UserInputError(
            f'the source {source!r} reads no files, but data.path is {os.fspath(path)!r}; remove it, or set it to ""'
        )
    if MEMORY_BUDGET in parameters:
        budget = memory_budget or ImageMemoryBudget(int(DEFAULT_SHARE * physical_memory()), default_folder())
        arguments[MEMORY_BUDGET] = budget
        if source in SOURCES and "://" in (arguments.get("path") or ""):
            from trainables.data.sources.fetched_files import fetch_files, fetch_source

            # Only of a folder's files a table may stand for images beside it.
            fetch = fetch_source if source == "folder" else fetch_files
            arguments["path"] = str(fetch(arguments["path"], budget.folder))
    if source not in SOURCES:
        from trainables.data.sources.own import load_own

        return load_own(source, loader, arguments)
    names = _keywords(source)
    for name in options:
        check_choice(f"the source {source!r} has no option", name, names)
    try:
        image_set: ImageSet = validate_call(config=ConfigDict(strict=True))(loader)(**arguments)
    except ValidationError as error:
        # If a number or a table is accepted, the problem inside the table is the informative one.
        problem = max(error.errors(), key=lambda p: len(p["loc"]))
        raise UserInputError(
            f"the source {source!r}, option {problem['loc'][0]}: {problem['msg']}, but got {problem['input']!r}"
        ) from None
    return image_set


def _keywords(source: str) -> tuple[str, ...]:
    """Return the names of the arguments except those of `load_image_set` itself."""
    parameters = inspect.signature(_load(source)).parameters.values()
    named = [p.name for p in parameters if p.kind in {p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD}]
    return tuple(name for name in named if name not in {"path", MEMORY_BUDGET})


def _load(source: str) -> "Callable[..., ImageSet]":
    if source in SOURCES:
        loader: Callable[..., ImageSet] = pkgutil.resolve_name(SOURCES[source])
        return loader
    return load_function(source, ENTRY_POINTS, "the source")
