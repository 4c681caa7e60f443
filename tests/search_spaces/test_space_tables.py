"""Spaces as TOML tables: the shipped space is the published one, and everything wrong with a table is listed at once."""

import tomllib

import pytest

from search_spaces.designs import split_into_arms
from search_spaces.errors import UserInputError
from search_spaces.space import CategoricalParameter, Condition, FloatParameter, IntParameter, SearchSpace
from search_spaces.space_tables import load_space, read_parameters, space_names

PUBLISHED = SearchSpace(
    name="transfer_learning",
    parameters=(
        CategoricalParameter(name="backbone", choices=("resnet18", "resnet50"), entry_points="abstudy.backbones"),
        FloatParameter(name="max_lr", low=1e-3, high=1.0, log=True),
        FloatParameter(name="backbone_lr_ratio", low=1e-3, high=1.0, log=True),
        FloatParameter(name="cutmix_probability", low=0.0, high=1.0),
        CategoricalParameter(name="class_weighting", choices=("none", "inverse_frequency", "group")),
        FloatParameter(
            name="class_weight_strength",
            low=0.0,
            high=1.0,
            condition=Condition(parent="class_weighting", values=("inverse_frequency", "group")),
        ),
        CategoricalParameter(name="interpolation", choices=("bicubic", "bilinear")),
        FloatParameter(name="weight_decay", low=1e-6, high=1e-2, log=True),
        FloatParameter(name="label_smoothing", low=0.0, high=0.2),
    ),
)


def test_the_shipped_space_is_that_of_the_studies_before_it_was_a_file() -> None:
    assert space_names() == ("transfer_learning",)
    assert load_space("transfer_learning") == PUBLISHED


def test_a_space_that_does_not_exist_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        UserInputError, match=r"no search space 'transfer_lerning' \(did you mean 'transfer_learning'\?\)"
    ):
        load_space("transfer_lerning")


def test_every_kind_of_parameter() -> None:
    text = """
    rate = { kind = "log", low = 1e-3, high = 1 }
    size = { kind = "int", low = 2, high = 4 }
    kind = { kind = "categorical", choices = ["a", "b", "c"] }
    strength = { kind = "float", low = 0, high = 1.5, when = { kind = ["a", "c"] } }
    """
    expected = (
        FloatParameter(name="rate", low=1e-3, high=1.0, log=True),
        IntParameter(name="size", low=2, high=4),
        CategoricalParameter(name="kind", choices=("a", "b", "c")),
        FloatParameter(name="strength", low=0.0, high=1.5, condition=Condition(parent="kind", values=("a", "c"))),
    )
    assert read_parameters(tomllib.loads(text)) == (expected, [])


WRONG = """
a = 3
b = { kind = "lag", low = 0, high = 1 }
c = { low = 0, high = 1 }
d = { kind = "float", low = 0, hihg = 1 }
e = { kind = "float", low = "x", high = true }
f = { kind = "int", low = 1.5, high = 3 }
g = { kind = "log", low = 0.0, high = 1.0 }
h = { kind = "float", low = 2.0, high = 1.0 }
i = { kind = "categorical", choices = [] }
j = { kind = "categorical", choices = ["x", "x"] }
k = { kind = "categorical", choices = ["x", "y"] }
l = { kind = "float", low = 0.0, high = 1.0, when = { k = ["z"] } }
m = { kind = "float", low = 0.0, high = 1.0, when = { n = ["x"] } }
n = { kind = "float", low = 0.0, high = 1.0 }
o = { kind = "float", low = 0.0, high = 1.0, when = { n = [0.5] } }
p = { kind = "float", low = 0.0, high = 1.0, when = "k" }
q = { kind = "float", low = 0.0, high = 1.0, when = { zz = ["x"] } }
"""


def test_everything_wrong_is_listed() -> None:
    kept, problems = read_parameters(tomllib.loads(WRONG))
    assert [parameter.name for parameter in kept] == ["k", "n"]
    message = "; ".join(problems)
    expected = (
        "a: must be a table such as",
        "b: kind must be one of 'float', 'log', 'int', 'categorical', but got 'lag' (did you mean 'log'?)",
        "c: kind must be one of 'float', 'log', 'int', 'categorical', but has none",
        "d: unknown key 'hihg' (did you mean 'high'?)",
        "d: high is missing",
        "e: low must be a number, but got 'x'",
        "e: high must be a number, but got True",
        "f: low must be a whole number, but got 1.5",
        "g: a log range needs low > 0, but got 0.0",
        "h: low <= high must hold, but got [2.0, 1.0]",
        "i: choices must be a list of values, but got []",
        "j needs distinct choices",
        "l: when must list values of k (x, y), but got ['z']",
        "m: when names 'n', which stands after it or cannot be used",
        "o: when names 'n', which is a range of numbers; it must be categorical",
        "p: when must be a table such as { parent = [values] }, but got 'k'",
        "q: when names 'zz', which does not exist",
    )
    assert [text for text in expected if text not in message] == []
    assert len(problems) == len(expected)
    assert read_parameters({}) == ((), ["there is no parameter"])


def test_names_with_a_prefix_are_levels() -> None:
    levels = ["resnet18", "timm:convnext_atto", "mylab.nets:build"]
    space = load_space("transfer_learning").with_range("backbone", levels)
    assert [arm.name for arm in split_into_arms(space, "backbone")] == levels
    fixed = load_space("transfer_learning").with_fixed({"backbone": "torchvision:vit_b_16"})
    assert dict(fixed.fixed)["backbone"] == "torchvision:vit_b_16"


@pytest.mark.parametrize("name", ["resnet19", "timm:", ":build"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UserInputError, match="backbone has no level"):
        load_space("transfer_learning").with_range("backbone", ["resnet18", name])


def test_a_network_without_its_prefix_is_answered_with_both() -> None:
    with pytest.raises(UserInputError, match="such as torchvision:mobilenet_v3_small and timm:mobilenet_v3_small"):
        load_space("transfer_learning").with_range("backbone", ["resnet18", "mobilenet_v3_small"])
