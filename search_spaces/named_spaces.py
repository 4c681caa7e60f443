"""The search spaces that a spec can name: one TOML file each, beside this module."""

import tomllib
from functools import cache
from importlib import resources

from search_spaces.errors import UserInputError, nearest_name
from search_spaces.space import SearchSpace
from search_spaces.space_tables import read_parameters

SUFFIX = ".toml"


def space_names() -> tuple[str, ...]:
    """Return the names of the shipped spaces."""
    files = resources.files("search_spaces").iterdir()
    return tuple(sorted(f.name.removesuffix(SUFFIX) for f in files if f.name.endswith(SUFFIX)))


@cache
def load_space(name: str) -> SearchSpace:
    """Return the space called `name`; raise UserInputError with the nearest name if there is none."""
    if name not in space_names():
        raise UserInputError(f"there is no search space {name!r}{nearest_name(name, space_names())}")
    text = (resources.files("search_spaces") / f"{name}{SUFFIX}").read_text(encoding="utf-8")
    return SearchSpace(name=name, parameters=read_parameters(tomllib.loads(text))[0])
