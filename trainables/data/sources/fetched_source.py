"""The files of a source at a URI, copied to this machine; of a table, those that it lists."""

import posixpath
from pathlib import Path
from urllib.parse import unquote

from trainables.data.fetched_files import fetch_files
from trainables.data.sources.folders.manifest import is_manifest, list_paths
from trainables.storage.store import split_uri


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
