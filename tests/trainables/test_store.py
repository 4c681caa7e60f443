"""The store: whole replacement, names that stay below the root."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.errors import UserInputError
from trainables.store import Store


def test_files_round_trip_and_are_listed(tmp_path: Path) -> None:
    store = Store(tmp_path / "study")
    assert not store.exists("a/b.txt")
    assert store.list_folder() == ()
    store.write_text("a/b.txt", "one")
    store.write_bytes("a/c.bin", b"\x00\xff")
    store.write_text("a/b.txt", "two")
    assert store.read_text("a/b.txt") == "two"
    assert store.list_folder("a") == ("b.txt", "c.bin")
    assert store.list_files() == ("a/b.txt", "a/c.bin")
    assert store.child("a").read_bytes("c.bin") == b"\x00\xff"
    store.delete("a")
    store.delete("a")
    assert not store.exists("a")


def test_failed_write_leaves_the_old_content_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write_text("record.json", "old")

    def refuse(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        store.write_text("record.json", "new")
    assert store.read_text("record.json") == "old"
    assert store.list_folder() == ("record.json",)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a\\b", "a\x00b"])
def test_names_that_leave_the_root_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserInputError, match="below its root"):
        Store(tmp_path / "root").write_text(name, "x")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=4096))
def test_any_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    store.write_bytes("x", data)
    assert store.read_bytes("x") == data


def test_uri_of_a_local_folder_is_the_same_store(tmp_path: Path) -> None:
    Store(tmp_path).write_text("x", "y")
    assert Store(f"file://{tmp_path}").read_text("x") == "y"
    assert Store(f"file://{tmp_path}").is_local


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(UserInputError, match="cannot be opened"):
        Store("nowhere://bucket/study")
