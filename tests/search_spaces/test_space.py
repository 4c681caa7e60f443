"""Spaces: inclusive bounds, conditional parameters, conversion to Optuna and back; configurations and fingerprints."""

import json
import pickle

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from search_spaces.config import TrialConfig
from search_spaces.designs import POOLED_ARM, split_into_arms
from search_spaces.distributions import suggest_hyperparameters, to_distribution
from search_spaces.errors import UserInputError
from search_spaces.settings import DEFAULTS
from search_spaces.space import CategoricalParameter, Condition, FloatParameter, IntParameter, SearchSpace
from search_spaces.space_tables import load_space, space_names

optuna.logging.set_verbosity(optuna.logging.WARNING)
SPACE_NAMES = space_names()


def ask(space: SearchSpace, seed: int) -> dict[str, float | int | str | bool]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return suggest_hyperparameters(space, study.ask())


@pytest.mark.parametrize("name", SPACE_NAMES)
@pytest.mark.parametrize("seed", range(20))
def test_every_suggestion_is_valid_in_its_space(name: str, seed: int) -> None:
    space = load_space(name)
    chosen = ask(space, seed)
    assert space.check(chosen) == chosen


@pytest.mark.parametrize("name", SPACE_NAMES)
def test_every_parameter_has_the_same_values_in_optuna(name: str) -> None:
    for parameter in load_space(name).parameters:
        distribution = to_distribution(parameter)
        for field in set(parameter.__slots__) & {"low", "high", "log", "choices"}:
            assert getattr(distribution, field) == getattr(parameter, field)


def test_int_bounds_are_inclusive_on_both_sides() -> None:
    space = SearchSpace(name="s", parameters=(IntParameter(name="n", low=1, high=3),))
    seen = {ask(space, seed)["n"] for seed in range(60)}
    assert seen == {1, 2, 3}
    assert space.check({"n": 3}) == {"n": 3}
    with pytest.raises(UserInputError, match="1 <= n <= 3"):
        space.check({"n": 4})


def test_conditional_parameter_is_absent_where_it_does_not_apply() -> None:
    space = load_space("transfer_learning")
    seen = {(c["class_weighting"], "class_weight_strength" in c) for c in (ask(space, s) for s in range(60))}
    assert seen == {("none", False), ("inverse_frequency", True), ("group", True)}


def test_conditional_parameter_is_refused_where_it_does_not_apply() -> None:
    space = load_space("transfer_learning")
    chosen = next(c for c in (ask(space, s) for s in range(60)) if c["class_weighting"] == "none")
    with pytest.raises(UserInputError, match="does not apply"):
        space.check({**chosen, "class_weight_strength": 0.5})


def test_fixing_the_parent_drops_the_child_that_cannot_apply() -> None:
    space = load_space("transfer_learning").with_fixed({"class_weighting": "none"})
    assert "class_weight_strength" not in space.names
    kept = load_space("transfer_learning").with_fixed({"class_weighting": "group"})
    assert "class_weight_strength" in kept.names
    assert all("class_weight_strength" in ask(kept, seed) for seed in range(5))


def test_fixing_a_child_that_cannot_apply_is_refused() -> None:
    with pytest.raises(UserInputError, match="applies only where class_weighting"):
        load_space("transfer_learning").with_fixed({"class_weighting": "none", "class_weight_strength": 0.5})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbone_lr_ratio": 3.0}, "backbone_lr_ratio <= 1.0 must hold, but got 3.0"),
        ({"backbone": "resnet81"}, "did you mean 'resnet18'"),
        ({"max_lrr": 0.1}, "did you mean 'max_lr'"),
        ({"max_lr": "high"}, "must be a number"),
        ({"max_lr": True}, "must be a number"),
    ],
)
def test_fixed_value_outside_the_space_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        load_space("transfer_learning").with_fixed(values)  # type: ignore[arg-type]


def test_range_may_narrow_but_not_widen() -> None:
    space = load_space("transfer_learning").with_range("max_lr", [0.01, 0.1])
    assert all(0.01 <= float(ask(space, seed)["max_lr"]) <= 0.1 for seed in range(20))
    with pytest.raises(UserInputError, match="max_lr"):
        space.with_range("max_lr", [0.001, 0.1])
    with pytest.raises(UserInputError, match=r"\[low, high\]"):
        space.with_range("max_lr", [0.02])


def test_condition_must_name_an_earlier_parameter() -> None:
    child = FloatParameter(name="c", low=0, high=1, condition=Condition(parent="p", values=(1,)))
    with pytest.raises(UserInputError, match="does not come before"):
        SearchSpace(name="s", parameters=(child, CategoricalParameter(name="p", choices=(1, 2))))


def test_arms_share_the_space_and_differ_in_the_factor() -> None:
    arms = split_into_arms(load_space("transfer_learning"), "backbone")
    assert [arm.name for arm in arms] == ["resnet18", "resnet50"]
    for arm in arms:
        chosen = ask(arm.space, 3)
        assert chosen["backbone"] == arm.name
    assert len({arm.space.names for arm in arms}) == 1


def test_no_factor_is_one_pooled_arm() -> None:
    (arm,) = split_into_arms(load_space("transfer_learning"), None)
    assert arm.name == POOLED_ARM
    assert "backbone" in arm.space.names


@pytest.mark.parametrize(
    ("factor", "message"), [("bakbone", "did you mean 'backbone'"), ("max_lr", "must be a categorical")]
)
def test_impossible_factor_is_refused(factor: str, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        split_into_arms(load_space("transfer_learning"), factor)


names = st.text(st.characters(categories=["Ll"]), min_size=1, max_size=6)
values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53), st.text(max_size=8), st.booleans()
)


@settings(max_examples=60, deadline=None)
@given(
    hyperparameters=st.dictionaries(names, values, max_size=5),
    fixed=st.dictionaries(names, values, max_size=5),
    seed=st.integers(0, 2**31),
)
def test_config_goes_to_json_and_back_with_the_same_fingerprint(
    hyperparameters: dict[str, float | int | str | bool], fixed: dict[str, float | int | str | bool], seed: int
) -> None:
    fixed = {k: v for k, v in fixed.items() if k not in hyperparameters}
    config = TrialConfig(arm="a", seed=seed, hyperparameters=hyperparameters, fixed=fixed)
    for back in (TrialConfig.from_json(config.canonical_json()), pickle.loads(pickle.dumps(config))):
        assert back == config
        assert back.fingerprint == config.fingerprint
        assert back.canonical_json() == config.canonical_json()


def test_fingerprints_stay_those_of_the_first_release() -> None:
    config = TrialConfig(
        arm="resnet18",
        seed=7,
        hyperparameters={"max_lr": 0.05, "backbone": "resnet18", "label_smoothing": 1e-05, "cutmix_probability": 0.0},
        fixed={"max_epochs": 6, "channels_last": True, "weights": "none", "weighted_group": "", "image_size": 32},
    )
    assert (config.fingerprint, config.configuration_fingerprint) == ("e9620f835456556c", "cfdc7a7974832b9c")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"arm": "a", "seed": 1, "hyperparameters": {}}',
        '{"arm": "a", "seed": 1, "hyperparameters": {}, "fixed": {}, "x": 1}',
        '{"arm": "a", "seed": 1.5, "hyperparameters": {}, "fixed": {}}',
        '{"arm": "a", "seed": 1, "hyperparameters": {"x": null}, "fixed": {}}',
        '{"arm": "a", "seed": 1, "hyperparameters": {"x": 1}, "fixed": {"x": 2}}',
    ],
)
def test_other_json_is_not_a_configuration(text: str) -> None:
    with pytest.raises(ValueError, match="TrialConfig"):
        TrialConfig.from_json(text)


def test_a_configuration_by_hand_has_the_declared_defaults_and_every_setting_enters_the_fingerprint() -> None:
    plain = TrialConfig(arm="a", seed=1, hyperparameters={}, fixed={"batch_size": 32})
    assert plain["optimizer"] == DEFAULTS["optimizer"] == "sgd"
    assert plain["batch_size"] == 32
    given = TrialConfig(arm="a", seed=1, hyperparameters={}, fixed={"batch_size": 32, "optimizer": "sgd"})
    assert given.fingerprint != plain.fingerprint, "what is written out does not depend on a default"
    varied = TrialConfig(arm="a", seed=1, hyperparameters={"optimizer": "adamw"}, fixed={})
    assert varied["optimizer"] == varied.get("optimizer", "none") == "adamw"
    assert TrialConfig.from_json(given.canonical_json()) == given


def test_fingerprint_depends_on_seed_and_values_but_not_on_the_order_of_keys() -> None:
    one = TrialConfig(arm="a", seed=1, hyperparameters={"x": 1.0, "y": 2}, fixed={})
    assert one.fingerprint == TrialConfig(arm="a", seed=1, hyperparameters={"y": 2, "x": 1.0}, fixed={}).fingerprint
    assert one.fingerprint != one.with_seed(2).fingerprint
    assert one.configuration_fingerprint == one.with_seed(2).configuration_fingerprint
    assert one.fingerprint != TrialConfig(arm="a", seed=1, hyperparameters={"x": 1.5, "y": 2}, fixed={}).fingerprint


def test_config_is_immutable() -> None:
    config = TrialConfig(arm="a", seed=1, hyperparameters={"x": 1.0}, fixed={})
    with pytest.raises(TypeError):
        config.hyperparameters["x"] = 2.0  # type: ignore[index]


@pytest.mark.parametrize("fold", ["4/3", "1", "1/0", "a/b"])
def test_a_fold_beyond_its_number_is_refused(fold: str) -> None:
    config = TrialConfig(arm="a", seed=0, hyperparameters={}, fixed={})
    with pytest.raises((UserInputError, ValidationError)):
        TrialConfig.from_json(json.dumps(config.to_dict() | {"fold": fold}))
