"""The order of packages and topics in pyproject.toml, which import-linter checks, names each of them."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What needs no place in the order: the entry points of the packages themselves, and data.
UNORDERED = {"study.presets"}


def test_every_topic_has_a_place_in_the_order_of_imports() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    layers = next(found["layers"] for found in contracts if found["type"] == "layers")
    ordered = {name.strip() for layer in layers for name in layer.split(":")}
    topics = {
        f"{package}.{path.stem}"
        for package in ("study", "analysis", "trainables")
        for path in (ROOT / package).iterdir()
        if path.suffix in ("", ".py") and not path.name.startswith("__")
    }
    assert topics - UNORDERED == ordered - {"search_spaces"}


def test_no_two_files_share_a_name_unless_a_pattern_asks_for_it() -> None:
    packages = ("study", "analysis", "trainables", "search_spaces")
    paths = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    names = [path.name for path in paths if path.name not in ("__init__.py", "values.py", "render.py", "registry.py")]
    assert len(names) == len(set(names))


def test_no_two_public_functions_or_classes_share_a_name() -> None:
    owners: dict[str, set[str]] = {}  # files: overloads of one function share its name
    for package in ("study", "analysis", "trainables", "search_spaces"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                    owners.setdefault(node.name, set()).add(str(path.relative_to(ROOT)))
    assert {name: found for name, found in owners.items() if len(found) > 1} == {}
