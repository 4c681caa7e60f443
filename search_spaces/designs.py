"""Designs: which configurations are run, and which contrasts between them are the rows of the comparison.

Two-level fractional factorial designs of resolution V: Box, Hunter and Hunter 2005, Statistics for Experimenters, chapter 6. No
effect of a factor or of a pair of factors is mixed up with another one.
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
MOST_FACTORS = 8
# Number of factors -> factors whose level is the product of those of earlier ones, by position.
GENERATORS: Mapping[int, Mapping[int, tuple[int, ...]]] = {
    5: {4: (0, 1, 2, 3)},
    6: {5: (0, 1, 2, 3, 4)},
    7: {6: (0, 1, 2, 3, 4, 5)},
    8: {6: (0, 1, 2, 3), 7: (0, 1, 4, 5)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One row of the comparison: the mean over some arms minus the mean over others.

    Attributes:
        treatment, control: what the two sides are called.
        treatment_arms, control_arms: the arms that are averaged; one each in a plain A/B row.
    """

    treatment: str
    control: str
    treatment_arms: tuple[str, ...]
    control_arms: tuple[str, ...]

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm of the row."""
        return (*self.treatment_arms, *self.control_arms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Configurations by the name of their arm, and the rows that compare them."""

    configurations: Mapping[str, Mapping[str, Value]]
    contrasts: tuple[Contrast, ...]


def contrast_with_first(arms: Sequence[str]) -> tuple[Contrast, ...]:
    """Return every later arm against the first, which is the control."""
    return tuple(
        Contrast(treatment=arm, control=arms[0], treatment_arms=(arm,), control_arms=(arms[0],)) for arm in arms[1:]
    )


def make_one_at_a_time_design(base: Mapping[str, Value], changes: Mapping[str, Value], space: SearchSpace) -> Design:
    """Return the base and, for each factor, the base with that factor changed, each against the base.

    Raises UserInputError for a factor that the base does not have, or whose other value is the base's.
    """
    _check_changes(base, changes)
    names = {name: f"{name}={value}" for name, value in changes.items()}
    configurations = {BASE: dict(base)}
    configurations |= {names[f]: _change(base, {f: value}, space) for f, value in changes.items()}
    return Design(configurations=configurations, contrasts=contrast_with_first([BASE, *names.values()]))


def make_factorial_design(base: Mapping[str, Value], changes: Mapping[str, Value], space: SearchSpace) -> Design:
    """Return the runs of a two-level design, and a contrast per factor and per pair of factors.

    Runs are called by the factors that they change: "run-1" changes none, "run-ac" the first and the third. The contrast of a
    pair is half the difference between the effects of one factor at the two levels of the other. Raises UserInputError as
    `make_one_at_a_time_design`, and for fewer than two factors or more than `MOST_FACTORS`.
    """
    _check_changes(base, changes)
    factors = list(changes)
    if not 2 <= len(factors) <= MOST_FACTORS:
        raise UserInputError(f"a factorial design has 2 to {MOST_FACTORS} factors, but got {len(factors)}")
    signs = {_name_run(run): run for run in _list_runs(len(factors))}
    configurations = {
        name: _change(base, {f: changes[f] for f, sign in zip(factors, run, strict=True) if sign > 0}, space)
        for name, run in signs.items()
    }
    contrasts = [
        _make_contrast(f"{f}={changes[f]}", f"{f}={base[f]}", {name: run[i] for name, run in signs.items()})
        for i, f in enumerate(factors)
    ]
    contrasts += [
        _make_contrast(
            f"{factors[i]} x {factors[j]}", NO_INTERACTION, {name: run[i] * run[j] for name, run in signs.items()}
        )
        for i, j in itertools.combinations(range(len(factors)), 2)
    ]
    return Design(configurations=configurations, contrasts=tuple(contrasts))


def _list_runs(num_factors: int) -> list[tuple[int, ...]]:
    """Return the runs' levels, -1 for the base's and +1 for the other, the run without a change first."""
    generated = GENERATORS.get(num_factors, {})
    free = [i for i in range(num_factors) if i not in generated]
    runs = []
    for levels in itertools.product((-1, 1), repeat=len(free)):
        run = dict(zip(free, levels, strict=True))
        for factor, parents in generated.items():
            # With the sign that leaves the base among the runs.
            run[factor] = math.prod(run[i] for i in parents) * (-1) ** (len(parents) + 1)
        runs.append(tuple(run[i] for i in range(num_factors)))
    return runs


def _name_run(run: Sequence[int]) -> str:
    changed = "".join(letter for letter, sign in zip(string.ascii_lowercase, run, strict=False) if sign > 0)
    return f"run-{changed or 1}"


def _make_contrast(treatment: str, control: str, signs: Mapping[str, int]) -> Contrast:
    return Contrast(
        treatment=treatment,
        control=control,
        treatment_arms=tuple(name for name, sign in signs.items() if sign > 0),
        control_arms=tuple(name for name, sign in signs.items() if sign < 0),
    )


def _change(base: Mapping[str, Value], changes: Mapping[str, Value], space: SearchSpace) -> dict[str, Value]:
    """Return the base with other values, and without what no longer applies then."""
    changed = {**base, **changes}
    conditions = {p.name: p.condition for p in space.parameters if p.condition is not None}
    known = dict(space.fixed) | changed
    return {name: value for name, value in changed.items() if name not in conditions or conditions[name].holds(known)}


def _check_changes(base: Mapping[str, Value], changes: Mapping[str, Value]) -> None:
    for name, value in changes.items():
        if name not in base:
            raise UserInputError(f"design.changes names {name!r}, of which design.base has no value")
        if base[name] == value:
            raise UserInputError(f"design.changes gives {name} the value that it has in design.base, {value!r}")
