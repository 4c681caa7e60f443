"""Generate the reference of docs/commands.md from the command line: `python -m docs.command_reference`.

Names, help texts and defaults are read off the functions in `study.cli`, as Typer reads them.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args

from typer import Context
from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from docs.reference_pages import build_page, join_words, wrap, write_page
from study.cli import app

PAGE, MODULE = "commands.md", "command_reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An argument or an option of a command.

    Attributes:
        name: Of the parameter of the command's function.
        kind: Its type.
        info: How Typer shows it.
        default: `inspect.Parameter.empty` for one that is required.
    """

    name: str
    kind: Any
    info: ArgumentInfo | OptionInfo
    default: Any

    @property
    def is_option(self) -> bool:
        """Whether it is an option."""
        return isinstance(self.info, OptionInfo)

    @property
    def is_repeatable(self) -> bool:
        """Whether it takes several values."""
        return "list" in str(self.kind)

    @property
    def label(self) -> str:
        """As in a usage line: "STUDY", "--json", "--not-worse / --better" or "--to PATH"."""
        if not self.is_option:
            return str(self.info.metavar)
        # Typer stores the first name as the default of the option, for which there is another place here.
        named = [name for name in (self.info.default, *(self.info.param_decls or ())) if isinstance(name, str)]
        option = next((name for name in named if name.startswith("--")), f"--{self.name.replace('_', '-')}")
        return option.replace("/", " / ") if self.kind is bool else f"{option} {self._describe_value()}"

    @property
    def usage(self) -> str:
        """An argument as in a usage line: in brackets unless it is required, with dots if it may be repeated."""
        dots = "..." if self.is_repeatable else ""
        return f"{self.label}{dots}" if self.default is inspect.Parameter.empty else f"[{self.label}{dots}]"

    def describe(self) -> str:
        """Return its help text, with range, environment variable and default where there are any."""
        facts = [self._describe_range()]
        if isinstance(self.info.envvar, str):
            facts.append(f"environment variable `{self.info.envvar}`")
        if self.kind is not bool and self.default not in (inspect.Parameter.empty, None, ""):
            value = self.default.value if isinstance(self.default, Enum) else self.default
            facts.append(f"default `{value}`")
        found = "; ".join(filter(None, facts))
        return " ".join(f"{self.info.help or ''} {f'({found})' if found else ''}".split())

    def _describe_value(self) -> str:
        choices = _find_choices(self.kind)
        if choices is not None:
            return "|".join(str(choice.value) for choice in choices)
        words = {"float": "NUMBER", "int": "NUMBER", "Path": "PATH"}
        return next((shown for word, shown in words.items() if word in str(self.kind)), "TEXT")

    def _describe_range(self) -> str:
        low, high = self.info.min, self.info.max
        if low is not None and high is not None:
            return f"{low:g} to {high:g}"
        return "" if low is None else f"at least {low:g}"


def _find_choices(kind: Any) -> type[Enum] | None:
    """Return the enumeration in a type such as `list[ReportFormat] | None`; None if there is none."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind
    return next(filter(None, map(_find_choices, get_args(kind))), None)


def list_commands() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the name and the function of every command, in the order of the code."""
    for command in app.registered_commands:
        if isinstance(command, CommandInfo) and command.callback is not None:
            yield command.name or command.callback.__name__.replace("_", "-"), command.callback


def list_given(command: Callable[..., Any]) -> list[Given]:
    """Return the arguments and options of a command."""
    found = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if parameter.annotation is Context:
            continue
        kind, *notes = get_args(parameter.annotation)
        info = next(note for note in notes if isinstance(note, ArgumentInfo | OptionInfo))
        found.append(Given(name=name, kind=kind, info=info, default=parameter.default))
    return found


def build_command(name: str, command: Callable[..., Any]) -> str:
    """Return the Markdown of a command: usage, what it does, its arguments and its options."""
    given = list_given(command)
    usage = " ".join(["study", name, *(one.usage for one in given if not one.is_option)])
    options = " [OPTIONS]" if any(one.is_option for one in given) else ""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    lines = [wrap(f"- `{one.label}`: {one.describe()}", "  ") for one in given]
    about = "\n\n".join(wrap(paragraph) for paragraph in paragraphs)
    return f"## study {name}\n\n```\n{usage}{options}\n```\n\n{about}\n\n" + "\n".join(lines)


def build_reference() -> str:
    """Return the reference of all commands in Markdown."""
    commands = list(list_commands())
    links = join_words([f"[{name}](#study-{name})" for name, _ in commands], "and")
    return "\n\n".join([wrap(f"Commands: {links}."), *(build_command(*command) for command in commands)])


if __name__ == "__main__":
    write_page(PAGE, build_page(PAGE, MODULE, build_reference()))
