"""`Store`: files below one root, on any file system of pyarrow. Files are replaced atomically."""

import contextlib
import re
import shlex
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl

import pyarrow
import tenacity
from pyarrow import fs

from search_spaces.errors import UserInputError, first_line
from trainables.storage.durable import link_new, make_folder, put_new, sync_folder, write_durably

Result = TypeVar("Result")

# Keys of a URI's query by its scheme: options of pyarrow that are no secrets. What is not in the list may be one.
_S3 = (
    *("region", "endpoint_override", "scheme", "allow_bucket_creation", "allow_bucket_deletion", "allow_delayed_open"),
    *("tls_ca_file_path", "tls_ca_dir_path", "tls_verify_certificates", "smart_defaults"),
)
_AZURE = (
    *("blob_storage_authority", "dfs_storage_authority", "blob_storage_scheme", "dfs_storage_scheme"),
    *("enable_tls", "credential_kind", "tenant_id", "client_id"),
)
_GOOGLE = ("scheme", "endpoint_override", "retry_limit_seconds", "project_id")
OPTIONS = {"s3": _S3, "gs": _GOOGLE, "gcs": _GOOGLE, "abfs": _AZURE, "abfss": _AZURE}
# The first part of a URI without user and password: a bucket, or a host and its port. Azure's may begin with a container.
_AUTHORITY = re.compile(r"[\w.-]*(:\d+)?")
_CONTAINER = re.compile(r"^[\w$-]+@")

# Seconds between the attempts at a request to an object store; together about a minute.
RETRY_WAITS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
PIECE_BYTES = 4 << 20
# Files of an object store that are read or written at the same time: it answers after tens of milliseconds.
NUM_REQUESTS = 64
# End of the name of a file that is being written, which begins with a dot.
PARTIAL = ".partial"
# pyarrow raises OSError alike for every answer of an object store; these parts of its text mean a refusal.
_REFUSALS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE", "UNRECOGNIZED_CLIENT", "EXPIRED")


class StorageError(OSError):
    """The store failed to read or write: a full disk, a missing permission, an object store that does not answer.

    The message is complete: the file, the operation, and the reason that the store gave.
    """


class StorageRefusedError(StorageError):
    """The store refused the request, and would refuse it again."""


@dataclass(frozen=True, slots=True)
class FileState:
    """What a file system says about a file.

    Attributes:
        size: In bytes.
        mtime_ns: Time of the last change, nanoseconds since 1970; 0 where it is not known.
    """

    size: int
    mtime_ns: int


_RETRYING = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(StorageError) & tenacity.retry_if_not_exception_type(StorageRefusedError),
    wait=tenacity.wait_chain(*map(tenacity.wait_fixed, RETRY_WAITS)),
    stop=tenacity.stop_after_attempt(1 + len(RETRY_WAITS)),
    reraise=True,
)


def join_uri(root: str, name: str) -> str:
    """Return the path or URI of `name` below `root`; a query such as ``?endpoint_override=...`` stays at the end."""
    base, mark, query = root.partition("?") if "://" in root else (root, "", "")
    return f"{base.rstrip('/')}/{name}{mark}{query}"


def split_uri(root: str) -> tuple[str, str]:
    """Return the path or URI of the folder that `root` lies in, with the query of `root`, and the name of `root` in it."""
    if "://" in root:
        base, mark, query = root.partition("?")
        beside, _, name = base.rstrip("/").rpartition("/")
        return f"{beside}{mark}{query}", name
    path = Path(root)
    if path.name in ("", ".."):
        path = path.resolve()
    return str(path.parent), path.name


def check_uri(uri: str) -> None:
    """Raise UserInputError, without a part of the URI that may be a secret, if it holds what may be one."""
    scheme, _, rest = uri.partition("://")
    place, _, query = rest.partition("?")
    authority = place.partition("/")[0]
    if scheme in {"abfs", "abfss"}:
        authority = _CONTAINER.sub("", authority, count=1)
    allowed = OPTIONS.get(scheme, ())
    given = parse_qsl(query, keep_blank_values=True)
    if _AUTHORITY.fullmatch(authority) and all(key in allowed and "@" not in value for key, value in given):
        return
    takes = (
        f"of its query {', '.join(allowed)} are accepted, without user or password" if allowed else "it takes no query"
    )
    raise UserInputError(
        f"the storage's URI must not hold credentials, and {takes}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what "
        "the store's own tools read, in the environment, or use the machine's role"
    )


class Store:
    """Reads and replaces files below a root: a local folder, or a URI such as ``s3://bucket/prefix``.

    Names are relative, with forward slashes. On a local path a file is written under another name, flushed to disk (fsync)
    and renamed. On an object store an upload is atomic, and a request that fails temporarily (503, connection reset,
    time-out) is retried for about a minute. Every method raises StorageError if the store itself fails.
    """

    def __init__(self, root: str | Path) -> None:
        """Open the root, which is created by the first write.

        Raises:
            UserInputError: For a URI that pyarrow cannot open or that may hold credentials, since URIs are recorded.
        """
        self.root = str(root)
        if "://" in self.root:
            check_uri(self.root)
            # A client of S3 has as many connections as there are such threads when it is made, and 25 at least.
            pyarrow.set_io_thread_count(NUM_REQUESTS)
            try:
                self._filesystem, self._base = fs.FileSystem.from_uri(_with_options(self.root))
            except (OSError, ValueError) as error:
                raise UserInputError(f"the storage {self.root!r} cannot be opened: {first_line(error)}") from None
        else:
            self._filesystem = fs.LocalFileSystem()
            self._base = str(Path(self.root).absolute())
        self._base = self._base.rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the root is a local or mounted folder."""
        return isinstance(self._filesystem, fs.LocalFileSystem)

    @property
    def local_path(self) -> Path:
        """The root as a local path; raise UserInputError for an object store."""
        if not self.is_local:
            raise UserInputError(f"this operation needs a local folder, but the storage is {self.root!r}")
        return Path(self._base)

    @property
    def address(self) -> str:
        """The root as another process opens it, whatever folder that works in: an absolute path, or the URI."""
        return self._base if "://" not in self.root else self.root

    @property
    def argument(self) -> str:
        """The root as an argument of a command, quoted where a shell needs it."""
        return shlex.quote(self.root)

    def locate(self, name: str) -> str:
        """Return the path or URI of a file below the root, as messages name it."""
        return join_uri(self.root, name)

    def child(self, name: str) -> "Store":
        """Return the store whose root is the folder `name` below this one."""
        return Store(join_uri(self.root, _checked(name)))

    def exists(self, name: str = "") -> bool:
        """Return whether the file or folder exists."""
        info = self._try("read", name, lambda: self._filesystem.get_file_info(self._path(name)))
        return bool(info.type != fs.FileType.NotFound)

    def read_bytes(self, name: str) -> bytes:
        """Return a file's content; raise FileNotFoundError if there is none."""

        def read() -> bytes:
            with self._filesystem.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())

        return self._try("read", name, read)

    def read_text(self, name: str) -> str:
        """Return a file's content as UTF-8 text."""
        return self.read_bytes(name).decode()

    def write_bytes(self, name: str, data: bytes) -> None:
        """Create or replace a file atomically."""

        def write() -> None:
            if self.is_local:
                _replace_local(Path(self._path(name)), data)
                return
            with self._filesystem.open_output_stream(self._path(name)) as stream:
                stream.write(data)

        self._try("written", name, write)

    def create_bytes(self, name: str, data: bytes) -> bool:
        """Create a file exclusively, and return whether this call did: of several at the same moment, one does.

        A file that exists with the same content counts as created here, by an attempt whose answer was lost; so `data` must
        differ from that of every other process.

        Raises:
            UserInputError: For an object store without conditional writes.
        """

        def create() -> bool:
            if not self.is_local:
                return put_new(self.locate(name), data)
            path = Path(self._path(name))
            make_folder(path.parent)
            created = link_new(_aside(path), path, data)
            sync_folder(path.parent)
            return created

        return self._try("created", name, create) or self.read_bytes(name) == data

    def write_text(self, name: str, text: str) -> None:
        """Create or replace a file of UTF-8 text."""
        self.write_bytes(name, text.encode())

    def flush_folder(self, name: str = "") -> None:
        """Bring the entries of a local folder to disk, if there is one.

        A process that was killed, or whose disk was full, may have renamed a file that others see, but that a power loss undoes.
        """
        if self.is_local:
            with contextlib.suppress(FileNotFoundError):
                self._try("flushed", name, lambda: sync_folder(Path(self._path(name))))

    def list_folder(self, name: str = "") -> tuple[str, ...]:
        """Return the names directly below a folder, sorted; empty if there is no such folder.

        What a process that was killed left of a write is not listed.
        """
        selector = fs.FileSelector(self._path(name), allow_not_found=True)
        infos = self._try("listed", name, lambda: self._filesystem.get_file_info(selector))
        names = (info.base_name for info in infos)
        return tuple(sorted(name for name in names if name and not (name[0] == "." and name.endswith(PARTIAL))))

    def list_states(self, name: str = "") -> dict[str, FileState]:
        """Return size and time of change of every file below a folder, at any depth, by its name relative to it, sorted.

        A file itself is under the name "".
        """
        base = self._path(name)
        selector = fs.FileSelector(base, recursive=True, allow_not_found=True)

        def list_all() -> list[fs.FileInfo]:
            own = self._filesystem.get_file_info(base)
            return [own] if own.type == fs.FileType.File else self._filesystem.get_file_info(selector)

        infos = self._try("listed", name, list_all)
        files = {i.path[len(base) + 1 :]: FileState(int(i.size), i.mtime_ns or 0) for i in infos if i.is_file}
        return dict(sorted(files.items()))

    def copy_out(self, name: str, path: Path, advance: Callable[[int], None]) -> None:
        """Copy a file to a local path, in pieces; a copy that fails on the way begins anew.

        Args:
            name: "" for the root itself, if it is a file.
            path: Is replaced.
            advance: Called with the bytes of each piece; a negative number takes back those of an attempt that failed.
        """

        def copy() -> None:
            done = 0
            try:
                with self._filesystem.open_input_stream(self._path(name)) as stream, path.open("wb") as file:
                    while piece := stream.read(PIECE_BYTES):
                        file.write(piece)
                        done += len(piece)
                        advance(len(piece))
            except OSError:
                advance(-done)
                raise

        self._try("read", name, copy)

    def delete(self, name: str) -> None:
        """Delete a file, or a folder and its content; do nothing if it is missing."""

        def remove() -> None:
            kind = self._filesystem.get_file_info(self._path(name)).type
            if kind == fs.FileType.Directory:
                self._filesystem.delete_dir(self._path(name))
            elif kind != fs.FileType.NotFound:
                self._filesystem.delete_file(self._path(name))

        with contextlib.suppress(FileNotFoundError):  # deleted by another process
            self._try("deleted", name, remove)

    def _try(self, verb: str, name: str, action: Callable[[], Result]) -> Result:
        """Return the result of `action`, retried on an object store; raise StorageError if it fails."""

        def attempt() -> Result:
            try:
                return action()
            except (FileNotFoundError, StorageError):
                raise
            except OSError as error:
                reason = error.strerror or first_line(error)
                kind = StorageRefusedError if any(answer in reason for answer in _REFUSALS) else StorageError
                raise kind(f"{self.locate(name)} could not be {verb}: {reason}") from None

        return attempt() if self.is_local else _RETRYING(attempt)

    def _path(self, name: str) -> str:
        return f"{self._base}/{_checked(name)}" if name else self._base


def _with_options(uri: str) -> str:
    """Make S3 take a small file in one request instead of the three of a multi-part upload."""
    if not uri.startswith("s3://") or "allow_delayed_open" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


def _checked(name: str) -> str:
    """Return `name`; raise UserInputError if it would leave the root."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or "\x00" in name:
        raise UserInputError(f"a name inside the storage must stay below its root, but got {name!r}")
    return name


def _replace_local(path: Path, data: bytes) -> None:
    make_folder(path.parent)
    aside = _aside(path)
    try:
        write_durably(aside, data)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _aside(path: Path) -> Path:
    """Return another name in the same folder, under which a file is written first."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
