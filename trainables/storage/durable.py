"""Durable writes: the file is on disk when the call returns."""

import errno
import mmap
import os
from pathlib import Path

# Files of at least this size bypass the page cache.
DIRECT_FROM_BYTES = 8 * 2**20
_CHUNK = 4 * 2**20
_NOT_DIRECT = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


def write_durably(path: Path, data: bytes) -> None:
    """Create or overwrite a file and flush it to disk (fsync).

    Large files bypass the page cache (O_DIRECT) if the file system supports it: a checkpoint is rarely read back, and should
    not evict the pages of mapped images. On a virtual machine with memory ballooning, 90 MB took 0.06 s instead of 0.25 s
    and a tenth of the CPU time.

    Raises:
        OSError: If the file cannot be written completely.
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
        # O_DIRECT needs aligned memory (an anonymous map) and whole blocks (the last one is padded, and truncated below).
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
