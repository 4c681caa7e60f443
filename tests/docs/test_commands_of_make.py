"""The targets of `make` that pages, workflows and comments name exist, and the workflows use actions by their hash."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.docs.markdown import ROOT

TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FOLDERS = (".github", "analysis", "benchmarks", "docs", "examples", "search_spaces", "study", "tests", "trainables")
SUFFIXES = {".md", ".py", ".toml", ".yml", ".yaml", ".ipynb"}
# `make check test` in code, a line that is a command, or the step of a workflow.
NAMED = re.compile(r"`make((?: [a-z][\w-]*)+)|^(?:\s*- run: )?make((?: [a-z][\w-]*)+)\s*(?:#|$)", re.MULTILINE)


def find_unknown(text: str) -> list[str]:
    """Return the targets that a text names and that the Makefile lacks."""
    return sorted({name for names in NAMED.findall(text) for name in " ".join(names).split()} - TARGETS)


def list_files() -> Iterator[Path]:
    yield from ROOT.glob("*.*")
    for folder in FOLDERS:
        yield from (ROOT / folder).rglob("*.*")


def test_named_targets_exist() -> None:
    files = [f for f in list_files() if f.suffix in SUFFIXES and f.is_file() and f != Path(__file__)]
    unknown = {str(file): find_unknown(file.read_text(encoding="utf-8")) for file in [*files, ROOT / ".ci" / "run"]}
    assert {file: names for file, names in unknown.items() if names} == {}


def test_unknown_targets_are_found() -> None:
    assert {"install", "demo", "test", "check", "format", "coverage"} <= TARGETS
    text = "make dist  # Now\n`make tests`, `make test`, to\nmake sense of it,\n      - run: make audit demo"
    assert find_unknown(text) == ["audit", "dist", "tests"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_have_no_rights_by_default_and_pinned_actions(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert content["permissions"] == {}
    actions = [step["uses"] for job in content["jobs"].values() for step in job["steps"] if "uses" in step]
    assert actions
    assert [action for action in actions if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)] == []
