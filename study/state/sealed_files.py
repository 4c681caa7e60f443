"""Files of a study's state: sealed by a checksum, and written by the process that holds the study's lease alone."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from trainables.damaged_files import DamagedFileError, decoding
from trainables.storage.store import Result, Store

CHECKSUM = "checksum"
_TOML_SEAL = "# checksum: "


def write_sealed_json(store: Store, name: str, content: dict[str, Any]) -> None:
    """Create or replace a JSON file that contains its checksum."""
    text = json.dumps({**content, CHECKSUM: _digest(_canonical(content))}, indent=1, sort_keys=True, allow_nan=False)
    store.write_text(name, text + "\n")


def read_sealed_json(store: Store, name: str) -> dict[str, Any]:
    """Return the content that `write_sealed_json` wrote.

    Raises:
        DamagedFileError: If the file is missing, is not a JSON object, or has changed since it was written.
    """
    content, is_intact = read_changed_json(store, name)
    if not is_intact:
        raise DamagedFileError(f"{store.locate(name)} is damaged: its content does not match its checksum")
    return content


def read_changed_json(store: Store, name: str) -> tuple[dict[str, Any], bool]:
    """Return the content of a sealed file, and whether it is unchanged since `write_sealed_json` wrote it.

    Raises:
        DamagedFileError: If the file is missing or is not a JSON object.
    """
    with _reading(store, name):
        content = json.loads(store.read_bytes(name))
        checksum = content.pop(CHECKSUM, "")
    return dict(content), checksum == _digest(_canonical(content))


def add_sealed_json(store: Store, folder: str, content: dict[str, Any]) -> None:
    """Add a file to those of a folder, which are numbered in the order in which they were written."""
    write_sealed_json(store, f"{folder}/{len(store.list_folder(folder)) + 1:04d}.json", content)


def read_sealed_folder(store: Store, folder: str) -> dict[str, dict[str, Any]]:
    """Return the content of each file that `add_sealed_json` wrote into a folder, by the file's name, the oldest first.

    Raises:
        DamagedFileError: As `read_sealed_json` does.
    """
    return {name: read_sealed_json(store, name) for name in (f"{folder}/{file}" for file in store.list_folder(folder))}


def write_sealed_toml(store: Store, name: str, text: str) -> None:
    """Create or replace a TOML file with its checksum in its last line, a comment."""
    body = text.rstrip("\n") + "\n"
    store.write_text(name, f"{body}{_TOML_SEAL}{_digest(body)}\n")


def read_sealed_toml(store: Store, name: str) -> str:
    """Return the text that `write_sealed_toml` wrote, with one line break at its end.

    Raises:
        DamagedFileError: If the file is missing or has changed since it was written.
    """
    with _reading(store, name):
        body, separator, checksum = store.read_text(name).rpartition(_TOML_SEAL)
        if not separator or checksum != f"{_digest(body)}\n":
            raise ValueError(
                "its content does not match the checksum in its last line; was it edited after the launch?"
            )
    return body


@contextmanager
def _reading(store: Store, name: str) -> Iterator[None]:
    where = store.locate(name)
    try:
        with decoding(where):
            yield
    except FileNotFoundError:
        raise DamagedFileError(f"{where} is missing; restore it, or launch a new study") from None


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class FencedStore(Store):
    """A `Store` that checks, around every attempt at a write or a deletion, that this process may write."""

    def __init__(self, root: str, writing: Callable[[], AbstractContextManager[None]]) -> None:
        """Open the root.

        Args:
            root: see `Store`.
            writing: returns the context of a write, which raises an exception if this process must not write, such as
                `Lease.writing`.
        """
        super().__init__(root)
        self._writing = writing

    def child(self, name: str) -> "FencedStore":
        """Return the store whose root is the folder `name` below this one, under the same check."""
        return FencedStore(super().child(name).root, self._writing)

    def _try(self, verb: str, name: str, action: Callable[[], Result]) -> Result:
        """Return the result of `action`; before each attempt at one that writes, check that this process may."""

        def write() -> Result:
            with self._writing():
                return action()

        return super()._try(verb, name, action if verb in {"read", "listed"} else write)


def read_only(store: Store) -> FencedStore:
    """Return the same files; every write raises RuntimeError."""
    return FencedStore(store.root, _refuse)


def _refuse() -> AbstractContextManager[None]:
    raise RuntimeError("a study is written only under its lease; open it with `open_to_drive`")
