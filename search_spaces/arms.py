"""Arms: the levels of the A/B factor, each with its own part of the space."""

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.config import Value
from search_spaces.errors import UserInputError
from search_spaces.space import CategoricalParameter, SearchSpace

POOLED_ARM = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One level of the factor, with the space that is left to search inside it."""

    name: str
    space: SearchSpace


def split_into_arms(space: SearchSpace, factor: str | None) -> tuple[Arm, ...]:
    """Return one arm per level of `factor`, or the single arm "all" where `factor` is None.

    Raises UserInputError if the factor is not in the space, is no categorical parameter, or has one level only.
    """
    if factor is None:
        return (Arm(name=POOLED_ARM, space=space),)
    parameter = space[factor]
    if not isinstance(parameter, CategoricalParameter):
        raise UserInputError(
            f"the factor must be a categorical parameter, but {factor!r} is a range of numbers; "
            "to compare values of it, use a [design] or [configurations]"
        )
    if len(parameter.choices) < 2:
        raise UserInputError(f"the factor {factor!r} needs two levels, but has only {parameter.choices[0]!r}")
    return tuple(Arm(name=str(level), space=space.with_fixed({factor: level})) for level in parameter.choices)


def make_fixed_arm(name: str, space: SearchSpace, values: Mapping[str, Value]) -> Arm:
    """Return the arm that is one configuration.

    Raises UserInputError naming the arm, and what is missing in `values`, unknown, out of range, or not the value at which the
    space fixes it.
    """
    try:
        space.check(values)
        return Arm(name=name, space=space.with_fixed({n: v for n, v in values.items() if n not in dict(space.fixed)}))
    except UserInputError as error:
        raise UserInputError(f"the configuration {name!r}: {error}") from None
