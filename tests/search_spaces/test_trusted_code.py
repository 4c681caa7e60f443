"""Which modules a name in a spec may import: those of a trusted working folder, and no others."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from search_spaces.errors import UserInputError
from search_spaces.extensions import TRUST, load_object, trusting_code

GROUP = "abstudy.sources"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a module, a package without __init__.py, and files that have names of Python's modules."""
    (tmp_path / "trust_mine.py").write_text(
        "import shutil\nfrom pathlib import Path\nPath('imported').touch()\nvalue = 7\n"
    )
    (tmp_path / "trust_names").mkdir()
    (tmp_path / "trust_names" / "inner.py").write_text("value = 8\n")
    for name in ("json.py", "sys.py", "built-in", "frozen", "os.py"):
        (tmp_path / name).write_text("raise SystemExit\n")
    library = tmp_path / ".venv" / "site-packages"
    library.mkdir(parents=True)
    (library / "trust_installed.py").write_text("value = 9\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(library)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(TRUST, raising=False)
    forget_modules()
    yield tmp_path
    forget_modules()


def forget_modules() -> None:
    for name in [name for name in sys.modules if name.startswith("trust_")]:
        del sys.modules[name]


def test_nothing_is_imported_and_no_path_is_added_without_trust(folder: Path) -> None:
    before = list(sys.path)
    with pytest.raises(
        UserInputError, match=r"the source 'trust_mine:value' is code of the working folder.*--trust-code"
    ):
        load_object("trust_mine:value", GROUP, "the source")
    assert not (folder / "imported").exists()
    assert "trust_mine" not in sys.modules
    assert sys.path == before


@pytest.mark.parametrize(("name", "value"), [("trust_mine:value", 7), ("trust_names.inner:value", 8)])
def test_modules_of_the_working_folder_are_imported_with_trust(name: str, value: int) -> None:
    with trusting_code(True):
        assert load_object(name, GROUP, "the source") == value


@pytest.mark.parametrize(
    "name",
    [
        "shutil:rmtree",
        "os:system",
        "sys:exit",
        "json:loads",
        "trust_installed:value",
        "numpy:load",
        "__main__:x",
        ".x:y",
        ":y",
    ],
)
@pytest.mark.parametrize("is_trusted", [False, True])
def test_modules_of_python_and_of_packages_are_never_imported_by_name(name: str, is_trusted: bool) -> None:
    with (
        trusting_code(is_trusted),
        pytest.raises(UserInputError, match=r"must be an entry point of abstudy\.sources.*, but"),
    ):
        load_object(name, GROUP, "the source")
    assert "trust_installed" not in sys.modules


def test_a_trusted_module_gives_nothing_of_the_modules_that_it_imports() -> None:
    with trusting_code(True), pytest.raises(UserInputError, match="AttributeError: shutil is another module"):
        load_object("trust_mine:shutil.rmtree", GROUP, "the source")


def test_a_worker_finds_the_module_in_the_drivers_folder_or_in_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("worker")
    with trusting_code(True):
        monkeypatch.chdir(elsewhere)
        assert load_object("trust_mine:value", GROUP, "the source") == 7
        with pytest.raises(UserInputError, match="has no module 'trust_there'"):
            load_object("trust_there:value", GROUP, "the source")
    monkeypatch.setenv(TRUST, str(folder / "gone"))
    (elsewhere / "trust_there.py").write_text("value = 10\n")
    assert load_object("trust_there:value", GROUP, "the source") == 10


def test_trust_ends_with_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST, "before")
    with trusting_code(False):
        assert not os.environ[TRUST]
    assert os.environ[TRUST] == "before"
