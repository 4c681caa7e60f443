"""The generated pages are those that the code generates today, and list everything."""

import pytest
import typer
from pydantic import Field

from docs import command_reference, spec_reference
from docs.reference_pages import FOLDER, build_page
from study.cli import app
from study.spec.sections import Section


class ExampleSpec(Section):
    """[example]: about the section.

    `one` is the first; `two` is after it. It goes on. Without a key,
    this goes on as well.
    This is about the section, too.
    """

    one: int = Field(default=3, ge=1)
    two: str | None = None
    three: bool


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


def test_a_docstring_is_divided_among_keys() -> None:
    docs = spec_reference.read_docs(ExampleSpec, "example")
    assert docs.intro == "About the section. This is about the section, too."
    assert docs.keys == {
        "one": "`one` is the first; `two` is after it. It goes on. Without a key, this goes on as well."
    }
    assert docs.see == {"two": "one"}


def test_a_key_is_shown_with_its_bounds_and_default() -> None:
    text = spec_reference.build_section("example", ExampleSpec, {"three": "The third."})
    assert "### example.one\n\n*whole number, at least 1; default `3`*\n\n`one` is the first" in text
    assert "### example.two\n\n*text; optional*\n\nSee [one](#exampleone)." in text
    assert "### example.three\n\n*true or false; required*\n\nThe third." in text


@pytest.mark.parametrize("written", [{}, {"three": "a", "one": "b"}, {"three": "a", "four": "b"}])
def test_a_key_that_is_described_nowhere_or_twice_is_refused(written: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"three|one|four"):
        spec_reference.build_section("example", ExampleSpec, written)
