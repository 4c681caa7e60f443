"""Portfolios: published recipes for fine-tuning, which a search tries before it suggests anything.

They are copied from their sources and were fixed before any curve of this project was compared with them; none is ever tuned.
A study writes the portfolio that it was launched with into its spec.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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


# By optimizer, in the order in which they are tried.
PORTFOLIOS: Mapping[str, tuple[Recipe, ...]] = MappingProxyType(
    {
        "sgd": (
            Recipe(
                source="Li et al. 2020, Rethinking the Hyperparameters for Fine-tuning (ICLR), the values of many studies",
                values={"max_lr": 0.01, "backbone_lr_ratio": 1.0, "weight_decay": 1e-4},
            ),
            Recipe(
                source="Caffe 2014, Fine-tuning CaffeNet for Style Recognition, ten times the rate in the new layer",
                values={"max_lr": 0.01, "backbone_lr_ratio": 0.1, "weight_decay": 5e-4},
            ),
            Recipe(
                source="Kolesnikov et al. 2020, Big Transfer (ECCV), BiT-HyperRule",
                values={"max_lr": 0.003, "backbone_lr_ratio": 1.0, "weight_decay": 0.0},
            ),
        ),
        "adamw": (
            Recipe(
                source="fastai 2, Learner.fine_tune, a hundredth of the head's rate in the first layers",
                values={"max_lr": 0.001, "backbone_lr_ratio": 0.01, "weight_decay": 0.01},
            ),
            Recipe(
                source="Liu et al. 2022, A ConvNet for the 2020s (CVPR), fine-tuning of ConvNeXt",
                values={"max_lr": 5e-5, "backbone_lr_ratio": 1.0, "weight_decay": 1e-8, "label_smoothing": 0.1},
            ),
        ),
    }
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
