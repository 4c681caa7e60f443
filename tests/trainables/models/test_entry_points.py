"""Backbones that installed packages bring under names of their own."""

from importlib.metadata import EntryPoint

import pytest
import torch

from search_spaces import extensions
from search_spaces.space_tables import load_space
from trainables.models import catalog


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with the backbone "mylab-small" is installed."""
    entry = EntryPoint("mylab-small", "tests.trainables.models.own_backbones:build", catalog.ENTRY_POINTS)
    monkeypatch.setattr(
        extensions, "_read_entry_points", lambda group, _: (entry,) if group == catalog.ENTRY_POINTS else ()
    )
    catalog.find_backbone.cache_clear()


@pytest.mark.usefixtures("installed")
def test_a_backbone_of_an_installed_package_has_its_short_name() -> None:
    found = catalog.find_backbone("mylab-small")
    assert found.name == "mylab-small"
    assert found.construct({"width": 4}, 3)(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert list(extensions.list_entry_points(catalog.ENTRY_POINTS)) == ["mylab-small"]
    narrowed = load_space("transfer_learning").with_range("backbone", ["resnet18", "mylab-small"])
    assert narrowed["backbone"].check("mylab-small") == "mylab-small"


def test_the_package_of_an_extension_is_found_by_its_name_or_its_module() -> None:
    assert extensions.find_package("pytest", "console_scripts") == "pytest"
    assert extensions.find_package("timm:resnet10t", catalog.ENTRY_POINTS) == "timm"
    assert extensions.find_package("pytest:main", catalog.ENTRY_POINTS) == ""
    assert extensions.find_package("resnet18", catalog.ENTRY_POINTS) == ""
