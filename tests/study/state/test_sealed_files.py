"""Seals: every cut and every flipped bit of a state file is noticed and named."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tenacity import wait_none

from study.state.record_book import StudyInterrupted
from study.state.sealed_files import (
    FencedStore,
    read_sealed_json,
    read_sealed_toml,
    write_sealed_json,
    write_sealed_toml,
)
from trainables.damaged_files import DamagedFileError
from trainables.storage import store as store_module
from trainables.storage.store import Store

CONTENT = {"margin": 0.005, "seeds": [1, 2, 3], "chosen": {"a": "00001"}, "none": None, "words": "ä \u2028"}
TOML = 'name = "x"\n[search]\nnum_trials = 8 # a comment\n'
QUICK = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def damage(content: bytes, offset: int, bit: int | None) -> bytes:
    if bit is None:
        return content[:offset]
    return content[:offset] + bytes([content[offset] ^ (1 << bit)]) + content[offset + 1 :]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_sealed_json(store, "a.json", CONTENT)
    assert read_sealed_json(store, "a.json") == CONTENT
    for text in (TOML, TOML.rstrip("\n"), TOML + "\n\n"):
        write_sealed_toml(store, "spec.toml", text)
        assert read_sealed_toml(store, "spec.toml") == TOML


@QUICK
@given(data=st.data(), bit=st.none() | st.integers(0, 7), name=st.sampled_from(["a.json", "spec.toml"]))
def test_every_cut_and_flipped_bit_is_named(tmp_path: Path, data: st.DataObject, bit: int | None, name: str) -> None:
    store = Store(tmp_path)
    write_sealed_json(store, "a.json", CONTENT)
    write_sealed_toml(store, "spec.toml", TOML)
    whole = store.read_bytes(name)
    offset = data.draw(st.integers(0, len(whole) - 1))
    store.write_bytes(name, damage(whole, offset, bit))
    try:
        same = read_sealed_json(store, name) == CONTENT if name == "a.json" else read_sealed_toml(store, name) == TOML
    except DamagedFileError as error:
        same = name in str(error)
    # White space between the values of JSON carries nothing.
    assert same


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"3", b"null", b"\xff\xfe", b""])
def test_hostile_content_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    store.write_bytes("a.json", content)
    with pytest.raises(DamagedFileError, match=r"a\.json is damaged"):
        read_sealed_json(store, "a.json")
    with pytest.raises(DamagedFileError, match=r"a\.json is damaged"):
        read_sealed_toml(store, "a.json")


def test_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_sealed_json, read_sealed_toml):
        with pytest.raises(DamagedFileError, match=r"b\.json is missing"):
            read(Store(tmp_path), "b.json")


def test_every_attempt_at_a_write_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an object store, a write that is tried again for a minute may outlast the lease."""
    attempts = list[str]()

    @contextmanager
    def writing() -> Iterator[None]:
        if attempts:
            raise StudyInterrupted("lost")
        yield

    def fail(path: str) -> None:
        attempts.append(path)
        raise OSError("503")

    store = FencedStore(str(tmp_path), writing)
    monkeypatch.setattr(Store, "is_local", False)
    monkeypatch.setattr(store_module, "_RETRYING", store_module._RETRYING.copy(wait=wait_none()))
    monkeypatch.setattr(store, "_filesystem", SimpleNamespace(open_output_stream=fail))
    with pytest.raises(StudyInterrupted):
        store.write_bytes("note", b"")
    assert len(attempts) == 1
