"""The event files of a study on an object store, copied to a local folder and kept up to date, for TensorBoard."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainables.records.store import StorageError, Store

SECONDS_BETWEEN = 15.0


def mirror_events(store: Store, folder: Path) -> int:
    """Append to the copies below `folder` what the study's event files have more; return how many files grew.

    Event files only grow. A copy is never replaced: TensorBoard goes on reading the file that it has open.
    """
    grown = 0
    for name, size in store.list_sizes().items():
        if "tfevents" not in name.rsplit("/", 1)[-1]:
            continue
        copy = folder / name
        held = copy.stat().st_size if copy.exists() else 0
        if size <= held:
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("ab") as file:
            file.write(store.read_bytes(name)[held:])
        grown += 1
    return grown


@contextmanager
def mirrored_events(store: Store, seconds: float = SECONDS_BETWEEN) -> Iterator[Path]:
    """Give a temporary folder with the study's event files, which follows the study until the context ends.

    Raises StorageError if the first copy cannot be made; later ones are tried again after `seconds`.
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
