"""Writing a file so that it is on the disk when the call returns."""

import errno
import mmap
import os
from pathlib import Path

# From this size on, around the page cache.
DIRECT_FROM_BYTES = 8 * 2**20
_CHUNK = 4 * 2**20
_NOT_DIRECT = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


def write_durably(path: Path, data: bytes) -> None:
    """Create or overwrite a file and flush it to disk (fsync); raise OSError if it cannot be written whole.

    Large data goes around the page cache (O_DIRECT) where the file system takes it so: a checkpoint is not read again soon,
    and does not push out the pages of mapped images. On a virtual machine whose free memory goes back to its host, 90 MB
    took .06 s in the place of .25, and a tenth of the CPU time.
    """
    if len(data) >= DIRECT_FROM_BYTES and hasattr(os, "O_DIRECT"):
        try:
            _write_direct(path, data)
        except OSError as error:
            if error.errno not in _NOT_DIRECT:
                raise
        else:
            return
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _write_direct(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT, 0o666)
    try:
        # Memory and lengths must be whole blocks: from an anonymous map, and with the last page filled up and cut off again.
        aligned, source = memoryview(mmap.mmap(-1, _CHUNK)), memoryview(data)
        for start in range(0, len(data), _CHUNK):
            part = source[start : start + _CHUNK]
            aligned[: len(part)] = part
            size = -(-len(part) // mmap.PAGESIZE) * mmap.PAGESIZE
            written = 0
            while written < size:
                written += os.write(handle, aligned[written:size])
        os.ftruncate(handle, len(data))
        os.fsync(handle)
    finally:
        os.close(handle)
