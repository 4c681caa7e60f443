"""The search space of a spec: the space that it names or describes, with its ranges, its factor and its fixed values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from search_spaces.config import Value
from search_spaces.errors import UserInputError, attempt, nearest_name
from search_spaces.space import CategoricalParameter, Condition, Parameter, SearchSpace
from search_spaces.space_tables import load_space, read_parameters
from study.spec.sections import SearchSpec
from study.spec.setting_places import CONSTANT, SETTINGS, find_setting

OWN_SPACE = "search.space"


def list_base_problems(search: SearchSpec, *, takes_own: bool = False) -> list[str]:
    """Return a message for everything that is wrong with the space that [search] names or describes.

    Args:
        search: of a spec.
        takes_own: whether the names of settings of a custom training loop are valid.
    """
    if isinstance(search.space, str):
        unknown: list[str] = []
        attempt(unknown, load_space, search.space, prefix=f"{OWN_SPACE}: ")
        return unknown
    parameters, problems = read_parameters(search.space)
    found = {name: find_setting(name, takes_own=takes_own) for name in search.space}
    problems += [_unknown(name, SETTINGS) for name, setting in found.items() if setting is None]
    for parameter in parameters:
        setting = found[parameter.name]
        problems += [] if setting is None else setting.list_problems(parameter)
    return [f"{OWN_SPACE}: {problem}" for problem in problems]


def find_factor(search: SearchSpec) -> str | None:
    """Return the name of the A/B factor of a search; None in a pooled one."""
    return search.factor if search.allocation == "per_arm" else None


def with_range(
    space: SearchSpace, search: SearchSpec, name: str, values: list[Value], *, takes_own: bool = False
) -> SearchSpace:
    """Return the space with one entry of `search.ranges`.

    The values of the factor are its levels. Those of a parameter of the space narrow it; those of another setting of the
    recipe make it a parameter.

    Raises:
        UserInputError: for an unknown name, or a value that is not valid.
    """
    if name in space.names:
        parameter = space[name]
        if name != find_factor(search) or isinstance(parameter, CategoricalParameter):
            return space.with_range(name, values)
        levels = tuple(parameter.check(value) for value in values)
        return space.with_parameter(CategoricalParameter(name=name, choices=levels, condition=parameter.condition))
    setting = find_setting(name, takes_own=takes_own)
    if setting is None:
        raise UserInputError(_unknown(name, [*space.names, *SETTINGS]))
    return space.with_parameter(setting.make_parameter(values, are_levels=name == find_factor(search)))


def with_factor(space: SearchSpace, search: SearchSpec) -> SearchSpace:
    """Return the space with the levels of its factor, where they are all values of a setting.

    Raises:
        UserInputError: if the factor is unknown, fixed, or needs levels in `search.ranges`.
    """
    factor = find_factor(search)
    if factor is None:
        return space
    if factor in search.fixed:
        raise UserInputError(
            f"search.factor is {factor!r}, which search.fixed sets to {search.fixed[factor]!r}; "
            "remove it there, or choose another factor"
        )
    if factor in space.names:
        if isinstance(space[factor], CategoricalParameter):
            return space
        raise UserInputError(_levels_missing(factor))
    if factor not in SETTINGS:
        raise UserInputError(f"search.factor: {_unknown(factor, [*space.names, *SETTINGS])}")
    choices = SETTINGS[factor].choices
    if not choices:
        raise UserInputError(_levels_missing(factor))
    return space.with_parameter(SETTINGS[factor].make_parameter(choices))


def with_values(
    space: SearchSpace, configurations: Sequence[Mapping[str, Value]], *, takes_own: bool = False
) -> SearchSpace:
    """Return the space with all that given configurations set beyond it.

    These are a parameter for each further setting of the recipe, and a choice for each backbone of another package. A setting
    that some configurations lack applies under the condition that it has in the default space.

    Raises:
        UserInputError: for a value that is not valid.
    """
    seen: dict[str, dict[Value, None]] = {}
    for configuration in configurations:
        for name, value in configuration.items():
            setting = find_setting(name, takes_own=takes_own)
            if setting is not None and name not in space.names and name not in dict(space.fixed):
                seen.setdefault(name, {})[setting.check(value)] = None
    lacking = {name for name in seen if not all(name in configuration for configuration in configurations)}
    conditions = {name: _find_condition(name) if name in lacking else None for name in seen}
    for name in sorted(seen, key=lambda name: conditions[name] is not None):
        condition = conditions[name]
        if condition is not None and condition.parent not in (*space.names, *dict(space.fixed)):
            condition = None
        space = space.with_parameter(CategoricalParameter(name=name, choices=tuple(seen[name]), condition=condition))
    return replace(space, parameters=tuple(_with_choices(p, configurations) for p in space.parameters))


def widen_space(
    tables: Mapping[str, Mapping[str, Any]], configurations: Sequence[Mapping[str, Value]]
) -> dict[str, dict[str, Any]]:
    """Return the tables of a valid [search.space] with choices and ranges that have the values of the configurations too."""
    widened = {}
    for name, table in tables.items():
        values = [configuration[name] for configuration in configurations if name in configuration]
        if table["kind"] == "categorical":
            changes: dict[str, Any] = {"choices": list(dict.fromkeys([*table["choices"], *values]))}
        else:
            changes = {"low": min([table["low"], *values]), "high": max([table["high"], *values])}
            # A logarithmic range has no 0; the values are given, and nothing is drawn from it.
            changes |= {"kind": "float"} if table["kind"] == "log" and changes["low"] <= 0 else {}
        if "when" in table:
            ((parent, applies),) = table["when"].items()
            given = [configuration.get(parent) for configuration in configurations if name in configuration]
            changes["when"] = {
                parent: list(dict.fromkeys([*applies, *(value for value in given if value is not None)]))
            }
        widened[name] = {**table, **changes}
    return widened


def _find_condition(name: str) -> Condition | None:
    """Return under which condition a setting applies, such as the strength of class weights; None if it always does."""
    known = load_space(SearchSpec.model_fields["space"].default)
    return known[name].condition if name in known.names else None


def _with_choices(parameter: Parameter, configurations: Sequence[Mapping[str, Value]]) -> Parameter:
    """Return a parameter that takes names beyond its choices with those that the configurations have and that it takes."""
    if not isinstance(parameter, CategoricalParameter) or not parameter.entry_points:
        return parameter
    given = dict.fromkeys(values[parameter.name] for values in configurations if parameter.name in values)
    further = tuple(value for value in given if value not in parameter.choices and parameter.takes(value))
    return replace(parameter, choices=(*parameter.choices, *further)) if further else parameter


def with_fixed(space: SearchSpace, fixed: Mapping[str, Value], *, takes_own: bool = False) -> SearchSpace:
    """Return the space with the values of `search.fixed`; raise UserInputError for one that cannot be fixed there."""
    beyond: dict[str, Value] = {}
    for name, value in fixed.items():
        checked = check_fixed(space, name, value, takes_own=takes_own)
        beyond |= {} if name in space.names else {name: checked}
    space = space.with_fixed({name: value for name, value in fixed.items() if name not in beyond})
    return replace(space, fixed=tuple(sorted({**dict(space.fixed), **beyond}.items()))) if beyond else space


def check_value(name: str, value: Value) -> Value:
    """Return a value that a given configuration has of `name`, in the type of the setting; parameters are left to their space."""
    return SETTINGS[name].check(value) if name in SETTINGS and SETTINGS[name].section else value


def check_fixed(space: SearchSpace, name: str, value: Value, *, takes_own: bool = False) -> Value:
    """Return the value to which `search.fixed` sets `name`, in its type; raise UserInputError if it cannot be set there."""
    if name in space.names:
        return space[name].check(value)
    setting = find_setting(name, takes_own=takes_own)
    if setting is None:
        raise UserInputError(_unknown(name, space.names))
    if setting.section:
        raise UserInputError(f"{name} is set to one value by {setting.place}; move it there")
    return setting.check(value)


def _levels_missing(factor: str) -> str:
    return (
        f"the factor {factor!r} is not a choice of a few values, so it needs its levels; "
        f"add search.ranges.{factor} = [...] with two or more values"
    )


def _unknown(name: str, valid: Iterable[str]) -> str:
    if name in CONSTANT:
        return f"{name} has one value in a study: {CONSTANT[name]}"
    return f"there is no parameter or setting {name!r}{nearest_name(name, valid)}"
