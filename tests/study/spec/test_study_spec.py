"""Specs: presets are valid, overrides are part of the text, and the spec of a launched study can be read again."""

import pytest

from search_spaces.errors import UserInputError
from study.spec.reading import load_spec, parse_spec, preset_names, with_overrides


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_its_text_reads_back_equal(name: str) -> None:
    spec, text = load_spec(name)
    assert parse_spec(text, where=name) == spec
    assert len(spec.arms()) == 2


def test_names_of_the_presets() -> None:
    assert preset_names() == ("cifar10", "cifar10-cpu", "demo")


def test_overrides_and_name_are_written_into_the_text() -> None:
    spec, text = load_spec(
        "demo", ["search.num_trials=4", "data.options.native_size=16", "model.weights=some/path"], name="other"
    )
    assert (spec.name, spec.search.num_trials, spec.model.weights) == ("other", 4, "some/path")
    assert parse_spec(text, where="text") == spec


def test_given_configurations_do_not_keep_the_cost_of_other_arms() -> None:
    values = dict(load_spec("demo")[0].search.fixed) | {
        "class_weighting": "none",
        "max_lr": 0.02,
        "backbone_lr_ratio": 1.0,
        "weight_decay": 1e-4,
    }
    spec, _ = load_spec("demo", configurations={"one": values, "other": {**values, "max_lr": 0.01}})
    assert [arm.name for arm in spec.arms()] == ["one", "other"]
    assert spec.search.epoch_cost is None


def test_override_of_a_value_as_if_it_were_a_section_is_refused() -> None:
    with pytest.raises(UserInputError, match="not a section"):
        load_spec("demo", ["seed.x=4"])


def test_first_rung_is_the_lr_peak_unless_given() -> None:
    spec, _ = load_spec("cifar10-cpu", ["search.max_epochs=10", "train.lr_peak_fraction=0.3"])
    assert spec.first_rung == 3
    later = with_overrides(spec, ["search.asha.first_rung=5"], "test")
    assert later.first_rung == 5
    with pytest.raises(UserInputError, match=r"1\.\.max_epochs"):
        with_overrides(spec, ["search.asha.first_rung=11"], "test")


def test_resources_per_arm() -> None:
    spec, _ = load_spec("cifar10-cpu", ["resources.gpu.resnet18=0.5", "resources.gpu.resnet50=1"])
    assert spec.resources.of_arm("gpu", "resnet18") == 0.5
    assert spec.resources.of_arm("gpu", "resnet50") == 1
    assert spec.resources.of_arm("cpu", "resnet50") == 1
    with pytest.raises(UserInputError, match="has no value for the arm 'resnet50'"):
        load_spec("cifar10-cpu", ["resources.gpu.resnet18=0.5"])


@pytest.mark.parametrize("override", ["1.5", "2", "{resnet18=0.5, resnet50=2}"])
def test_more_than_one_gpu_per_trial_is_refused_in_a_new_study_and_accepted_in_an_old_one(override: str) -> None:
    overrides = [f"resources.gpu={override}"]
    with pytest.raises(
        UserInputError, match=r"one GPU or a fraction of one, so 0 <= resources.gpu <= 1 .* got (1.5|2)"
    ):
        load_spec("cifar10-cpu", overrides)
    old = with_overrides(load_spec("cifar10-cpu")[0], overrides, "spec.toml")
    assert old.resources.of_arm("gpu", "resnet50") > 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search.epoch_cost={resnet18=1.0, resnet5=2.0}"], r"names the arm 'resnet5' \(did you mean 'resnet50'"),
        (["search.epoch_cost={resnet18=1.0}"], "must name every arm, but lacks resnet50"),
        (["search.epoch_cost={resnet18=1.0, resnet50=0.0}"], "greater than 0"),
        (
            ["search.epoch_cost={resnet18=1.0, resnet50=2.0}", "search.device_seconds=100"],
            "is for a budget of search.num_trials",
        ),
        (
            ["confirm.intervals=anytime", "confirm.looks=[2, 6]"],
            "infinite below 4 seeds here, but confirm.looks begins at 2",
        ),
        (["resources.autoscaling=true"], "needs resources.max_concurrent"),
        (["resources.timeout_seconds=0"], "greater than 0"),
    ],
)
def test_cost_autoscaling_and_timeout_are_checked(overrides: list[str], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        load_spec("cifar10-cpu", overrides)
