"""The generated pages are those that the code generates today, and list everything."""

import pytest
import typer
from pydantic import Field

from docs import command_reference, spec_reference
from docs.reference_pages import FOLDER, build_page
from search_spaces.settings import Section
from study.cli import app


class ExampleSpec(Section):
    """[example]: about the section."""

    one: int = Field(default=3, ge=1)
    """The first.
    It goes on."""
    two: str | None = None
    """The second."""
    three: bool
    """The third."""


@pytest.mark.parametrize("module", [spec_reference, command_reference], ids=lambda module: module.PAGE)
def test_the_page_is_current(module) -> None:  # type: ignore[no-untyped-def]
    current = build_page(module.PAGE, module.MODULE, module.build_reference())
    assert (FOLDER / module.PAGE).read_text(encoding="utf-8") == current, f"run python -m docs.{module.MODULE}"


def test_every_option_is_listed() -> None:
    real = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    listed = dict(command_reference.list_commands())
    assert set(listed) == set(real)
    for name, command in listed.items():
        options = {given.label.split()[0] for given in command_reference.list_given(command) if given.is_option}
        parameters = [parameter for parameter in real[name].params if parameter.param_type_name == "option"]
        assert options == {opt for parameter in parameters for opt in parameter.opts} - {"--help"}


def test_a_key_is_shown_with_its_bounds_default_and_text() -> None:
    text = spec_reference.build_section("example", ExampleSpec)
    assert text.startswith("## [example]\n\nAbout the section.\n\n### example.one")
    assert "### example.one\n\n*whole number, at least 1; default `3`*\n\nThe first. It goes on." in text
    assert "### example.two\n\n*text; optional*\n\nThe second." in text
    assert "### example.three\n\n*true or false; required*\n\nThe third." in text


def test_a_key_without_a_text_is_refused() -> None:
    class Undescribed(ExampleSpec):
        four: bool = False

    with pytest.raises(ValueError, match=r"Undescribed\.four"):
        spec_reference.build_section("example", Undescribed)
