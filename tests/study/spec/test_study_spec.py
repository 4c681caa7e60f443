"""Specs: presets are valid, overrides are part of the text, and the spec of a launched study can be read again."""

from pathlib import Path

import pytest

from search_spaces.errors import UserInputError
from study.cli_options import SpecArgument
from study.spec.reading import load_spec, parse_spec, preset_names


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_its_text_reads_back_equal(name: str) -> None:
    spec, text = load_spec(name)
    assert parse_spec(text, where=name) == spec
    assert len(spec.arms()) == 2


def test_help_of_the_command_line_names_every_preset() -> None:
    assert preset_names() == ("cifar10", "cifar10-cpu", "demo", "demo-loop", "frozen-or-not")
    (argument,) = SpecArgument.__metadata__  # type: ignore[attr-defined]
    assert argument.help == f"A TOML file, or a preset: {', '.join(preset_names())}."


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


@pytest.mark.parametrize(("part", "message"), [("1", "less than 1"), ("0", "greater than 0")])
def test_the_first_rung_is_a_part_of_a_trial(part: str, message: str) -> None:
    with pytest.raises(UserInputError, match=f"first_rung must be {message}"):
        load_spec("cifar10-cpu", [f"search.asha.first_rung={part}"])


def test_tf32_is_refused_for_the_arms_that_run_on_a_cpu() -> None:
    with pytest.raises(UserInputError, match=r"tf32 = true needs a GPU, but trials of resnet18, resnet50 run on a CPU"):
        load_spec("cifar10-cpu", ["train.tf32=true"])
    with pytest.raises(UserInputError, match=r"trials of resnet50 run on a CPU; set resources\.gpu, or tf32 to false"):
        load_spec("cifar10-cpu", ["train.tf32=true", "resources.gpu={resnet18=1, resnet50=0}"])
    with pytest.raises(UserInputError, match=r"trials of resnet18, resnet50 run on a CPU"):
        load_spec("cifar10-cpu", ["train.tf32=true", "resources.gpu=1", 'resources.device="cpu"'])
    assert load_spec("cifar10-cpu", ["train.tf32=true", "resources.gpu=1"])[0].train.tf32
    both = r"(?s)tf32 = true needs a GPU.*train\.deterministic = false needs a GPU, .* set resources\.gpu, or deterministic to"
    with pytest.raises(UserInputError, match=both):
        load_spec("cifar10-cpu", ["train.tf32=true", "train.deterministic=false"])


def test_accumulation_in_cuda_graphs_is_refused() -> None:
    with pytest.raises(UserInputError, match=r'train\.accumulate > 1 cannot be combined .* use "inductor" or "none"'):
        load_spec("cifar10-cpu", ["train.accumulate=2", 'train.compile="cuda_graphs"'])


def test_resources_per_arm() -> None:
    spec, _ = load_spec("cifar10-cpu", ["resources.gpu.resnet18=0.5", "resources.gpu.resnet50=1"])
    assert spec.resources.of_arm("gpu", "resnet18") == 0.5
    assert spec.resources.of_arm("gpu", "resnet50") == 1
    assert spec.resources.of_arm("cpu", "resnet50") == 1
    with pytest.raises(UserInputError, match="has no value for the arm 'resnet50'"):
        load_spec("cifar10-cpu", ["resources.gpu.resnet18=0.5"])


@pytest.mark.parametrize("override", ["1.5", "2", "{resnet18=0.5, resnet50=2}"])
def test_more_than_one_gpu_per_trial_is_refused(override: str) -> None:
    overrides = [f"resources.gpu={override}"]
    with pytest.raises(
        UserInputError, match=r"one GPU or a fraction of one, .* 0 <= resources.gpu <= 1 .* got (1.5|2)"
    ):
        load_spec("cifar10-cpu", overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.processes=2"], "needs as many CPUs, but resources.cpu is 1; raise it, or lower train.processes"),
        (["train.processes=2", "resources.gpu=1"], "needs as many GPUs, but resources.gpu is 1"),
        (["train.processes=2", "resources.gpu=3"], "as many as train.processes, .* got 3 for the arm"),
        (["train.processes=2", "train.batch_size=3", "resources.cpu=2"], "needs batches of 4 images or more"),
        (["train.processes=2", "train.compile=inductor", "resources.cpu=2"], "cannot be combined with train.compile"),
    ],
)
def test_processes_need_their_devices_and_their_images(overrides: list[str], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        load_spec("cifar10-cpu", overrides)
    spec, _ = load_spec("cifar10-cpu", ["train.processes=2", "resources.gpu={resnet18=2, resnet50=2}"])
    assert {spec.processes(arm) for arm in spec.arms()} == {(2,)}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search.epoch_cost={resnet18=1.0, resnet5=2.0}"], r"names the arm 'resnet5' \(did you mean 'resnet50'"),
        (["search.epoch_cost={resnet18=1.0}"], "search.epoch_cost has no value for the arm 'resnet50'"),
        (["search.epoch_cost={resnet18=1.0, resnet50=0.0}"], "greater than 0"),
        (
            ["search.epoch_cost={resnet18=1.0, resnet50=2.0}", "search.device_seconds=100"],
            "is for a budget of search.num_trials",
        ),
        (
            ["confirm.intervals=anytime", "confirm.looks=[2, 6]"],
            "infinite below 4 seeds here, but confirm.looks begins at 2",
        ),
        (
            ["confirm.intervals=moderated"],
            "needs 4 rows or more that are compared with one control, but the comparison has 1;",
        ),
        (["resources.autoscaling=true"], "needs resources.max_concurrent"),
        (["resources.timeout_seconds=0"], "greater than 0"),
    ],
)
def test_cost_autoscaling_and_timeout_are_checked(overrides: list[str], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        load_spec("cifar10-cpu", overrides)


MISTAKES = """
name = "several"
sead = 3
[data]
source = "planted"
num_imagse = 100
aspect = "squish"
[train]
batch_size = 1
[search]
ranges = { max_lrr = [0.1, 0.2], cutmix_probability = [0.0, 1.5] }
fixed = { interpolation = "bicubik" }
[resources]
gpu = { resnet18 = "one", resnet50 = 1 }
[confirm]
looks = [6, 5]
"""


def test_all_mistakes_are_listed_in_one_message_each_on_its_line(tmp_path: Path) -> None:
    file = tmp_path / "several.toml"
    file.write_text(MISTAKES)
    with pytest.raises(UserInputError) as refused:
        load_spec(str(file), ["train.image_size", "seed.x=1"])
    first, *lines = str(refused.value).splitlines()
    assert first == f"{file} has 11 problems:"
    expected = (
        "--set takes key=value, such as search.num_trials=8, but got 'train.image_size'",
        "seed",
        "unknown key 'data.num_imagse' (did you mean 'num_images'?)",
        "data.aspect must be 'crop', 'pad' or 'squash', but got 'squish' (did you mean 'squash'?)",
        "train.batch_size must be greater than or equal to 2, but got 1",
        "confirm.looks: looks must be increasing numbers of seeds, such as [6, 10, 20], but got [6, 5]",
        "resources.gpu.resnet18 must be a valid number",
        "unknown key 'sead' (did you mean 'seed'?)",
        "search.ranges: there is no parameter or setting 'max_lrr' (did you mean 'max_lr'?)",
        "search.ranges: 0.0 <= cutmix_probability <= 1.0 must hold, but got 1.5",
        "search.fixed: interpolation has no level 'bicubik' (did you mean 'bicubic'?)",
    )
    assert [text for text in expected if not any(line.startswith(f"- {text}") for line in lines)] == []
    assert len(lines) == len(expected)


def test_a_conflict_with_a_value_that_is_refused_anyway_is_not_reported() -> None:
    """Whatever the momentum of [train] is, that of search.fixed is in the wrong place."""
    overrides = ["train.momentum=7", "search.fixed.momentum=0.8"]
    with pytest.raises(UserInputError, match=r"^demo: train\.momentum must be less"):
        load_spec("demo", overrides)
    with pytest.raises(UserInputError) as refused:
        load_spec("demo", [*overrides, "resources.autoscaling=true"])
    assert str(refused.value).splitlines()[0] == "demo has 2 problems:"


def test_conflicts_are_listed_beside_an_unknown_source() -> None:
    with pytest.raises(UserInputError) as refused:
        load_spec("demo", ["data.source=plantet", "search.ranges.max_lrr=[0.1, 0.2]"])
    assert "there is no source 'plantet' (did you mean 'planted'?)" in str(refused.value)
    assert "no parameter or setting 'max_lrr' (did you mean 'max_lr'?)" in str(refused.value)


def test_problems_of_several_configurations_are_listed_together() -> None:
    given = {"a": {"backbone": "resnet18"}, "b": {"backbone": "resnet50", "max_lr": 9.0}}
    with pytest.raises(UserInputError) as refused:
        load_spec("demo", ["search.fixed={}", "search.ranges={}"], configurations=given)
    assert "the configuration 'a': the hyperparameter 'max_lr' is missing" in str(refused.value)
    assert "the configuration 'b': 0.001 <= max_lr <= 1.0 must hold, but got 9.0" in str(refused.value)
