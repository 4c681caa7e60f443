"""Image sources: from a name and a path to an `ImageSet`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from search_spaces.errors import UserInputError, nearest_name
from trainables.images import ImageSet
from trainables.sources.folder import load_folder
from trainables.sources.parquet import load_parquet
from trainables.sources.planted import load_planted
from trainables.sources.published import load_cifar10, load_digits, load_fashion_mnist

SOURCES: Mapping[str, Callable[..., ImageSet]] = {
    "cifar10": load_cifar10,
    "fashion_mnist": load_fashion_mnist,
    "digits": load_digits,
    "planted": load_planted,
    "folder": load_folder,
    "parquet": load_parquet,
}


def load_image_set(source: str, path: str | None = None, **options: Any) -> ImageSet:
    """Return the images of a source; its options are the keyword arguments of its loader.

    Raises UserInputError for an unknown source or option, or for data that cannot be used.
    """
    if source not in SOURCES:
        raise UserInputError(f"there is no source {source!r}{nearest_name(source, SOURCES)}")
    known = [name for name in inspect.signature(SOURCES[source]).parameters if name != "path"]
    for name in options:
        if name not in known:
            raise UserInputError(f"the source {source!r} has no option {name!r}{nearest_name(name, known)}")
    return SOURCES[source](path, **options)


__all__ = ["SOURCES", "load_image_set"]
