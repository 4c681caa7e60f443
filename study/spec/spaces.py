"""The search space of a spec: the space that it names or describes, with its ranges, its factor and its fixed values."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from search_spaces.config import Value
from search_spaces.errors import UserInputError, nearest_name
from search_spaces.named_spaces import load_space
from search_spaces.space import CategoricalParameter, SearchSpace
from search_spaces.space_tables import read_parameters
from study.spec.sections import SearchSpec
from study.spec.settings import CONSTANT, SETTINGS

OWN_SPACE = "search.space"


def make_base_space(search: SearchSpec) -> SearchSpace:
    """Return the space that [search] names or describes; raise UserInputError for the first problem of `list_base_problems`."""
    if isinstance(search.space, str):
        return load_space(search.space)
    problems = list_base_problems(search)
    if problems:
        raise UserInputError("; ".join(problems))
    return SearchSpace(name=OWN_SPACE, parameters=read_parameters(search.space)[0])


def list_base_problems(search: SearchSpec) -> list[str]:
    """Return a message for everything that is wrong with the space that [search] names or describes."""
    if isinstance(search.space, str):
        try:
            load_space(search.space)
        except UserInputError as error:
            return [f"search.space: {error}"]
        return []
    parameters, problems = read_parameters(search.space)
    problems += [_unknown(name, SETTINGS) for name in search.space if name not in SETTINGS]
    for parameter in parameters:
        problems += SETTINGS[parameter.name].list_problems(parameter) if parameter.name in SETTINGS else []
    return [f"{OWN_SPACE}: {problem}" for problem in problems]


def find_factor(search: SearchSpec) -> str | None:
    """Return the name of the A/B factor of a search; None in a pooled one."""
    return search.factor if search.allocation == "per_arm" else None


def with_range(space: SearchSpace, search: SearchSpec, name: str, values: list[Value]) -> SearchSpace:
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
    if name not in SETTINGS:
        raise UserInputError(_unknown(name, [*space.names, *SETTINGS]))
    setting = SETTINGS[name]
    is_factor = name == find_factor(search)
    return space.with_parameter(setting.make_levels(values) if is_factor else setting.make_parameter(values))


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
    return space.with_parameter(SETTINGS[factor].make_levels(choices))


def with_values(space: SearchSpace, configurations: Iterable[Mapping[str, Value]]) -> SearchSpace:
    """Return the space with a parameter for each setting of the recipe that given configurations set beyond the space.

    Raises:
        UserInputError: for a value that is not valid.
    """
    seen: dict[str, dict[Value, None]] = {}
    for configuration in configurations:
        for name, value in configuration.items():
            if name in SETTINGS and name not in space.names and name not in dict(space.fixed):
                seen.setdefault(name, {})[SETTINGS[name].check(value)] = None
    for name, values in seen.items():
        space = space.with_parameter(CategoricalParameter(name=name, choices=tuple(values)))
    return space


def with_fixed(space: SearchSpace, fixed: Mapping[str, Value]) -> SearchSpace:
    """Return the space with the values of `search.fixed`; raise UserInputError for one that cannot be fixed there."""
    for name, value in fixed.items():
        check_fixed(space, name, value)
    beyond = {name: SETTINGS[name].check(value) for name, value in fixed.items() if name not in space.names}
    space = space.with_fixed({name: value for name, value in fixed.items() if name not in beyond})
    return replace(space, fixed=tuple(sorted({**dict(space.fixed), **beyond}.items()))) if beyond else space


def check_value(name: str, value: Value) -> Value:
    """Return a value that a given configuration has of `name`, in the type of the setting; parameters are left to their space."""
    return SETTINGS[name].check(value) if name in SETTINGS and SETTINGS[name].section else value


def check_fixed(space: SearchSpace, name: str, value: Value) -> None:
    """Raise UserInputError if `search.fixed` cannot set `name` to `value`."""
    if name in space.names:
        space[name].check(value)
    elif name not in SETTINGS:
        raise UserInputError(_unknown(name, space.names))
    elif SETTINGS[name].section:
        raise UserInputError(f"{name} is set to one value by {SETTINGS[name].place}; move it there")
    else:
        SETTINGS[name].check(value)


def _levels_missing(factor: str) -> str:
    return (
        f"the factor {factor!r} is not a choice of a few values, so it needs its levels; "
        f"add search.ranges.{factor} = [...] with two or more values"
    )


def _unknown(name: str, valid: Iterable[str]) -> str:
    if name in CONSTANT:
        return f"{name} has one value in a study: {CONSTANT[name]}"
    return f"there is no parameter or setting {name!r}{nearest_name(name, valid)}"
