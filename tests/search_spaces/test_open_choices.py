"""Backbones other than the choices of the space: names with the prefix of a library, and custom functions."""

import pytest

from search_spaces.designs import split_into_arms
from search_spaces.errors import UserInputError
from search_spaces.space_tables import load_space


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
