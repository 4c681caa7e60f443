"""`search.start` and `search.prior`: the portfolio as default, custom configurations, and one message for what is wrong."""

from typing import Any

import pytest

from search_spaces.errors import UserInputError
from search_spaces.portfolios import PORTFOLIOS
from study.spec.reading import validate_spec
from study.spec.starts import describe_starts, list_starts
from study.spec.study_spec import StudySpec

START = {
    **{"max_lr": 0.05, "backbone_lr_ratio": 0.3, "cutmix_probability": 0.0, "class_weighting": "none"},
    **{"interpolation": "bicubic", "weight_decay": 1e-4, "label_smoothing": 0.0},
}


def make_spec(weights: str = "imagenet", **search: Any) -> StudySpec:
    data = {"name": "s", "data": {"source": "planted"}, "model": {"weights": weights}, "train": {"image_size": 32}}
    return validate_spec({**data, "search": {"max_epochs": 6, **search}}, where="test")


def test_fine_tuning_starts_with_the_portfolio_of_the_optimizer() -> None:
    spec = make_spec()
    for arm in spec.arms():
        starts = list_starts(spec, arm)
        assert [start.source for start in starts] == [recipe.source for recipe in PORTFOLIOS["sgd"]]
        for start in starts:
            assert arm.space.check(start.hyperparameters) == start.hyperparameters
    adamw = spec.model_copy(update={"train": spec.train.model_copy(update={"optimizer": "adamw"})})
    assert list_starts(adamw, adamw.arms()[0])[0].source.startswith("fastai")
    assert len(describe_starts(spec)) == 3


def test_each_arm_of_optimizers_has_the_portfolio_of_its_own() -> None:
    spec = make_spec(factor="optimizer", fixed={"backbone": "resnet18"})
    assert [list_starts(spec, arm)[0].source.split()[0] for arm in spec.arms()] == ["Li", "fastai"]


def test_a_pooled_search_tries_each_recipe_with_each_backbone() -> None:
    spec = make_spec(allocation="pooled")
    (arm,) = spec.arms()
    starts = list_starts(spec, arm)
    assert [start.hyperparameters["backbone"] for start in starts] == ["resnet18", "resnet50"] * 3
    assert len({str(start.hyperparameters) for start in starts}) == 6
    assert [sentence.partition(":")[0] for sentence in describe_starts(spec)] == [arm.name] * 3


def test_a_start_with_a_backbone_that_is_not_searched_is_refused() -> None:
    """Optuna would refuse it at the first suggestion, when the study exists."""
    (arm,) = make_spec(allocation="pooled").arms()
    start = {**list_starts(make_spec(allocation="pooled"), arm)[0].hyperparameters, "backbone": "timm:convnext_atto"}
    with pytest.raises(UserInputError, match=r"backbone has no level 'timm:convnext_atto'"):
        make_spec(allocation="pooled", start=[start]).arms()


def test_values_outside_of_the_ranges_are_moved_and_said() -> None:
    spec = make_spec(ranges={"max_lr": [0.02, 0.3]})
    assert any("max_lr 0.01 -> 0.02" in sentence for sentence in describe_starts(spec))
    assert all(start.hyperparameters["max_lr"] == 0.02 for start in list_starts(spec, spec.arms()[0]))


def test_a_recipe_that_says_no_more_in_the_ranges_is_left_out_and_said() -> None:
    spec = make_spec(ranges={"max_lr": [0.01, 0.3], "weight_decay": [1e-5, 1e-3]})
    one, ten = list_starts(spec, spec.arms()[0])
    assert (one.hyperparameters["backbone_lr_ratio"], ten.hyperparameters["backbone_lr_ratio"]) == (1.0, 0.1)
    said, _ = describe_starts(spec)
    assert "; left out, because it equals this one in these ranges: Kolesnikov" in said
    assert said.endswith("(max_lr 0.003 -> 0.01, weight_decay 0 -> 1e-05)")
    # A moved weight decay alone is no reason: this learning rate is the recipe's own.
    kept = make_spec(ranges={"max_lr": [0.001, 0.3], "weight_decay": [1e-5, 1e-3]})
    assert len(list_starts(kept, kept.arms()[0])) == 3


@pytest.mark.parametrize(
    "spec",
    [
        make_spec(weights="none"),
        make_spec(start=[]),
        make_spec().model_copy(update={"model": make_spec().model.model_copy(update={"tuning": "probe"})}),
    ],
    ids=["from scratch", "none wanted", "head alone"],
)
def test_no_portfolio_where_it_does_not_apply(spec: StudySpec) -> None:
    assert [list_starts(spec, arm) for arm in spec.arms()] == [(), ()]


def test_ones_own_configurations_are_for_all_arms_or_for_the_level_that_they_name() -> None:
    spec = make_spec(start=[START, {**START, "backbone": "resnet50", "max_lr": 0.02}])
    rates = {arm.name: [start.hyperparameters["max_lr"] for start in list_starts(spec, arm)] for arm in spec.arms()}
    assert rates == {"resnet18": [0.05], "resnet50": [0.05, 0.02]}
    assert describe_starts(spec) == ()


def test_one_message_lists_everything_that_is_wrong() -> None:
    missing = {name: value for name, value in START.items() if name != "weight_decay"}
    start = [
        {**missing, "max_lr": 5.0, "momentun": 0.9},
        {**START, "class_weight_strength": 0.5},
        {**START, "backbone": "resnet34"},
    ]
    prior = {
        "max_lr": {"center": 2.0, "width": 0.5},
        "interpolation": {"center": 1, "width": 1},
        "lr": {"center": 1, "width": 2},
    }
    with pytest.raises(UserInputError) as raised:
        make_spec(start=start, prior=prior)
    for text in (
        "search.start 1: 0.001 <= max_lr <= 1.0 must hold, but got 5.0; the hyperparameter 'weight_decay' is missing",
        "no parameter 'momentun'",
        "search.start 2: class_weight_strength does not apply where class_weighting = 'none'",
        "search.start 3: no arm of the search has backbone = 'resnet34'",
        "search.prior.max_lr: 0.001 <= center <= 1 must hold, but got 2",
        "width > 1 must hold, but got 0.5",
        "search.prior.interpolation: a prior is for a number",
        "search.prior.lr: the search has no parameter 'lr'",
    ):
        assert text in str(raised.value), text


def test_settings_of_a_loop_of_ones_own_beside_a_network_do_not_disturb_the_portfolio() -> None:
    space = {
        "trainable": {"kind": "categorical", "choices": ["network", "json:JSONDecoder"]},
        "alpha": {"kind": "float", "low": 0.0, "high": 1.0},
        "max_lr": {"kind": "log", "low": 0.001, "high": 0.1},
        "backbone_lr_ratio": {"kind": "log", "low": 0.01, "high": 1.0},
        "weight_decay": {"kind": "log", "low": 1e-6, "high": 1e-2},
    }
    fixed = {
        **{"backbone": "resnet18", "class_weighting": "none", "cutmix_probability": 0.0, "label_smoothing": 0.0},
        "interpolation": "bicubic",
    }
    spec = make_spec(space=space, factor="trainable", fixed=fixed)
    starts = {arm.name: list_starts(spec, arm) for arm in spec.arms()}
    assert [start.hyperparameters["alpha"] for start in starts["network"]] == [0.5] * 3
    assert [len(found) for found in starts.values()] == [3, 0]


def test_given_configurations_have_no_start() -> None:
    data = {"name": "s", "data": {"source": "planted"}, "model": {"weights": "none"}}
    given = {"a": {**START, "backbone": "resnet18"}, "b": {**START, "backbone": "resnet50"}}
    with pytest.raises(UserInputError, match=r"given configurations are not searched, .* remove search\.start$"):
        validate_spec({**data, "configurations": given, "search": {"start": [START]}}, where="test")
    spec = validate_spec({**data, "configurations": given}, where="test")
    assert list_starts(spec, spec.arms()[0]) == ()


def test_an_unknown_key_of_a_prior_is_named_with_the_key_that_was_meant() -> None:
    with pytest.raises(UserInputError, match=r"unknown key 'search.prior.max_lr.centre' \(did you mean 'center'\?\)"):
        validate_spec(
            {
                "name": "x",
                "data": {"source": "planted"},
                "search": {"prior": {"max_lr": {"centre": 0.05, "width": 2.0}}},
            },
            where="test",
        )
