"""Extensions: entry points of installed packages, and objects that a spec names as "package.module:object"."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path
from typing import Any

from search_spaces.errors import UserInputError

MAX_WORDS = 200


def list_entry_points(group: str) -> dict[str, str]:
    """Return the location ("package.module:object") of each entry point of a group by its name, sorted by name.

    Where two packages bring the same name, that of the package which Python finds first counts.
    """
    found: dict[str, str] = {}
    for entry in entry_points(group=group):
        found.setdefault(entry.name, entry.value)
    return dict(sorted(found.items()))


def find_package(name: str, group: str) -> str:
    """Return the installed package that an extension comes from; "" if none is, as for a module of the current folder.

    Args:
        name: Of an entry point of `group`, or "package.module:object".
        group: Of entry points.
    """
    for entry in entry_points(group=group):
        if entry.name == name:
            return entry.dist.name if entry.dist is not None else ""
    if not is_location(name):
        return ""
    return next(iter(packages_distributions().get(name.partition(":")[0].partition(".")[0], ())), "")


def is_location(name: str) -> bool:
    """Return whether a name has the form "package.module:object"."""
    return all(name.partition(":"))


def import_object(name: str, what: str) -> Any:
    """Return the object of "package.module:object"; modules of the current folder are found, as with `python -m`.

    Args:
        name: Of the object.
        what: Of which it is the value, for messages.

    Raises:
        UserInputError: With the error of the import in one line.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # Ray hands it on to its workers
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # the module's own code may raise anything
        raise UserInputError(
            f"{what} {name!r} cannot be imported ({type(error).__name__}: {_join_words(error)}); its package must be installed "
            "or lie in the folder that the command runs in"
        ) from None
    return found


def import_function(name: str, location: str, what: str) -> Callable[..., Any]:
    """Return the function of an extension.

    Args:
        name: As in a spec.
        location: "package.module:function", which is the name or that of an entry point.
        what: Of which it is the value, for messages.

    Raises:
        UserInputError: If it cannot be imported, is not callable, or does not tell its arguments.
    """
    found: Callable[..., Any] = import_object(location, what)
    if not callable(found):
        raise UserInputError(f"{what} {name!r} must be a function, but is {type(found).__name__}")
    try:
        inspect.signature(found)
    except (TypeError, ValueError):
        raise UserInputError(
            f"{what} {name!r} does not tell which arguments it takes; wrap it in a function of your own"
        ) from None
    return found


@contextmanager
def refusing(describe: Callable[[str], str]) -> Iterator[None]:
    """Turn any error of the code of others into a UserInputError of one line, described from the error's own words."""
    try:
        yield
    except UserInputError:
        raise
    except Exception as error:
        raise UserInputError(describe(_join_words(error) or type(error).__name__)) from None


@contextmanager
def locating(what: str) -> Iterator[None]:
    """Turn any error of the code of others into a UserInputError of one line, with its type and the place that raised it."""
    try:
        yield
    except UserInputError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__}: {_join_words(error)}"
        raise UserInputError(f"{what} failed with {words} ({last.filename}, line {last.lineno})") from None


def _join_words(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_WORDS]
