"""`Store`: files below one root, on any pyarrow file system; a file is replaced whole or not at all."""

import contextlib
import os
import uuid
from pathlib import Path

from pyarrow import fs

from search_spaces.errors import UserInputError


class Store:
    """Read and replace files below a root: a local folder, or a URI such as ``s3://bucket/prefix``.

    Names are relative, with forward slashes. On a local path a write goes aside, is flushed to disk (fsync) and
    takes the old file's place in one step; on an object store an upload is atomic by itself.
    """

    def __init__(self, root: str | Path) -> None:
        """Open the root; nothing is created until something is written.

        Raises UserInputError for a URI that pyarrow cannot open.
        """
        self.root = str(root)
        if "://" in self.root:
            try:
                self._filesystem, self._base = fs.FileSystem.from_uri(self.root)
            except (OSError, ValueError) as error:
                raise UserInputError(
                    f"the storage {self.root!r} cannot be opened: {str(error).splitlines()[0]}"
                ) from None
        else:
            self._filesystem = fs.LocalFileSystem()
            self._base = str(Path(self.root).absolute())
        self._base = self._base.rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine (or a mounted one)."""
        return isinstance(self._filesystem, fs.LocalFileSystem)

    @property
    def local_path(self) -> Path:
        """The root as a local path; raise UserInputError for an object store."""
        if not self.is_local:
            raise UserInputError(f"this needs a local folder, but the storage is {self.root!r}")
        return Path(self._base)

    def child(self, name: str) -> "Store":
        """Return the store whose root is the folder `name` below this one."""
        return Store(f"{self.root.rstrip('/')}/{_checked(name)}")

    def exists(self, name: str = "") -> bool:
        """Return whether the file or folder exists."""
        info = self._filesystem.get_file_info(self._path(name))
        return bool(info.type != fs.FileType.NotFound)

    def read_bytes(self, name: str) -> bytes:
        """Return a file's content; raise FileNotFoundError if there is none."""
        with self._filesystem.open_input_stream(self._path(name)) as stream:
            return bytes(stream.read())

    def read_text(self, name: str) -> str:
        """Return a file's content as UTF-8 text."""
        return self.read_bytes(name).decode()

    def write_bytes(self, name: str, data: bytes) -> None:
        """Create or replace a file; a reader sees the old content or the new, never a part."""
        if self.is_local:
            _replace_local(Path(self._path(name)), data)
            return
        with self._filesystem.open_output_stream(self._path(name)) as stream:
            stream.write(data)

    def write_text(self, name: str, text: str) -> None:
        """Create or replace a file of UTF-8 text."""
        self.write_bytes(name, text.encode())

    def list_folder(self, name: str = "") -> tuple[str, ...]:
        """Return the names directly below a folder, sorted; empty if there is no such folder."""
        selector = fs.FileSelector(self._path(name), allow_not_found=True)
        return tuple(sorted(i.base_name for i in self._filesystem.get_file_info(selector) if i.base_name))

    def list_files(self, name: str = "") -> tuple[str, ...]:
        """Return every file below a folder, at any depth, as names relative to that folder, sorted."""
        base = self._path(name)
        selector = fs.FileSelector(base, recursive=True, allow_not_found=True)
        infos = self._filesystem.get_file_info(selector)
        return tuple(sorted(i.path[len(base) + 1 :] for i in infos if i.type == fs.FileType.File))

    def delete(self, name: str) -> None:
        """Delete a file or a folder with what is in it; a missing one is fine."""
        info = self._filesystem.get_file_info(self._path(name))
        if info.type == fs.FileType.Directory:
            self._filesystem.delete_dir(self._path(name))
        elif info.type == fs.FileType.File:
            self._filesystem.delete_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._base}/{_checked(name)}" if name else self._base


def _checked(name: str) -> str:
    """Refuse a name that would leave the root."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or "\x00" in name:
        raise UserInputError(f"a name inside the storage stays below its root, but got {name!r}")
    return name


def _replace_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with aside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
