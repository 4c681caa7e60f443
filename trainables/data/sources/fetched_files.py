"""Image files at a URI, such as shards on an object store: copied to this machine's disk once, and again where they changed.

Of a table of paths and labels, the images that it lists are copied with it.
"""

import hashlib
import json
import posixpath
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from filelock import FileLock

from search_spaces.errors import UserInputError
from trainables.data.image_memory import require_space
from trainables.data.pixel_files import read_checked, write_checked
from trainables.data.sources.folders.manifest import is_manifest, list_paths
from trainables.storage.store import FileState, StorageError, Store, split_uri

# Files that are copied at once: one connection rarely uses the whole bandwidth of a machine.
NUM_AT_ONCE = 8
SECONDS_BETWEEN_LINES = 15.0


def fetch_files(uri: str, folder: Path, *, only: Collection[str] | None = None, key: str = "") -> Path:
    """Return a local copy of the file, or of all files below the folder, at a URI.

    What was copied before and has the same size and time of change is not copied again, also after an interruption. Files that
    are gone at the URI are deleted here. Requests that fail temporarily are retried (`Store`).

    Args:
        uri: Of any file system of pyarrow.
        folder: Image folder of this machine.
        only: Names below the folder at the URI, of which the others are not copied; None for all.
        key: Names the copy, so that two copies of parts of a folder do not delete each other's files; by default the URI.

    Raises:
        UserInputError: If there is nothing at the URI, it cannot be read, or the disk lacks space.
    """
    store = Store(uri)
    target = folder / "fetched" / hashlib.blake2b((key or uri).encode(), digest_size=12).hexdigest()
    target.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        try:
            return _fetch(store, uri, target, only)
        except StorageError as error:
            raise UserInputError(
                f"{error}; what was copied to {target} so far is kept, and the next start goes on with it"
            ) from None


def _fetch(store: Store, uri: str, target: Path, only: Collection[str] | None) -> Path:
    listed = store.list_states()
    visible = {name for name in listed if not any(part.startswith(".") for part in name.split("/"))}
    wanted = visible if only is None else set(only) & set(listed)
    found = {name: state for name, state in listed.items() if name in wanted}
    if not found:
        raise UserInputError(f"there is no file at {uri}; check the URI, and the region or endpoint if it names none")
    only = PurePosixPath(uri.partition("?")[0]).name
    # A file, not a folder, is listed under the empty name.
    names = {name: name or only for name in found}
    # The states that the files of the copy had where they came from.
    record, lock = target.with_suffix(".files"), threading.Lock()
    known = {name: FileState(**state) for name, state in json.loads(read_checked(record) or b"{}").items()}
    for name in known.keys() - names.values():
        (target / name).unlink(missing_ok=True)
        del known[name]
    _keep_states(record, known)

    def is_here(name: str) -> bool:
        path, state = target / names[name], found[name]
        return known.get(names[name]) == state and path.exists() and path.stat().st_size == state.size

    missing = [name for name in found if not is_here(name)]
    require_space(target, sum(found[name].size for name in missing), f"a copy of {uri}")
    progress = _Progress(uri, len(missing), sum(found[name].size for name in missing))

    def copy(name: str) -> None:
        path = target / names[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        partly = path.with_name(f".{path.name}.partial")
        store.copy_out(name, partly, progress.advance)
        size = partly.stat().st_size
        if size != found[name].size:
            raise StorageError(f"{uri}: {names[name]} has {found[name].size} bytes, but {size} were read")
        partly.replace(path)
        with lock:
            known[names[name]] = found[name]
            _keep_states(record, known)
        progress.finish_file()

    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        try:
            list(pool.map(copy, missing))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return target / only if set(found) == {""} else target


def _keep_states(record: Path, states: Mapping[str, FileState]) -> None:
    write_checked(record, json.dumps({name: asdict(state) for name, state in states.items()}).encode())


class _Progress:
    """Lines on stderr that say how much of a copy is done, and how long the rest takes at this rate."""

    def __init__(self, uri: str, num_files: int, num_bytes: int, now: Callable[[], float] = time.monotonic) -> None:
        self._uri, self._num_files, self._num_bytes = uri, num_files, num_bytes
        self._now = now
        self._started = self._last = now()
        self._files_done = self._bytes_done = 0
        self._lock = threading.Lock()

    def advance(self, num_bytes: int) -> None:
        with self._lock:
            self._bytes_done += num_bytes
            if self._now() - self._last >= SECONDS_BETWEEN_LINES:
                self._last = self._now()
                print(self.describe(), file=sys.stderr)

    def finish_file(self) -> None:
        with self._lock:
            self._files_done += 1

    def describe(self) -> str:
        rate = self._bytes_done / max(self._now() - self._started, 1e-9)
        left = f"{(self._num_bytes - self._bytes_done) / rate / 60:.0f} min left" if rate > 0 else "nothing arrives"
        return (
            f"copying {self._uri}: {self._files_done} of {self._num_files} files, {self._bytes_done / 1e9:.2f} of "
            f"{self._num_bytes / 1e9:.2f} GB, {rate / 1e6:.1f} MB/s, {left}"
        )


def fetch_source(uri: str, folder: Path) -> Path:
    """Return a local copy of the file or folder at a URI; of a table of paths and labels, that beside copies of its images.

    Paths of a table that are absolute are left as they are: every machine must have them.

    Args:
        uri: Of any file system of pyarrow.
        folder: Image folder of this machine.

    Raises:
        UserInputError: As of `fetch_files`.
    """
    path = fetch_files(uri, folder)
    if not path.is_file() or not is_manifest(path):
        return path
    relative = [posixpath.normpath(row) for row in list_paths(path) if not posixpath.isabs(row)]
    if not relative:
        return path
    base, name = split_uri(uri)
    place = unquote(name)
    for _ in range(max(row.split("/").count("..") for row in relative)):
        above, parent = split_uri(base)
        if "://" not in above or not parent:
            break  # The rows lead out of the bucket, and are named as files that do not exist.
        base, place = above, posixpath.join(unquote(parent), place)
    beside = posixpath.dirname(place)
    wanted = {posixpath.normpath(posixpath.join(beside, row)) for row in relative}
    return fetch_files(base, folder, only={place, *wanted}, key=f"{uri} and its images") / place
