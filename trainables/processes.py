"""Settings and state of operating-system processes."""

import ctypes
import gc
import os
import sys
import time
from pathlib import Path

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


def uptime_seconds() -> float:
    """Return the seconds since this machine started, sleep included where the system counts it; no clock is set back in it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def read_boot_id() -> str:
    """Return what identifies this start of this machine, in all its containers; "" on systems without /proc."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def read_pid_namespace() -> str:
    """Return what identifies the processes among which a process id is unique; "" on systems without /proc."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def read_start_time(pid: int) -> str | None:
    """Return when a process of this PID namespace started, in clock ticks after the machine; None if it has ended."""
    try:
        # The name of the program, in parentheses, may contain anything (man 5 proc_pid_stat).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def is_alive(pid: int) -> bool:
    """Return whether this machine has a process with this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
