"""Search spaces as TOML tables, one per parameter, and the spaces that a spec can name."""

import math
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from search_spaces.config import Value
from search_spaces.errors import UserInputError, check_choice, nearest_name
from search_spaces.space import CategoricalParameter, Condition, FloatParameter, IntParameter, Parameter, SearchSpace

# Keys that a parameter of each kind must have.
KEYS: Mapping[str, tuple[str, ...]] = {
    "float": ("low", "high"),
    "log": ("low", "high"),
    "int": ("low", "high"),
    "categorical": ("choices",),
}


def read_parameters(tables: Mapping[str, Any]) -> tuple[tuple[Parameter, ...], list[str]]:
    """Return the parameters that tables describe, and what is wrong with the others.

    Args:
        tables: table by name of the parameter: `kind`, and the keys of `KEYS`; optionally `when`, a table with the name of an
            earlier categorical parameter and the list of its values under which the parameter exists, and `entry_points` as in
            `CategoricalParameter`.
    """
    problems = [] if tables else ["there is no parameter"]
    parameters: dict[str, Parameter] = {}
    for parameter, table in tables.items():
        found = _list_problems(table, tables, list(parameters))
        problems += [f"{parameter}: {problem}" for problem in found]
        if not found:
            try:
                parameters[parameter] = _make_parameter(parameter, table)
            except UserInputError as error:
                problems.append(str(error))
    return tuple(parameters.values()), problems


def _list_problems(table: object, tables: Mapping[str, Any], earlier: list[str]) -> list[str]:
    """Return what is wrong with the table of one parameter."""
    if not isinstance(table, Mapping):
        return [f'must be a table such as {{ kind = "float", low = 0.0, high = 1.0 }}, but got {table!r}']
    kind = str(table.get("kind"))
    if kind not in KEYS:
        got = f"got {kind!r}{nearest_name(kind, KEYS)}" if "kind" in table else "has none"
        return [f"kind must be one of {', '.join(map(repr, KEYS))}, but {got}"]
    valid = ("kind", *KEYS[kind], "when", *(["entry_points"] if kind == "categorical" else []))
    problems = [f"unknown key {key!r}{nearest_name(key, valid)}" for key in table if key not in valid]
    problems += [f"{key} is missing" for key in KEYS[kind] if key not in table]
    for key in KEYS[kind]:
        if key in table:
            problems += _list_value_problems(kind, key, table[key])
    return problems + (_list_condition_problems(table["when"], tables, earlier) if "when" in table else [])


def _list_value_problems(kind: str, key: str, value: object) -> list[str]:
    if key == "choices":
        is_valid = isinstance(value, list) and len(value) > 0 and all(isinstance(v, float | int | str) for v in value)
        return [] if is_valid else [f"choices must be a list of values, but got {value!r}"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return [f"{key} must be a number, but got {value!r}"]
    if kind == "int" and not isinstance(value, int):
        return [f"{key} must be a whole number, but got {value!r}"]
    return []


def _list_condition_problems(when: object, tables: Mapping[str, Any], earlier: list[str]) -> list[str]:
    """Return what is wrong with `when`, given the names of the parameters before it."""
    if not isinstance(when, Mapping) or len(when) != 1 or not isinstance(next(iter(when.values())), list):
        return [f"when must be a table such as {{ parent = [values] }}, but got {when!r}"]
    ((parent, values),) = when.items()
    if parent not in earlier:
        where = "stands after it or cannot be used" if parent in tables else "does not exist"
        return [
            f"when names {parent!r}, which {where}{'' if parent in tables else nearest_name(parent, earlier or tables)}"
        ]
    choices = tables[parent].get("choices")
    if choices is None:
        return [f"when names {parent!r}, which is a range of numbers; it must be categorical"]
    unknown = [value for value in values if value not in choices]
    if unknown or not values:
        return [f"when must list values of {parent} ({', '.join(map(str, choices))}), but got {values!r}"]
    return []


def _make_parameter(name: str, table: Mapping[str, Any]) -> Parameter:
    condition = None
    if "when" in table:
        ((parent, values),) = table["when"].items()
        condition = Condition(parent=parent, values=tuple(values))
    if table["kind"] == "categorical":
        choices: tuple[Value, ...] = tuple(table["choices"])
        group = str(table.get("entry_points", ""))
        return CategoricalParameter(name=name, choices=choices, condition=condition, entry_points=group)
    if table["kind"] == "int":
        return IntParameter(name=name, low=table["low"], high=table["high"], condition=condition)
    low, high = float(table["low"]), float(table["high"])
    return FloatParameter(name=name, low=low, high=high, log=table["kind"] == "log", condition=condition)


SUFFIX = ".toml"


def space_names() -> tuple[str, ...]:
    """Return the names of the shipped spaces."""
    files = resources.files("search_spaces").iterdir()
    return tuple(sorted(f.name.removesuffix(SUFFIX) for f in files if f.name.endswith(SUFFIX)))


@cache
def load_space(name: str) -> SearchSpace:
    """Return the space called `name`; raise UserInputError with the nearest name if there is none."""
    check_choice("there is no search space", name, space_names())
    text = (resources.files("search_spaces") / f"{name}{SUFFIX}").read_text(encoding="utf-8")
    return SearchSpace(name=name, parameters=read_parameters(tomllib.loads(text))[0])
