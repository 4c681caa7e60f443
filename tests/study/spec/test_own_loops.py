"""Specs of custom training loops: their settings, their arms, and what is refused."""

from pathlib import Path

import pytest

from search_spaces.errors import UserInputError
from search_spaces.extensions import TRUST
from study.inputs.preparation import prepare
from study.spec.reading import load_spec
from study.spec.study_spec import StudySpec

EXAMPLES = Path(__file__).parents[3] / "examples" / "abstudy_example"
LOOP = "abstudy_example.loops:PixelRegression"
HEAD = """
name = "pixels"
[data]
source = "planted"
num_images = 160
options = { image_size = 24 }
[model]
weights = "none"
"""
SEARCH = f"""{HEAD}
[train]
image_size = 24
trainable = "{LOOP}"
[search]
factor = "penalty"
num_trials = 4
max_epochs = 3
[search.space]
penalty = {{ kind = "categorical", choices = ["l1", "l2"] }}
alpha = {{ kind = "log", low = 1e-5, high = 1e-1 }}
"""
BESIDE_A_NETWORK = f"""{HEAD}
[train]
image_size = 24
[search]
max_epochs = 3
[configurations.network]
backbone = "resnet18"
max_lr = 0.01
backbone_lr_ratio = 1.0
cutmix_probability = 0.0
class_weighting = "none"
interpolation = "bicubic"
weight_decay = 1e-4
label_smoothing = 0.0
momentum = 0.8
[configurations.pixels]
trainable = "{LOOP}"
penalty = "l2"
alpha = 1e-3
"""


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv(TRUST, str(EXAMPLES))


def read(text: str, folder: Path, *overrides: str) -> StudySpec:
    path = folder / "spec.toml"
    path.write_text(text, encoding="utf-8")
    return load_spec(str(path), list(overrides))[0]


def test_a_search_varies_the_settings_of_the_loop(tmp_path: Path) -> None:
    spec = read(SEARCH, tmp_path)
    assert [arm.name for arm in spec.arms()] == ["l1", "l2"]
    assert spec.arms()[0].space.names == ("alpha",)
    assert prepare(spec).fixed["trainable"] == LOOP


def test_choices_of_a_setting_can_be_given_without_a_space(tmp_path: Path) -> None:
    text = SEARCH.partition("[search.space]")[0]
    spec = read(text, tmp_path, 'search.ranges.penalty=["l1", "l2"]', "search.fixed.alpha=0.001")
    assert [arm.name for arm in spec.arms()] == ["l1", "l2"]
    assert dict(spec.arms()[1].space.fixed) == {"alpha": 0.001, "penalty": "l2"}


def test_a_loop_is_an_arm_beside_a_network(tmp_path: Path) -> None:
    spec = read(BESIDE_A_NETWORK, tmp_path)
    network, pixels = spec.arms()
    assert spec.trainables_of(network) == ("network",)
    assert spec.trainables_of(pixels) == (LOOP,)
    # What the other configuration sets of [train] is the constant value here.
    assert dict(pixels.space.fixed) == {"alpha": 1e-3, "momentum": 0.9, "penalty": "l2", "trainable": LOOP}
    assert dict(network.space.fixed)["momentum"] == 0.8
    assert "trainable" not in prepare(spec).fixed


def test_the_loop_is_a_factor(tmp_path: Path) -> None:
    spaces = """trainable = {{ kind = "categorical", choices = ["network", "{loop}"] }}
alpha = {{ kind = "log", low = 1e-5, high = 1e-1, when = {{ trainable = ["{loop}"] }} }}
penalty = {{ kind = "categorical", choices = ["l2"], when = {{ trainable = ["{loop}"] }} }}
"""
    network = {
        "backbone": '["resnet18"]',
        "backbone_lr_ratio": "[1.0]",
        "cutmix_probability": "[0.0]",
        "class_weighting": '["none"]',
        "interpolation": '["bicubic"]',
        "weight_decay": "[1e-4]",
        "label_smoothing": "[0.0]",
        "max_lr": "[0.01, 0.1]",
    }
    for name, choices in network.items():
        spaces += (
            f'{name} = {{{{ kind = "categorical", choices = {choices}, when = {{{{ trainable = ["network"] }}}} }}}}\n'
        )
    text = SEARCH.partition("[search.space]")[0].replace(f'trainable = "{LOOP}"', "").replace("penalty", "trainable")
    spec = read(f"{text}[search.space]\n{spaces.format(loop=LOOP)}", tmp_path)
    assert [arm.name for arm in spec.arms()] == ["network", LOOP]
    assert spec.arms()[1].space.names == ("alpha", "penalty")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.trainable='forest'", r"train\.trainable"),
        ("search.space.alhpa={kind='int', low=1, high=2}", r"does not read alhpa \(did you mean 'alpha'\?\)"),
        ("train.trainable='abstudy_example.loops:Forest'", r"'abstudy_example\.loops:Forest' cannot be imported"),
        (f"search.space.trainable={{kind='categorical', choices=['network', '{LOOP}']}}", "make it search.factor"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_trial(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        prepare(read(SEARCH, tmp_path, override))


def test_everything_that_cannot_be_imported_is_named_at_once(tmp_path: Path) -> None:
    wrong = (
        "train.trainable='abstudy_example.loops:Forest'",
        "data.source='abstudy_example.source:lod'",
        "data.options={}",
    )
    with pytest.raises(UserInputError) as refused:
        read(SEARCH, tmp_path, *wrong)
    for words in (
        "train.trainable: the trainable 'abstudy_example.loops:Forest'",
        "data.source: the function 'abstudy_",
    ):
        assert words in str(refused.value)


def test_settings_of_its_own_are_unknown_without_a_loop(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="there is no parameter or setting 'penalty'"):
        read(SEARCH.replace(f'trainable = "{LOOP}"', ""), tmp_path)
