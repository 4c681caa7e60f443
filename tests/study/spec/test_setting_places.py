"""Settings of the recipe as factors, as searched parameters and in designs: from the spec to the configurations of the trials."""

import contextlib
import json
import tomllib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError
from search_spaces.extensions import TRUST
from search_spaces.settings import DEFAULTS, find_epoch
from study.inputs.preparation import fixed_settings
from study.scheduling.search_director import SearchDirector
from study.spec.reading import load_spec, parse_spec
from study.spec.setting_places import SETTINGS
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook
from tests.built_values import BASE
from tests.study.simulated import drive
from tests.study.spec.test_own_loops import EXAMPLES, LOOP
from trainables.data.splits import Splits
from trainables.records.record import TrialState

INDICES = np.arange(4)
SPLITS = Splits(train=INDICES, search=INDICES, confirm=INDICES, test=INDICES, data_fingerprint="")
DESIGN = """
name = "x"
data.source = "digits"
train.batch_size = 64
[design]
kind = "{kind}"
base = {base}
changes = {changes}
"""


def load(*overrides: str) -> StudySpec:
    return load_spec("cifar10-cpu", overrides)[0]


def make_configs(spec: StudySpec) -> list[TrialConfig]:
    """Return the configurations of the search's trials, of which every one completes."""
    book = MemoryBook()
    drive(SearchDirector(book, spec, fixed_settings(spec, SPLITS, "none")), lambda *_: 0.5)
    return [record.config for record in book.of_stage("search")]


def toml(values: dict[str, Value] | list[Value]) -> str:
    if isinstance(values, dict):
        return "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in values.items()) + "}"
    return json.dumps(values)


@pytest.mark.parametrize("name", [n for n, s in SETTINGS.items() if s.section])
def test_every_setting_can_be_the_factor_in_one_line_of_a_spec(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv(TRUST, str(EXAMPLES))
    setting, levels = SETTINGS[name], choose_levels(name)
    ranges = [] if setting.choices else [f"search.ranges.{name}={toml(levels)}"]
    # TF32 is for trials that hold a GPU, and each process of a trial has a CPU.
    devices = {
        "tf32": ["resources.gpu=1"],
        "deterministic": ["resources.gpu=1"],
        "processes": ["resources.cpu=16"],
    }.get(name, [])
    spec = load(f"search.factor={name}", *ranges, *devices)
    assert spec.factor == name
    fixed = fixed_settings(spec, SPLITS, "none")
    configs = [TrialConfig(arm=a.name, seed=0, hyperparameters=a.space.middle(), fixed=fixed) for a in spec.arms()]
    assert [c.hyperparameters[name] for c in configs] == levels
    assert setting.choices or {type(c.hyperparameters[name]) for c in configs} == {setting.field.annotation}
    expected = {*DEFAULTS, "weights", "data"} - {name}
    assert [set(c.fixed) for c in configs] == [expected] * len(levels)
    assert len({c.configuration_fingerprint for c in configs}) == len(levels)


def choose_levels(name: str) -> list[Value]:
    """Return two valid values of a setting, or all its choices."""
    setting = SETTINGS[name]
    if setting.choices:
        return list(setting.choices)
    if name == "trainable":
        return ["network", LOOP]
    found: dict[Value, None] = {}
    words = ("", "cats", "7")
    for value in words if setting.field.annotation is str else (8, 16, 1, 2, 0.5, 0.25, 0.75):
        with contextlib.suppress(UserInputError):
            found[setting.check(value)] = None
    return list(found)[:2]


def test_the_levels_name_the_arms_and_numbers_say_what_they_are() -> None:
    def names(*overrides: str) -> list[str]:
        return [arm.name for arm in load(*overrides).arms()]

    assert names("search.factor=precision") == ["bf16", "fp16", "fp32"]
    assert names("search.factor=batch_size", "search.ranges.batch_size=[32, 128]") == [
        "batch_size=32",
        "batch_size=128",
    ]
    assert names("search.factor=tuning") == ["full", "last_block", "probe"]
    assert names("search.factor=max_lr", "search.ranges.max_lr=[0.01, 0.1]") == ["max_lr=0.01", "max_lr=0.1"]


def test_a_range_searches_a_setting_and_other_lists_are_choices() -> None:
    ranges = ("search.ranges.momentum=[0.8, 0.95]", "search.ranges.batch_size=[16, 32, 64]")
    spec = load("search.num_trials=20", "search.start=[]", "search.sampler=random", *ranges)
    configs = make_configs(spec)
    momentum = [float(c.hyperparameters["momentum"]) for c in configs]
    assert all(0.8 <= value <= 0.95 for value in momentum)
    assert len(set(momentum)) == len(configs)
    assert {c.hyperparameters["batch_size"] for c in configs} == {16, 32, 64}
    assert {c.arm for c in configs} == {"resnet18", "resnet50"}
    assert not {"momentum", "batch_size"} & set(configs[0].fixed)


def test_arms_with_other_numbers_of_epochs_train_them_and_have_rungs_of_their_own() -> None:
    spec = load("search.num_trials=8", "search.factor=max_epochs", "search.ranges.max_epochs=[4, 10]")
    assert [spec.max_epochs(arm) for arm in spec.arms()] == [4, 10]
    book = MemoryBook()
    drive(SearchDirector(book, spec, fixed_settings(spec, SPLITS, "none")), lambda _, epoch: 0.1 * epoch)
    assert {(r.config.arm, len(r.epochs)) for r in book} == {("max_epochs=4", 4), ("max_epochs=10", 10)}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search.factor=batch_size"], "it needs its levels; add search.ranges.batch_size"),
        (["search.factor=bach_size"], r"no parameter or setting 'bach_size' \(did you mean 'batch_size'\?\)"),
        (["search.factor=momentum", "search.ranges.momentum=[0.9]"], "needs two levels"),
        (["search.ranges.momentum=[0.5, 1.5]"], "momentum must be less than 1, but got 1.5"),
        (["search.ranges.batch_size=[16.5, 32]"], "batch_size must be a valid integer, but got 16.5"),
        (["search.ranges.precision=['bf16', 'fp8']"], "precision must be 'bf16'.*, but got 'fp8'"),
        (["search.factor=weights"], "weights has one value in a study"),
        (["search.ranges.aspect=['crop', 'squash']"], "data.aspect determines the images and splits"),
        (["search.ranges.ring_swap_probability=[0.0, 1.5]"], "ring_swap_probability must be less than or equal to 1"),
        (["search.ranges.hard_fraction=[-0.5, 0.5]"], "hard_fraction must be greater than or equal to 0, but got -0.5"),
        (["search.ranges.hard_from_epoch=[0, 3]"], "hard_from_epoch must be greater than or equal to 1, but got 0"),
        (["search.fixed.momentum=0.8"], "set to one value by train.momentum; move it there"),
        (["search.factor=interpolation"], "search.fixed sets to 'bicubic'; remove it there"),
    ],
)
def test_settings_that_cannot_vary_so_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        load(*overrides)


def test_epochs_may_vary_within_an_arm_whose_rungs_are_parts_of_each_trial() -> None:
    spec = load("search.ranges.max_epochs=[4, 8]", "search.num_trials=16", "search.asha.first_rung=0.5")
    book = MemoryBook()
    drive(SearchDirector(book, spec, fixed_settings(spec, SPLITS, "none")))
    assert len({record.config.whole("max_epochs") for record in book}) > 2
    pruned = {(r.config.whole("max_epochs"), len(r.epochs)) for r in book if r.state is TrialState.PRUNED}
    assert len(pruned) > 1
    # Half of the way from the peak of the learning rate, at .3, to the end.
    assert all(epochs == find_epoch(0.65, most) for most, epochs in pruned)


def write_design(tmp_path: Path, kind: str, changes: dict[str, Value], base: dict[str, Value] = BASE) -> StudySpec:  # type: ignore[assignment]
    file = tmp_path / "design.toml"
    file.write_text(DESIGN.format(kind=kind, base=toml(base), changes=toml(changes)))
    return load_spec(str(file))[0]


def test_a_factorial_of_three_settings(tmp_path: Path) -> None:
    """The base takes the values of [train] and [search] that it does not give."""
    spec = write_design(tmp_path, "factorial", {"batch_size": 32, "precision": "fp32", "max_epochs": 3})
    assert len(spec.contrasts()) == 6
    found = [tuple(c.hyperparameters[n] for n in ("batch_size", "precision", "max_epochs")) for c in make_configs(spec)]
    assert sorted(found) == sorted((b, p, e) for b in (64, 32) for p in ("bf16", "fp32") for e in (10, 3))


def test_one_setting_at_a_time(tmp_path: Path) -> None:
    spec = write_design(tmp_path, "one_at_a_time", {"momentum": 0, "max_lr": 0.1}, {**BASE, "momentum": 0.8})
    base, momentum, max_lr = make_configs(spec)
    assert (base.arm, momentum.arm, max_lr.arm) == ("base", "momentum=0.0", "max_lr=0.1")
    assert [c.hyperparameters["momentum"] for c in (base, momentum, max_lr)] == [0.8, 0.0, 0.8]
    with pytest.raises(UserInputError, match=r"design.changes: momentum must be less than 1, but got 2"):
        write_design(tmp_path, "one_at_a_time", {"momentum": 2})


def test_a_given_configuration_takes_the_constant_value_of_a_setting_that_only_another_one_sets() -> None:
    given = {"a": {**BASE, "batch_size": 16}, "b": BASE}
    spec = load_spec("cifar10-cpu", configurations=given)[0]
    assert [c.hyperparameters["batch_size"] for c in make_configs(spec)] == [16, 128]


OWN = """
name = "own"
data.source = "digits"
[search]
factor = "precision"
num_trials = 6
fixed = { backbone = "resnet18", interpolation = "bicubic", class_weighting = "none", backbone_lr_ratio = 1.0 }
[search.space]
max_lr = { kind = "log", low = 0.01, high = 5.0 }
weight_decay = { kind = "categorical", choices = [0.0, 1e-4] }
batch_size = { kind = "int", low = 8, high = 16 }
ring_swap_probability = { kind = "float", low = 0.0, high = 0.5 }
hard_fraction = { kind = "float", low = 0.0, high = 0.25 }
hard_group = { kind = "categorical", choices = ["rigid", "deformable"] }
precision = { kind = "categorical", choices = ["bf16", "fp32"] }
momentum = { kind = "float", low = 0.5, high = 0.9, when = { precision = ["fp32"] } }
cutmix_probability = { kind = "float", low = 0.0, high = 0.5 }
label_smoothing = { kind = "float", low = 0.0, high = 0.1 }
"""


def test_a_space_of_the_spec_s_own_over_any_setting(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    spec, text = load_spec(str(file))
    assert parse_spec(text, where="text") == spec
    configs = make_configs(spec)
    assert {c.arm for c in configs} == {"bf16", "fp32"}
    assert all(8 <= c.whole("batch_size") <= 16 and c.word("backbone") == "resnet18" for c in configs)
    assert all(0 <= c.number(n) <= 0.5 for c in configs for n in ("ring_swap_probability", "hard_fraction"))
    assert {c.word("hard_group") for c in configs} <= {"rigid", "deformable"}
    searched = {arm.name: arm.space.names for arm in spec.arms()}
    assert ("momentum" in searched["fp32"], "momentum" in searched["bf16"]) == (True, False)
    with pytest.raises(UserInputError, match=r"the arm 'bf16' lack label_smoothing; add them to search.space"):
        load_with(tmp_path, OWN.replace("label_smoothing =", "flip_probability ="))


def load_with(tmp_path: Path, text: str) -> StudySpec:
    file = tmp_path / "changed.toml"
    file.write_text(text)
    return load_spec(str(file))[0]


def test_everything_wrong_with_an_own_space_is_listed(tmp_path: Path) -> None:
    text = OWN.replace("high = 0.9,", "high = 1.9,").replace("max_lr =", "max_lrr =").replace('"int", low = 8', '"int"')
    with pytest.raises(UserInputError) as refused:
        load_with(tmp_path, text)
    _, *lines = str(refused.value).splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "- search.space: batch_size: low is missing",
        "- search.space: there is no parameter or setting 'max_lrr'",
        "- search.space: momentum must be less than 1, but got 1.9",
    ]


def test_a_file_of_a_space_becomes_part_of_the_study(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text(OWN.split("[search.space]")[1])
    fixed = "search.fixed={backbone='resnet18', interpolation='bicubic', class_weighting='none', backbone_lr_ratio=1.0}"
    spec, text = load_spec(
        "demo",
        [
            f"search.space={file}",
            "search.factor=precision",
            "search.ranges={}",
            fixed,
            "search.epoch_cost={bf16=1.0, fp32=1.0}",
        ],
    )
    file.unlink()
    assert parse_spec(text, where="text").search_space() == spec.search_space()
    assert "momentum" in spec.search_space().names
    with pytest.raises(UserInputError, match=r"search.space: .*space.toml cannot be read"):
        load_spec("demo", [f"search.space={file}"])


def test_a_searched_padding_beside_light_is_searched() -> None:
    """It was fixed at 0, a value that the preset never had, and the range was dropped without a word."""
    data = load_spec("demo")[0].model_dump(exclude_none=True)
    space = tomllib.loads((resources.files("search_spaces") / "transfer_learning.toml").read_text(encoding="utf-8"))
    space["crop_padding"] = {"kind": "int", "low": 0, "high": 8}
    data["search"]["space"], data["train"]["augmentation"] = space, "light"
    arms = StudySpec.model_validate(data).arms()
    assert all("crop_padding" in [p.name for p in arm.space.parameters] for arm in arms)
