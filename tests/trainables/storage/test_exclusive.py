"""Exclusive creation: on a disk, on one without hard links, on an object store, and where that cannot be had."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search_spaces.errors import UserInputError
from tests.faults.storage import FaultyStore, object_store
from trainables.storage import store as store_module
from trainables.storage.durable import put_new
from trainables.storage.store import StorageError, Store


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[str, str, FaultyStore]]:
    with object_store(faults=0) as opened:
        yield opened


@pytest.fixture(params=["disk", "disk without hard links", "object store"])
def root(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    servers: tuple[str, str, FaultyStore],
) -> str:
    if request.param == "object store":
        return store_module.join_uri(servers[0], tmp_path.name)
    if request.param == "disk without hard links":

        def refuse(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    return str(tmp_path)


def test_the_first_one_creates_a_file_and_the_others_leave_it(root: str) -> None:
    store = Store(root)
    assert store.create_bytes("lease/1", b"first")
    assert not store.create_bytes("lease/1", b"second")
    assert store.read_bytes("lease/1") == b"first"
    assert store.create_bytes("lease/1", b"first"), "an attempt whose answer was lost"
    assert store.list_folder("lease") == ("1",)
    store.write_bytes("lease/1", b"written")
    assert store.read_bytes("lease/1") == b"written"


def test_lost_answers_and_refusals_of_an_object_store_are_survived(
    servers: tuple[str, str, FaultyStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module._RETRYING, "sleep", lambda _: None)
    _, uri, faulty = servers
    faulty._left, faulty._probability = 12, 0.5
    monkeypatch.setattr("tests.faults.storage.time.sleep", lambda _: None)
    for number in range(12):
        assert Store(uri).create_bytes(f"faulty/{number}", b"mine")
        assert not Store(uri).create_bytes(f"faulty/{number}", b"other")
    faulty._probability = 0.0
    assert faulty._left < 12


def test_a_service_that_ignores_the_condition_is_refused_by_name(
    servers: tuple[str, str, FaultyStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, uri, faulty = servers
    answer = faulty._application

    def ignore(environ: dict[str, Any], start_response: Any) -> Any:
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return answer(environ, start_response)

    monkeypatch.setattr(faulty, "_application", ignore)
    with pytest.raises(UserInputError, match=r"s3://bucket/studies/lease/1.*cannot create a file exclusively"):
        Store(uri).create_bytes("lease/1", b"mine")


def test_a_kind_of_storage_without_conditional_writes_is_refused_by_name() -> None:
    with pytest.raises(UserInputError, match=r"hdfs://host/studies/lease.*cannot create a file exclusively"):
        put_new("hdfs://host/studies/lease", b"mine")


def test_credentials_of_a_profile_serve_an_object_store(
    servers: tuple[str, str, FaultyStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "credentials"
    profile.write_text("[default]\naws_access_key_id = test\naws_secret_access_key = test\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert Store(servers[0]).create_bytes("profile/1", b"mine")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainables.storage.durable.write_durably", refuse)
    with pytest.raises(StorageError, match="lease could not be created: No space left on device"):
        Store(tmp_path).create_bytes("lease", b"mine")
