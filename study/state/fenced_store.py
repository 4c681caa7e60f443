"""`FencedStore`: the files of a study, which can be written only by the process that holds the study's lease."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from trainables.storage.store import Store


class FencedStore(Store):
    """A `Store` that checks, around every write and every deletion, that this process may write."""

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

    def write_bytes(self, name: str, data: bytes) -> None:
        """Create or replace a file, if this process may write."""
        with self._writing():
            super().write_bytes(name, data)

    def create_bytes(self, name: str, data: bytes) -> bool:
        """Create a file exclusively, if this process may write."""
        with self._writing():
            return super().create_bytes(name, data)

    def delete(self, name: str) -> None:
        """Delete a file or a folder with its content, if this process may write."""
        with self._writing():
            super().delete(name)


def read_only(store: Store) -> FencedStore:
    """Return the same files; every write raises RuntimeError."""
    return FencedStore(store.root, _refuse)


def _refuse() -> AbstractContextManager[None]:
    raise RuntimeError("a study is written only under its lease; open it with `open_to_drive`")
