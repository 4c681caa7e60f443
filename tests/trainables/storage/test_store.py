"""The store: atomic replacement, names below the root, retries."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.errors import UserInputError
from tests.faults.storage import FaultyStore, object_store
from trainables.storage import store as store_module
from trainables.storage.durable import put_new
from trainables.storage.store import NUM_REQUESTS, StorageError, Store, join_uri, split_uri


def test_files_round_trip_and_are_listed(tmp_path: Path) -> None:
    store = Store(tmp_path / "study")
    assert not store.exists("a/b.txt")
    assert store.list_folder() == ()
    store.write_text("a/b.txt", "one")
    store.write_bytes("a/c.bin", b"\x00\xff")
    store.write_text("a/b.txt", "two")
    assert store.read_text("a/b.txt") == "two"
    assert store.list_folder("a") == ("b.txt", "c.bin")
    assert tuple(store.list_states()) == ("a/b.txt", "a/c.bin")
    assert store.child("a").read_bytes("c.bin") == b"\x00\xff"
    store.delete("a")
    store.delete("a")
    assert not store.exists("a")


def test_failed_write_leaves_the_old_content_and_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write_text("record.json", "old")

    def refuse(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StorageError, match=r"record\.json could not be written: No space left on device"):
        store.write_text("record.json", "new")
    assert store.read_text("record.json") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a\\b", "a\x00b"])
def test_names_that_leave_the_root_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserInputError, match="below its root"):
        Store(tmp_path / "root").write_text(name, "x")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=4096))
def test_any_bytes_survive(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
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


@pytest.mark.parametrize(
    ("root", "whole"),
    [
        ("studies", "studies/a"),
        ("/mnt/x/", "/mnt/x/a"),
        ("what?ever", "what?ever/a"),
        ("s3://bucket/p", "s3://bucket/p/a"),
        ("s3://bucket/p/?endpoint_override=h:1&scheme=http", "s3://bucket/p/a?endpoint_override=h:1&scheme=http"),
    ],
)
def test_a_name_goes_before_the_query_of_a_uri(root: str, whole: str) -> None:
    assert join_uri(root, "a") == whole


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:TOP@bucket/studies",
        "s3://key:TO/TOP@bucket/studies",
        "s3://key:[TOP@bucket/studies",
        "s3://key%3ATOP%40bucket/studies",
        "s3://bucket/p?access_key=A&secret_key=TOP",
        "s3://bucket/p?endpoint_override=http://user:TOP@host:9000",
        "s3://bucket/p?endpoint_override=http://user:TOP%40host:9000",
        "abfs://container:TOP@account.dfs.core.windows.net/p",
        "abfs://account.blob.core.windows.net/c/p?sv=2024&sig=TOP",
        "abfss://account.blob.core.windows.net/c/p?tenant_id=t&client_id=i&client_secret=TOP",
        "gs://bucket/p?json_credentials=TOP",
        "file:///p?password=TOP",
    ],
)
def test_what_may_be_a_secret_in_a_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(UserInputError, match="must not hold credentials") as refused:
        Store(uri)
    assert "TOP" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "base"),
    [
        ("abfs://container@account.dfs.core.windows.net/p", "container/p"),
        ("abfs://container/p?account_name=x", None),
        ("s3://bucket/p?region=eu-central-1&endpoint_override=host:1&scheme=http", "bucket/p"),
        ("gs://bucket/p?project_id=mine", "bucket/p"),
    ],
)
def test_a_uri_without_secrets_is_opened(uri: str, base: str | None) -> None:
    if base is None:
        with pytest.raises(UserInputError, match="tenant_id, client_id are accepted"):
            Store(uri)
    else:
        assert Store(uri)._base == base


class Failing:
    """A file system that fails a number of times before it answers."""

    def __init__(self, filesystem: object, times: int, message: str) -> None:
        self._filesystem, self.left, self._message = filesystem, times, message

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object, **named: object) -> object:
            if self.left:
                self.left -= 1
                raise OSError(self._message)
            return getattr(self._filesystem, name)(*arguments, **named)

        return call


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder that the store treats as an object store, without waiting between attempts."""
    store = Store(tmp_path)
    monkeypatch.setattr(Store, "is_local", False)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return store


def test_temporary_fault_of_an_object_store_is_retried(remote: Store) -> None:
    remote._filesystem = Failing(remote._filesystem, 3, "AWS Error SLOW_DOWN during PutObject operation")
    remote.write_text("a", "x")
    remote._filesystem.left = 8
    assert remote.read_text("a") == "x"


@pytest.mark.parametrize(("times", "message"), [(9, "AWS Error INTERNAL_FAILURE"), (1, "AWS Error ACCESS_DENIED")])
def test_lasting_fault_of_an_object_store_is_named_with_its_reason(remote: Store, times: int, message: str) -> None:
    remote._filesystem = Failing(remote._filesystem, times, message)
    with pytest.raises(StorageError, match=rf"/a could not be written: {message}"):
        remote.write_text("a", "x")
    assert remote._filesystem.left == 0


def test_missing_file_is_not_a_fault_of_the_store(remote: Store) -> None:
    with pytest.raises(FileNotFoundError):
        remote.read_bytes("missing")


def test_an_object_store_has_all_requests_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    lock, running, all_at_once = threading.Lock(), 0, threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            nonlocal running
            with lock:
                running += 1
            if running >= NUM_REQUESTS:
                all_at_once.set()
            all_at_once.wait(2)
            with lock:
                running -= 1
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        request_queue_size = NUM_REQUESTS

    def read(_: int) -> None:
        with pytest.raises(FileNotFoundError):
            store.read_bytes("missing")

    with Server(("127.0.0.1", 0), Handler) as server, ThreadPoolExecutor(NUM_REQUESTS) as pool:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = Store(
            f"s3://bucket/study?endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=us-east-1"
        )
        list(pool.map(read, range(NUM_REQUESTS)))
        server.shutdown()
    assert all_at_once.is_set()


def test_what_a_killed_write_left_is_not_listed(tmp_path: Path) -> None:
    for name in (".0001.json.ab12cd34.partial", "0001.json", ".hidden", "x.partial"):
        (tmp_path / name).write_text("{")
    assert Store(tmp_path).list_folder() == (".hidden", "0001.json", "x.partial")


@pytest.mark.parametrize(
    ("root", "beside", "name"),
    [
        ("studies/mine", "studies", "mine"),
        ("mine/", ".", "mine"),
        ("/data/mine", "/data", "mine"),
        (
            "s3://bucket/studies/mine?endpoint_override=host:1&scheme=http",
            "s3://bucket/studies?endpoint_override=host:1&scheme=http",
            "mine",
        ),
    ],
)
def test_a_root_is_split_into_its_folder_and_its_name(root: str, beside: str, name: str) -> None:
    assert split_uri(root) == (beside, name)
    if not root.endswith("/"):
        assert join_uri(beside, name) == root


def test_a_relative_root_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("my studies/mine")
    store.write_text("x", "y")
    assert split_uri(".") == (str(tmp_path.parent), tmp_path.name)
    monkeypatch.chdir("/")
    assert Store(store.address).read_text("x") == "y"
    assert store.root == "my studies/mine"
    assert store.argument == "'my studies/mine'"
    assert store.locate("report.html") == "my studies/mine/report.html"
    assert Store(f"file://{tmp_path}").address == f"file://{tmp_path}"


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
