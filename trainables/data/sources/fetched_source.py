"""The files of a source at a URI, copied to this machine; those that a table lists lie beside it."""

from pathlib import Path

from trainables.data.fetched_files import fetch_files
from trainables.data.sources.folders.manifest import is_manifest
from trainables.storage.store import split_uri


def fetch_source(uri: str, folder: Path) -> Path:
    """Return a local copy of the file or folder at a URI; of a table of paths and labels, that in a copy of its folder.

    Args:
        uri: Of any file system of pyarrow.
        folder: Image folder of this machine.

    Raises:
        UserInputError: As of `fetch_files`.
    """
    path = fetch_files(uri, folder)
    if not path.is_file() or not is_manifest(path):
        return path
    beside, name = split_uri(uri)
    return fetch_files(beside, folder) / name
