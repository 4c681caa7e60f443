"""Designs of experiments: the configurations to train, and the contrasts that are the rows of the comparison.

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
from search_spaces.space import SearchSpace

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
