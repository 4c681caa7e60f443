"""What the pages show exists: commands parse, specs are valid, links point at something, and excerpts are in their files."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from study.cli import app
from study.spec.reading import NO_CONFLICTS, load_spec, validate_spec
from tests.docs.markdown import FENCE, PAGES, ROOT, Block, list_anchors, list_blocks, list_links

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
# A block that begins with this comment is not a spec, or not a valid one by itself.
EXCERPT = "# excerpt"
FROM = re.compile(r"<!-- from (\S+) -->")
END_OF_COMMAND = {"&&", "||", ";", "|"}
LONGEST_LINE = 130


def find_commands(words: list[str]) -> Iterator[list[str]]:
    """Yield the arguments of every `study` in a line, also of one that another command runs or quotes."""
    for place, word in enumerate(words):
        if word == "study" or word.endswith("/study"):
            rest = words[place + 1 :]
            yield rest[: next((i for i, other in enumerate(rest) if other in END_OF_COMMAND), len(rest))]
        elif word.startswith("study "):
            yield from find_commands(shlex.split(word))


def read_commands(block: Block) -> list[list[str]]:
    """Return the arguments of every `study` in a block."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [command for line in lines for command in find_commands(shlex.split(line, comments=True))]


def find_problem(command: list[str]) -> str:
    """Return why the command line refuses a command, which is not run; "" if it does not."""
    name, *arguments = command
    if name not in COMMANDS:
        return f"there is no command {name!r}"
    try:
        COMMANDS[name].make_context(name, arguments)
    except Exception as error:  # Typer has its own exceptions or Click's, depending on its version.
        return str(getattr(error, "message", "")) or repr(error)
    return ""


def check_spec(text: str, folder: Path) -> None:
    """Raise UserInputError unless a text is a valid spec, or valid sections of one."""
    data = tomllib.loads(text)
    if "name" in data:
        path = folder / "spec.toml"
        path.write_text(text, encoding="utf-8")
        load_spec(str(path))
    else:
        validate_spec({**NO_CONFLICTS, **data}, where="excerpt")


def find_broken_links(page: Path) -> list[str]:
    """Return the links of a page that point at no file or no heading."""
    broken = []
    for target in list_links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_file() or (anchor and anchor not in list_anchors(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("block", list_blocks("sh"), ids=str)
def test_commands_are_those_of_the_command_line(block: Block) -> None:
    problems = {" ".join(command): find_problem(command) for command in read_commands(block)}
    assert not {command: problem for command, problem in problems.items() if problem}


def test_commands_are_found_and_refused() -> None:
    found = [command[0] for block in list_blocks("sh") for command in read_commands(block)]
    assert len(found) > 30
    assert set(found) >= {"init", "run", "compare", "intervene", "reproduce", "plan", "status"}
    assert list(find_commands(shlex.split("ray exec c.yaml --tmux 'study run a.toml' && .venv/bin/study list"))) == [
        ["run", "a.toml"],
        ["list"],
    ]
    assert find_problem(["run", "demo", "--name", "x"]) == ""
    assert "--nmae" in find_problem(["run", "demo", "--nmae", "x"])
    assert find_problem(["runs", "demo"])


@pytest.mark.parametrize("block", list_blocks("toml"), ids=str)
def test_specs_are_valid(block: Block, tmp_path: Path) -> None:
    if block.text.startswith(EXCERPT):
        tomllib.loads(block.text)
    else:
        check_spec(block.text, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        'name = "a"\n[data]\nsource = "digits"\n[train]\nimage_sizes = 32',
        "[train]\nimage_size = 4",
        "[trian]\nimage_size = 32",
    ],
)
def test_invalid_specs_are_found(text: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"image_size|trian"):
        check_spec(text, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_point_at_something(page: Path) -> None:
    assert find_broken_links(page) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# One [two]\n\n## One [two]\n")
    page = tmp_path / "a.md"
    page.write_text(
        "# A\n\n[a](b.md) [b](b.md#one-two) [c](b.md#two) ![d](c.png) [e](#a) [f](#b) [g](https://example.org)\n"
    )
    assert find_broken_links(page) == ["b.md#two", "c.png", "#b"]


@pytest.mark.parametrize("block", [b for b in list_blocks("python") if FROM.fullmatch(b.before)], ids=str)
def test_excerpts_of_code_are_in_their_files(block: Block) -> None:
    found = FROM.fullmatch(block.before)
    assert found
    assert block.text in (ROOT / found[1]).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_are_short(page: Path) -> None:
    text = FENCE.sub(lambda block: block[0] if block[1] else "", page.read_text(encoding="utf-8"))
    assert [line for line in text.splitlines() if len(line) > LONGEST_LINE and not line.startswith("|")] == []
