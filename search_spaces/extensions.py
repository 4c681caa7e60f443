"""Extensions: entry points of installed packages, and "package.module:object", code of the working folder.

A name in a spec runs what a package that was installed on purpose offers by an entry point. Code of the working folder, which may
have come with the spec, is not even imported unless the user trusts it (`trusting_code`).
"""

import functools
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from search_spaces.errors import UserInputError, nearest_name

MAX_WORDS = 200
# Environment variable with the working folder whose code is trusted. Read here alone.
TRUST = "ABSTUDY_TRUST_CODE"
BACKBONE_ENTRY_POINTS = "abstudy.backbones"
# Prefixes of backbones of libraries, as in "timm:NAME", where others have a module.
LIBRARIES = ("torchvision", "timm")


def list_entry_points(group: str) -> dict[str, str]:
    """Return the location ("package.module:object") of each entry point of a group by its name, sorted by name.

    Where two packages bring the same name, that of the package which Python finds first counts.
    """
    found: dict[str, str] = {}
    for entry in _read_entry_points(group, tuple(sys.path)):
        found.setdefault(entry.name, entry.value)
    return dict(sorted(found.items()))


def find_package(name: str, group: str) -> str:
    """Return the installed package that an extension comes from; "" if none is, as for code of the working folder.

    Args:
        name: As in a spec.
        group: Of entry points.
    """
    for entry in _read_entry_points(group, tuple(sys.path)):
        if entry.name == name:
            return entry.dist.name if entry.dist is not None else ""
    prefix = name.partition(":")[0]
    return prefix if is_location(name) and prefix in LIBRARIES else ""


@functools.lru_cache(maxsize=64)
def _read_entry_points(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group; once for each `sys.path`, because it reads the metadata of every package there."""
    return tuple(entry_points(group=group))


def is_location(name: str) -> bool:
    """Return whether a name has the form "package.module:object"."""
    return all(name.partition(":"))


def is_code(name: str, group: str) -> bool:
    """Return whether a name stands for code of the working folder: "package.module:object", but no entry point of `group`."""
    return is_location(name) and name.partition(":")[0] not in LIBRARIES and name not in list_entry_points(group)


def locate(name: str, group: str) -> str:
    """Return the location of an entry point of `group`, or else the name, which is the location of code of the working folder."""
    return list_entry_points(group).get(name, name)


@contextmanager
def trusting_code(is_trusted: bool) -> Iterator[None]:
    """Let code of the working folder run, in this process and in those that it starts meanwhile; or let none run.

    They inherit the trust as an environment variable, which holds the folder. No file of a study holds it.
    """
    before = os.environ.get(TRUST, "")
    os.environ[TRUST] = str(Path.cwd()) if is_trusted else ""
    try:
        yield
    finally:
        os.environ[TRUST] = before


def read_trust() -> dict[str, str]:
    """Return the environment variable by which a process on another machine trusts the same code; {} without trust."""
    return {TRUST: os.environ[TRUST]} if os.environ.get(TRUST) else {}


def describe_refusal(name: str, group: str) -> str:
    """Return why a name that is no entry point may not be imported as code of the working folder; "" if it may.

    Nothing is imported. The top-level module must lie in the working folder, and be trusted. On a worker, that is the folder of
    the driver or, where a job's files were unpacked, its own.

    Args:
        name: As in a spec, "package.module:object".
        group: Of entry points, for the message.
    """
    top, folders = name.partition(":")[0].partition(".")[0], _list_folders()
    try:
        found = importlib.util.find_spec(top) or PathFinder.find_spec(top, folders)
    except ValueError:  # no name, or a module without a place, such as __main__
        found = None
    places = found and (found.submodule_search_locations or ([str(found.origin)] if found.has_location else []))
    if not places or not {Path(place).parent.resolve() for place in places} <= {Path(f).resolve() for f in folders}:
        near = nearest_name(name, valid) if (valid := list_entry_points(group)) else ""
        where = f"{top!r} is a module of Python or of a package" if found else f"{folders[0]} has no module {top!r}"
        return (
            f"{name!r} must be an entry point of {group}{near} or, as package.module:object, "
            f"code of the working folder, but {where}; code of an installed package is named by its entry point alone"
        )
    if read_trust():
        return ""
    return (
        f"{name!r} is code of the working folder, which would run; add --trust-code if you trust it, or name the entry point of "
        f"an installed package ({group})"
    )


def load_object(name: str, group: str, what: str) -> Any:
    """Return the object of an entry point, or of "package.module:object" in the working folder if that is trusted.

    Args:
        name: As in a spec.
        group: Of entry points.
        what: Of which it is the value, for messages.

    Raises:
        UserInputError: If it is neither, with the reason, or with the error of the import in one line.
    """
    location = locate(name, group)
    if location == name:
        if refusal := describe_refusal(name, group):
            raise UserInputError(f"{what} {refusal}")
        sys.path += [folder for folder in _list_folders() if folder not in sys.path]
    module_name, _, attribute = location.partition(":")
    try:
        module = found = importlib.import_module(module_name)
        for part in attribute.split("."):
            if location == name and inspect.ismodule(found) and found is not module:
                raise AttributeError(f"{found.__name__} is another module")
            found = getattr(found, part)
    except Exception as error:  # the module's own code may raise anything
        raise UserInputError(
            f"{what} {name!r} cannot be imported ({type(error).__name__}: {_join_words(error)}); its package must be installed "
            "or lie in the folder that the command runs in"
        ) from None
    return found


def load_function(name: str, group: str, what: str) -> Callable[..., Any]:
    """Return the function of an extension; the arguments are those of `load_object`.

    Raises:
        UserInputError: If it cannot be loaded, or is no function whose arguments Python can inspect.
    """
    found: Callable[..., Any] = load_object(name, group, what)
    try:
        inspect.signature(found)
    except (TypeError, ValueError):
        kind = type(found).__name__
        raise UserInputError(
            f"{what} {name!r} must be a function with a signature, but is {kind}; wrap it in one"
        ) from None
    return found


def import_extra(name: str, versions: str) -> Any:
    """Import a package that an extra of the same name installs.

    Args:
        name: Of the package, its module, and the extra.
        versions: That work, by how they begin, such as "3.".

    Raises:
        UserInputError: If it is not installed, or in another version, with the command that installs it.
    """
    try:
        found = version(name)
    except PackageNotFoundError:
        found = ""
    if not found.startswith(versions):
        state = f"found is {found}" if found else "it is not installed"
        raise UserInputError(f'this needs {name} {versions}x, but {state}; run `pip install "abstudy[{name}]"`')
    return importlib.import_module(name)


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


def _list_folders() -> list[str]:
    """Return the folders that code may lie in: that of the driver, if it is trusted, and that of this process."""
    return list(dict.fromkeys([*read_trust().values(), str(Path.cwd())]))
