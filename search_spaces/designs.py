"""Arms, each with its part of the search space, and designs: configurations to train, and contrasts, the rows of the comparison.

The two-level fractional factorial designs have resolution V (Box, Hunter and Hunter 2005, Statistics for Experimenters,
chapter 6): no main effect and no two-factor interaction is confounded with another.
"""

import itertools
import math
import string
from collections.abc import Mapping, Sequence
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


BASE = "base"
NO_INTERACTION = "no interaction"
INTERACTION_SIGN = " x "
# The run of a factorial design that changes no factor.
NO_CHANGE = "run-1"
MOST_FACTORS = 8
# Number of factors -> position of a generated factor -> positions of the factors whose levels are multiplied.
GENERATORS: Mapping[int, Mapping[int, tuple[int, ...]]] = {
    5: {4: (0, 1, 2, 3)},
    6: {5: (0, 1, 2, 3, 4)},
    7: {6: (0, 1, 2, 3, 4, 5)},
    8: {6: (0, 1, 2, 3), 7: (0, 1, 4, 5)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One row of the comparison: the mean over some arms minus the mean over others, times a scale.

    Attributes:
        treatment: Label of the first side.
        control: Label of the second side.
        treatment_arms: Arms averaged on the first side; one in a plain A/B row.
        control_arms: Arms averaged on the second side; one in a plain A/B row.
        scale: Factor of the difference; 2 turns the contrast of an interaction into the interaction.
    """

    treatment: str
    control: str
    treatment_arms: tuple[str, ...]
    control_arms: tuple[str, ...]
    scale: float = 1.0

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms of the row, those of the treatment first."""
        return (*self.treatment_arms, *self.control_arms)

    @property
    def is_interaction(self) -> bool:
        """Whether the row is the interaction of two factors."""
        return self.control == NO_INTERACTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Configurations to train and how to compare them.

    Attributes:
        configurations: Hyperparameters by the name of the arm.
        contrasts: Rows of the comparison.
    """

    configurations: Mapping[str, Mapping[str, Value]]
    contrasts: tuple[Contrast, ...]


def contrast_with_first(arms: Sequence[str]) -> tuple[Contrast, ...]:
    """Return one contrast for each arm after the first, which is the control."""
    return tuple(
        Contrast(treatment=arm, control=arms[0], treatment_arms=(arm,), control_arms=(arms[0],)) for arm in arms[1:]
    )


def make_one_at_a_time_design(base: Mapping[str, Value], changes: Mapping[str, Value], space: SearchSpace) -> Design:
    """Return the base and one variant per factor, each of which is compared with the base.

    Args:
        base: Hyperparameters of the base configuration.
        changes: Second level of each factor.
        space: Space of the configurations; decides which conditional parameters apply.

    Raises:
        UserInputError: If the base has no value of a factor, or the same value as `changes`.
    """
    _check_changes(base, changes)
    names = {name: f"{name}={value}" for name, value in changes.items()}
    configurations = {BASE: dict(base)}
    configurations |= {names[f]: _change(base, {f: value}, space) for f, value in changes.items()}
    return Design(configurations=configurations, contrasts=contrast_with_first([BASE, *names.values()]))


def make_factorial_design(base: Mapping[str, Value], changes: Mapping[str, Value], space: SearchSpace) -> Design:
    """Return a two-level factorial design, with one contrast per factor and one per pair of factors.

    An arm is named after the factors that it changes: "run-1" changes none, "run-ac" the first and the third. The contrast
    of a pair is its interaction: the effect of one factor at the second level of the other, minus its effect at the first.

    Args:
        base: Hyperparameters of the base configuration.
        changes: Second level of each of the 2 to `MOST_FACTORS` factors.
        space: Space of the configurations; decides which conditional parameters apply.

    Raises:
        UserInputError: As in `make_one_at_a_time_design`, and for another number of factors.
    """
    _check_changes(base, changes)
    factors = list(changes)
    runs = make_factorial_runs(factors)
    configurations = {
        run: _change(base, {factor: changes[factor] for factor in changed}, space) for run, changed in runs.items()
    }
    labels = {factor: (f"{factor}={changes[factor]}", f"{factor}={base[factor]}") for factor in factors}
    return Design(configurations=configurations, contrasts=make_factorial_contrasts(labels))


def make_factorial_runs(factors: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the runs of a two-level factorial design: the factors at their second level, by the name of the run.

    The first run, `NO_CHANGE`, has none. With five or more factors it is the regular fraction of resolution V.

    Args:
        factors: names of the 2 to `MOST_FACTORS` factors.

    Raises:
        UserInputError: for another number of factors.
    """
    if not 2 <= len(factors) <= MOST_FACTORS:
        raise UserInputError(f"a factorial design must have 2 to {MOST_FACTORS} factors, but got {len(factors)}")
    return {
        _name_run(run): tuple(factor for factor, sign in zip(factors, run, strict=True) if sign > 0)
        for run in _list_runs(len(factors))
    }


def make_factorial_contrasts(labels: Mapping[str, tuple[str, str]]) -> tuple[Contrast, ...]:
    """Return one contrast per factor, then one per pair of factors, over the runs of `make_factorial_runs`.

    Args:
        labels: of each factor's second and first level, by its name.

    Raises:
        UserInputError: as in `make_factorial_runs`.
    """
    factors = list(labels)
    runs = make_factorial_runs(factors)
    signs = {f: {run: 1 if f in changed else -1 for run, changed in runs.items()} for f in factors}
    contrasts = [_make_contrast(*labels[f], signs[f]) for f in factors]
    contrasts += [
        _make_contrast(
            f"{f}{INTERACTION_SIGN}{g}", NO_INTERACTION, {run: signs[f][run] * signs[g][run] for run in runs}, scale=2.0
        )
        for f, g in itertools.combinations(factors, 2)
    ]
    return tuple(contrasts)


def _list_runs(num_factors: int) -> list[tuple[int, ...]]:
    """Return each arm's levels, -1 for the base's and +1 for the other; the base comes first."""
    generated = GENERATORS.get(num_factors, {})
    free = [i for i in range(num_factors) if i not in generated]
    runs = []
    for levels in itertools.product((-1, 1), repeat=len(free)):
        run = dict(zip(free, levels, strict=True))
        for factor, parents in generated.items():
            # This sign keeps the base (all factors at -1) in the design.
            run[factor] = math.prod(run[i] for i in parents) * (-1) ** (len(parents) + 1)
        runs.append(tuple(run[i] for i in range(num_factors)))
    return runs


def _name_run(run: Sequence[int]) -> str:
    changed = "".join(letter for letter, sign in zip(string.ascii_lowercase, run, strict=False) if sign > 0)
    return f"run-{changed}" if changed else NO_CHANGE


def _make_contrast(treatment: str, control: str, signs: Mapping[str, int], scale: float = 1.0) -> Contrast:
    return Contrast(
        treatment=treatment,
        control=control,
        treatment_arms=tuple(name for name, sign in signs.items() if sign > 0),
        control_arms=tuple(name for name, sign in signs.items() if sign < 0),
        scale=scale,
    )


def _change(base: Mapping[str, Value], changes: Mapping[str, Value], space: SearchSpace) -> dict[str, Value]:
    """Return the base with `changes`, without conditional parameters that no longer apply."""
    changed = {**base, **changes}
    conditions = {p.name: p.condition for p in space.parameters if p.condition is not None}
    known = dict(space.fixed) | changed
    return {name: value for name, value in changed.items() if name not in conditions or conditions[name].holds(known)}


def _check_changes(base: Mapping[str, Value], changes: Mapping[str, Value]) -> None:
    for name, value in changes.items():
        if name not in base:
            raise UserInputError(f"design.changes names {name!r}, but design.base has no value of it")
        if base[name] == value:
            raise UserInputError(f"design.changes must change {name}, but it is {value!r} in design.base too")
