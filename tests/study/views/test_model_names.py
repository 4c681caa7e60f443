"""`study models` lists the names that a backbone may have."""

import pytest
from typer.testing import CliRunner

from search_spaces.errors import UserInputError
from study.cli import app
from study.views.model_names import list_model_names


def test_names_are_listed_by_library_and_pattern() -> None:
    assert list_model_names("torchvision", "convnext_t*") == ["torchvision:convnext_tiny"]
    assert "timm:convnext_atto" in list_model_names("timm", "convnext_a*")
    assert {"resnet18", "torchvision:vit_b_16", "timm:convnext_atto"} <= set(list_model_names("", "*"))
    shown = CliRunner().invoke(app, ["models", "torchvision", "vit_b*"])
    assert shown.output.split() == ["torchvision:vit_b_16", "torchvision:vit_b_32"]


def test_wrong_libraries_and_patterns_are_refused() -> None:
    with pytest.raises(UserInputError, match=r"no library 'tim' .*did you mean 'timm'"):
        list_model_names("tim", "*")
    with pytest.raises(UserInputError, match="no name matches 'convnext'"):
        list_model_names("torchvision", "convnext")
