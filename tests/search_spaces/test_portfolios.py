"""Portfolios: valid configurations of every arm, moved into narrower ranges with the numbers."""

import pytest

from search_spaces.designs import split_into_arms
from search_spaces.portfolios import PORTFOLIOS, Recipe, fit_recipe
from search_spaces.space import CategoricalParameter, FloatParameter, IntParameter, SearchSpace
from search_spaces.space_tables import load_space

SPACE = load_space("transfer_learning")


@pytest.mark.parametrize("optimizer", PORTFOLIOS)
def test_recipes_are_configurations_of_every_arm_without_cutmix_and_class_weights(optimizer: str) -> None:
    assert 2 <= len(PORTFOLIOS[optimizer]) <= 4
    for arm in split_into_arms(SPACE, "backbone"):
        for recipe in PORTFOLIOS[optimizer]:
            fitted = fit_recipe(recipe, arm.space, {})
            assert arm.space.check(fitted.hyperparameters) == fitted.hyperparameters
            assert (fitted.hyperparameters["cutmix_probability"], fitted.hyperparameters["class_weighting"]) == (
                0,
                "none",
            )
            assert fitted.source
            for name, value in recipe.values.items():
                assert fitted.hyperparameters[name] == value or any(text.startswith(name) for text in fitted.moved)


def test_values_outside_of_the_space_are_moved_with_the_numbers() -> None:
    recipe = Recipe(source="test", values={"max_lr": 0.01, "weight_decay": 0.0, "backbone_lr_ratio": 0.1})
    space = SPACE.with_range("max_lr", [0.02, 0.5]).with_fixed({"backbone_lr_ratio": 0.5})
    fitted = fit_recipe(recipe, space, {})
    assert fitted.hyperparameters["max_lr"] == 0.02
    assert set(fitted.moved) == {"max_lr 0.01 -> 0.02", "weight_decay 0 -> 1e-06", "backbone_lr_ratio 0.1 -> 0.5"}


def test_what_a_recipe_leaves_open_has_the_value_of_the_study_or_the_middle() -> None:
    space = SearchSpace(
        name="test",
        parameters=(
            FloatParameter(name="momentum", low=0.8, high=0.95),
            IntParameter(name="max_epochs", low=2, high=6),
            CategoricalParameter(name="interpolation", choices=("bilinear", "bicubic")),
            FloatParameter(name="own", low=0.0, high=1.0),
        ),
    )
    fitted = fit_recipe(Recipe(source="test", values={}), space, {"momentum": 0.9, "max_epochs": 10})
    assert fitted.hyperparameters == {"momentum": 0.9, "max_epochs": 6, "interpolation": "bilinear", "own": 0.5}
    assert isinstance(fitted.hyperparameters["max_epochs"], int)
