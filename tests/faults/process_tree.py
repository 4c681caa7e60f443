"""Waiting for processes, and ending them with everything that they started."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil


def wait_until(condition: Callable[[], Any], timeout_seconds: float, *, every_seconds: float = 0.05) -> Any:
    """Return the first true value of `condition`, or its last value after the time-out."""
    until = time.monotonic() + timeout_seconds
    while not (value := condition()) and time.monotonic() < until:
        time.sleep(every_seconds)
    return value


def kill(pid: int, number: signal.Signals) -> bool:
    """Send a signal; return whether the process existed."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def is_alive(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def descendants(pid: int) -> list[psutil.Process]:
    """Return the processes below a process; none if it does not exist."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill_session(session: int) -> None:
    """Send SIGKILL to every process of a session, and to their descendants, which may have sessions of their own."""
    for _ in range(3):
        for pid in [pid for pid in psutil.pids() if _session_of(pid) == session]:
            for member in [*(process.pid for process in descendants(pid)), pid]:
                kill(member, signal.SIGKILL)
        time.sleep(0.05)


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1
