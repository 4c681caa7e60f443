"""The storage of a simulated study: a disk whose unsynced entries a power loss drops, and an object store with its failures.

The disk is a folder in memory, in which the product's own code creates, links, renames and flushes files; it is only watched. The
object store stands where pyarrow's file system does, so that the product's retries are those of every day. Of two requests for
one object, the one that the store received later counts, as S3 promises; a request whose client died arrives within seconds.
"""

import errno
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyarrow import fs

from tests.simulation.scheduler import Scheduler, act_for, current, draw_seconds

# Longest time that a listing is behind, and that a request arrives after its client has given up or died.
MOST_STALE_SECONDS = 3.0
MOST_LATE_SECONDS = 4.0

Seen = Callable[[str, bytes | None], None]


@dataclass
class StorageFaults:
    """Faults that the next requests meet.

    Attributes:
        pending: names of faults, the next one first.
        down_until: no request is answered before this time.
        stale_until: listings are behind until this time.
    """

    pending: list[str] = field(default_factory=list)
    down_until: float = 0.0
    stale_until: float = 0.0

    def take(self, *names: str) -> str:
        """Return the next fault if it is one of `names`."""
        if self.pending and self.pending[0] in names:
            return self.pending.pop(0)
        return ""


class Disk:
    """A folder in memory, of which it is known what a power loss would leave.

    Attributes:
        root: path of the study.
    """

    def __init__(self, base: Path, scheduler: Scheduler, rng: random.Random, faults: StorageFaults, seen: Seen) -> None:
        """Watch the folder `base`; `seen` gets the name and content of every file that takes effect, None if deleted."""
        self.base, self.root = base, str(base / "study")
        self._scheduler, self._rng, self._faults, self._seen = scheduler, rng, faults, seen
        # What is on the disk: the entries of each folder by the folder's inode, and the content of each file.
        self._entries: dict[int, dict[str, int]] = {}
        self._content: dict[int, bytes] = {}
        self._known: dict[str, None] = {}

    def patches(self) -> dict[str, Callable[..., Any]]:
        """Return the functions of `os` that take their place while a simulated thread calls."""
        real = {name: getattr(os, name) for name in ("fsync", "replace", "link")}

        def only_here(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *arguments: (real[name] if current() is None else function)(*arguments)

        def fsync(handle: int) -> None:
            self._pass_time()
            if self._faults.take("disk full"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            state = os.fstat(handle)
            if stat.S_ISDIR(state.st_mode):
                self._entries[state.st_ino] = _list_entries(handle)
            else:
                self._content[state.st_ino] = Path(f"/proc/self/fd/{handle}").read_bytes()
            self._pass_time()

        def move(name: str, source: Any, target: Any) -> None:
            self._pass_time()
            real[name](source, target)
            self._tell(str(target))

        return {
            "fsync": only_here("fsync", fsync),
            "replace": only_here("replace", lambda source, target: move("replace", source, target)),
            "link": only_here("link", lambda source, target: move("link", source, target)),
        }

    def list_names(self) -> list[str]:
        """Return the names of the files of the study."""
        return [str(path.relative_to(self.root)) for path in _list_files(Path(self.root))]

    def read_all(self) -> dict[str, bytes]:
        """Return the content of every file of the study by its name."""
        return {name: Path(self.root, name).read_bytes() for name in self.list_names()}

    def note_deleted(self, path: str) -> None:
        """Tell which files of a path have been deleted."""
        below = [name for name in self._known if name == path or name.startswith(f"{path}/")]
        for name in [name for name in below if not os.path.exists(name)]:  # noqa: PTH110 - often called
            del self._known[name]
            self._seen(name.removeprefix(f"{self.root}/"), None)

    def lose_power(self) -> None:
        """Drop some of the entries and contents that were not flushed; what was deleted stays deleted."""
        self._recover(self.base)
        folders = [self.base, *(path for path in self.base.rglob("*") if path.is_dir())]
        self._entries = {folder.stat().st_ino: _list_entries(folder) for folder in folders}
        self._content = {path.stat().st_ino: path.read_bytes() for path in _list_files(self.base)}

    def _recover(self, folder: Path) -> None:
        on_disk = self._entries.get(folder.stat().st_ino, {})
        for name, inode in _list_entries(folder).items():
            path = folder / name
            if on_disk.get(name) != inode and self._rng.random() < 0.7:
                before = self._content.get(on_disk.get(name, -1))
                if path.is_dir():
                    shutil.rmtree(path)
                elif before is None:
                    path.unlink()
                else:
                    path.write_bytes(before)
            elif path.is_dir():
                self._recover(path)
            elif inode not in self._content:
                path.write_bytes(b"")

    def _pass_time(self) -> None:
        self._scheduler.sleep(draw_seconds(self._rng, 0.0002, 0.01))

    def _tell(self, path: str) -> None:
        if path.startswith(f"{self.root}/"):
            self._known[path] = None
            self._seen(path.removeprefix(f"{self.root}/"), Path(path).read_bytes())


def _list_entries(folder: Path | int) -> dict[str, int]:
    with os.scandir(folder) as entries:
        return {entry.name: entry.inode() for entry in sorted(entries, key=lambda entry: entry.name)}


def _list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class ObjectStore:
    """Objects in memory, by the paths that pyarrow gives its file systems; the methods are those of `pyarrow.fs.FileSystem`.

    Attributes:
        root: URI of the study.
    """

    root = "s3://simulated/study"
    _prefix = "simulated/study/"

    def __init__(self, scheduler: Scheduler, rng: random.Random, faults: StorageFaults, seen: Seen) -> None:
        self._scheduler, self._rng, self._faults, self._seen = scheduler, rng, faults, seen
        self._objects: dict[str, bytes] = {}
        # Number of the request that wrote or deleted each object, and what was there before each change.
        self._received: dict[str, int] = {}
        self._num_received = 0
        self._changes: list[tuple[float, str, bool]] = []

    def open(self, uri: str) -> tuple["ObjectStore", str]:
        """Stand in for `pyarrow.fs.FileSystem.from_uri`."""
        return self, uri.partition("://")[2].partition("?")[0]

    def put_new(self, uri: str, data: bytes) -> bool:
        """Stand in for `trainables.storage.durable.put_new`."""
        path = self.open(uri)[1]

        def create() -> bool:
            if path in self._objects:
                return False
            self._set(path, data, self._receive())
            return True

        return self._request(create, late=create)

    def list_names(self) -> list[str]:
        """Return the names of the objects of the study."""
        return [path.removeprefix(self._prefix) for path in sorted(self._objects)]

    def read_all(self) -> dict[str, bytes]:
        """Return every object of the study by its name."""
        return {name: self._objects[self._prefix + name] for name in self.list_names()}

    def get_file_info(self, asked: Any) -> Any:
        if isinstance(asked, str):
            return self._request(lambda: self._describe(asked, set(self._objects)))
        base = f"{asked.base_dir}/"

        def list_all() -> list[fs.FileInfo]:
            below = [path for path in self._list_known() if path.startswith(base)]
            names = below if asked.recursive else {base + path[len(base) :].partition("/")[0] for path in below}
            return [self._describe(name, set(below)) for name in sorted(names)]

        return self._request(list_all)

    @contextmanager
    def open_input_stream(self, path: str) -> Iterator[Any]:
        def read() -> bytes:
            if path not in self._objects:
                raise FileNotFoundError(errno.ENOENT, "no such object", path)
            return self._objects[path]

        data = self._request(read)
        yield _Reader(data)

    @contextmanager
    def open_output_stream(self, path: str) -> Iterator[Any]:
        written = _Writer()
        yield written
        self._change(path, bytes(written.data))

    def delete_file(self, path: str) -> None:
        self._change(path, None)

    def delete_dir(self, path: str) -> None:
        for name in sorted(name for name in self._list_known() if name.startswith(f"{path}/")):
            self._change(name, None)

    def _change(self, path: str, data: bytes | None) -> None:
        number = 0

        def change() -> None:
            nonlocal number
            number = number or self._receive()
            self._set(path, data, number)

        def receive() -> None:
            nonlocal number
            number = self._receive()

        self._request(change, late=change, received=receive)

    def _receive(self) -> int:
        self._num_received += 1
        return self._num_received

    def _set(self, path: str, data: bytes | None, number: int) -> None:
        if number < self._received.get(path, 0):
            return
        self._received[path] = number
        if data is None and path not in self._objects:
            return
        self._seen(path.removeprefix(self._prefix), data)
        self._changes.append((self._scheduler.now, path, path in self._objects))
        if data is None:
            del self._objects[path]
        else:
            self._objects[path] = data

    def _request(
        self,
        effect: Callable[[], Any],
        *,
        late: Callable[[], Any] | None = None,
        received: Callable[[], None] = lambda: None,
    ) -> Any:
        """Send a request and return its answer; `late` is its effect where it may arrive after its client gave up."""
        task = current()
        assert task is not None
        self._scheduler.sleep(draw_seconds(self._rng, 0.005, 0.2))
        if self._scheduler.now < max(self._faults.down_until, task.process.host.cut_off_until):
            self._scheduler.sleep(1.0)
            raise OSError("AWS Error NETWORK_CONNECTION during the request: connection refused")
        if self._faults.take("503"):
            raise OSError("AWS Error SLOW_DOWN during the request: 503 Please reduce your request rate")
        if late is not None and self._faults.take("delayed PUT"):
            received()
            self._scheduler.call_after(self._rng.uniform(0.2, MOST_LATE_SECONDS), lambda: act_for(task, late))
            self._scheduler.sleep(self._rng.uniform(0.1, MOST_LATE_SECONDS))
            raise OSError("AWS Error NETWORK_CONNECTION during the request: timeout was reached")
        result = effect()
        self._scheduler.sleep(draw_seconds(self._rng, 0.005, 0.2))
        if late is not None and self._faults.take("lost reply"):
            raise OSError("AWS Error NETWORK_CONNECTION during the request: connection reset by peer")
        return result

    def _list_known(self) -> set[str]:
        """Return the names of the objects, or where listings are behind those of a moment ago."""
        names = set(self._objects)
        if self._scheduler.now < self._faults.stale_until:
            moment = self._scheduler.now - self._rng.uniform(0, MOST_STALE_SECONDS)
            for time, path, was_there in reversed(self._changes):
                if time < moment:
                    break
                (names.add if was_there else names.discard)(path)
        return names

    def _describe(self, path: str, names: set[str]) -> fs.FileInfo:
        if path in names:
            return fs.FileInfo(path, type=fs.FileType.File, size=len(self._objects.get(path, b"")))
        kind = fs.FileType.Directory if any(name.startswith(f"{path}/") for name in names) else fs.FileType.NotFound
        return fs.FileInfo(path, type=kind)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self) -> bytes:
        return self._data


class _Writer:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data
