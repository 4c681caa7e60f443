"""Local copies of the event files of a study on an object store, kept up to date for TensorBoard."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainables.storage.store import StorageError, Store

SECONDS_BETWEEN = 15.0


def mirror_events(store: Store, folder: Path) -> int:
    """Append the new content of the study's event files to their copies below `folder`; return how many files grew.

    Event files only grow, and a copy is never replaced, because TensorBoard keeps it open.
    """
    grown = 0
    for name, state in store.list_states().items():
        if "tfevents" not in name.rsplit("/", 1)[-1]:
            continue
        copy = folder / name
        held = copy.stat().st_size if copy.exists() else 0
        if state.size <= held:
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("ab") as file:
            file.write(store.read_bytes(name)[held:])
        grown += 1
    return grown


@contextmanager
def mirrored_events(store: Store, seconds: float = SECONDS_BETWEEN) -> Iterator[Path]:
    """Yield a temporary folder with copies of the study's event files, updated every `seconds` until the context ends.

    Raises:
        StorageError: if the first copy fails. Later failures are retried after `seconds`.
    """
    with tempfile.TemporaryDirectory(prefix="abstudy-tensorboard-") as name:
        folder = Path(name)
        mirror_events(store, folder)
        is_over = threading.Event()

        def follow() -> None:
            while not is_over.wait(seconds):
                try:
                    mirror_events(store, folder)
                except (StorageError, FileNotFoundError):
                    continue

        thread = threading.Thread(target=follow, name="event-mirror", daemon=True)
        thread.start()
        try:
            yield folder
        finally:
            is_over.set()
            thread.join()
