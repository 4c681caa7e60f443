"""Portfolios: published recipes for fine-tuning, which a search tries before it suggests anything.

They are copied from their sources and were fixed before any curve of this project was compared with them; none is ever tuned.
A study writes the portfolio that it was launched with into its spec.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

from search_spaces.config import Value
from search_spaces.space import CategoricalParameter, IntParameter, Parameter, SearchSpace, middle_value


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A published recipe.

    Attributes:
        source: that it is copied from.
        values: of the parameters that the source gives.
    """

    source: str
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A configuration that an arm tries first.

    Attributes:
        source: the published recipe, or the place in the spec.
        hyperparameters: valid in the arm's space, whose fixed values are included.
        moved: for each value of a recipe that the space does not have: "weight_decay 0 -> 1e-06".
        repeated_by: later recipes that, once moved into the ranges, say no more than this one and are left out.
    """

    source: str
    hyperparameters: Mapping[str, Value]
    moved: tuple[str, ...] = ()
    repeated_by: tuple[str, ...] = ()

    def repeats(self, earlier: "Start") -> bool:
        """Whether this recipe differs from an earlier one, if at all, in values alone that were moved."""
        mine, others = self.hyperparameters, earlier.hyperparameters
        differing = {name for name in {*mine, *others} if mine.get(name) != others.get(name)}
        return differing <= {text.partition(" ")[0] for text in self.moved}

    @property
    def changes(self) -> str:
        """What was moved into the ranges, and which recipes are left out because they repeat this one there."""
        moved = f", moved into the ranges: {', '.join(self.moved)}" if self.moved else ""
        return moved + "".join(f"; left out, because it equals this one in these ranges: {r}" for r in self.repeated_by)


_FILE = resources.files("search_spaces") / "recipes" / "portfolios.toml"
# By optimizer, in the order in which they are tried.
PORTFOLIOS: Mapping[str, tuple[Recipe, ...]] = MappingProxyType(
    {name: tuple(Recipe(**one) for one in found) for name, found in tomllib.loads(_FILE.read_text("utf-8")).items()}
)

# Values of what a recipe leaves open, before those that a study has without a search.
PLAIN: Mapping[str, Value] = MappingProxyType(
    {"cutmix_probability": 0.0, "mixup_probability": 0.0, "label_smoothing": 0.0}
)


def fit_recipe(recipe: Recipe, space: SearchSpace, defaults: Mapping[str, Value]) -> Start:
    """Return a recipe as a configuration of a space; a value outside of a range is moved to its nearer end.

    Args:
        recipe: published.
        space: of an arm.
        defaults: values of parameters that neither the recipe nor `PLAIN` gives; others get the middle of their range.
    """
    known = {**defaults, **PLAIN, **recipe.values}
    chosen: dict[str, Value] = dict(space.fixed)
    for parameter in space.parameters:
        if parameter.applies(chosen):
            chosen[parameter.name] = _fit(parameter, known.get(parameter.name))
    moved = tuple(
        f"{name} {value:g} -> {chosen[name]:g}"
        for name, value in recipe.values.items()
        if name in chosen and chosen[name] != value
    )
    return Start(source=recipe.source, hyperparameters=chosen, moved=moved)


def _fit(parameter: Parameter, value: Value | None) -> Value:
    if isinstance(parameter, CategoricalParameter):
        return value if value is not None and value in parameter.choices else parameter.choices[0]
    if value is None or isinstance(value, str | bool):
        return middle_value(parameter)
    inside = min(max(value, parameter.low), parameter.high)
    return int(inside) if isinstance(parameter, IntParameter) else float(inside)
