"""Settings and state of operating-system processes."""

import ctypes
import gc
import os
import sys

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1
# Allocations between two garbage collections. With the default of Python 3.11, 700, the collector runs thousands of times while
# torch and Ray are imported, which takes a fifth of the import time and frees nothing.
_GC_THRESHOLD = 10_000


def collect_garbage_rarely() -> None:
    """Let this process allocate more objects between two garbage collections, as one that imports torch and Ray should."""
    gc.set_threshold(_GC_THRESHOLD)


def share_threads(num_cpus: float, num_processes: int) -> int:
    """Return the CPU threads of each process of a trial that holds so many CPU cores."""
    return max(1, int(num_cpus / num_processes))


def prepare_to_train(num_threads: int) -> None:
    """Set the number of CPU threads of this process, and make its allocator keep freed memory."""
    import torch

    torch.set_num_threads(num_threads)
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Make this process's allocator keep freed memory; return whether it could, which is true of glibc.

    A training step on the CPU frees its activations, and the next step allocates as many bytes again. By default glibc returns
    large blocks to the kernel, which then clears every page again: 6 % of a step of ResNet18 at 64 px, batch 128. Neither
    the process's peak memory nor any result changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):  # musl
        return False
    return bool(library.mallopt(_M_MMAP_MAX, 0) and library.mallopt(_M_TRIM_THRESHOLD, _NEVER))


def is_alive(pid: int) -> bool:
    """Return whether this machine has a process with this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
