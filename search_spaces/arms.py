"""Arms: the levels of the A/B factor, each with its part of the search space."""

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.config import Value
from search_spaces.errors import UserInputError
from search_spaces.space import CategoricalParameter, SearchSpace

POOLED_ARM = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One arm.

    Attributes:
        name: Level of the factor, name of a given configuration, or "all".
        space: Search space within the arm; what is fixed there has one value in all its trials.
    """

    name: str
    space: SearchSpace


def split_into_arms(space: SearchSpace, factor: str | None) -> tuple[Arm, ...]:
    """Return one arm per level of `factor`, or the single arm "all" if `factor` is None.

    Raises:
        UserInputError: If the space has no such parameter, it is not categorical, or it has fewer than two levels.
    """
    if factor is None:
        return (Arm(name=POOLED_ARM, space=space),)
    parameter = space[factor]
    if not isinstance(parameter, CategoricalParameter):
        raise UserInputError(
            f"the factor must be a categorical parameter, but {factor!r} is a range of numbers; give it two or more levels"
        )
    if len(parameter.choices) < 2:
        raise UserInputError(f"the factor {factor!r} needs two levels, but has only {parameter.choices[0]!r}")
    return tuple(
        Arm(name=_name_level(factor, level), space=space.with_fixed({factor: level})) for level in parameter.choices
    )


def _name_level(factor: str, level: Value) -> str:
    """Return the level if it is a word; a number, true or false alone would not tell what it is."""
    if isinstance(level, str) and level:
        return level
    return f"{factor}={str(level).lower() if isinstance(level, bool) else level}"


def make_fixed_arm(name: str, space: SearchSpace, values: Mapping[str, Value]) -> Arm:
    """Return an arm that consists of one configuration.

    Args:
        name: Name of the arm.
        space: Space that the configuration must fit.
        values: The configuration; values that the space fixes may be repeated or left out.

    Raises:
        UserInputError: Naming the arm, and the parameter that is missing, unknown, out of range or fixed at another value.
    """
    try:
        space.check(values)
        return Arm(name=name, space=space.with_fixed({n: v for n, v in values.items() if n not in dict(space.fixed)}))
    except UserInputError as error:
        raise UserInputError(f"the configuration {name!r}: {error}") from None
