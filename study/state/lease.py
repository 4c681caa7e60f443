"""One driver at a time: a lease on the study, renewed while the study is driven, with a fencing token that only grows.

A driver that was suspended for longer than the lease lasts may have lost it to another one. It checks before every write
(`study.state.fenced_store`), and stops without writing.
"""

import contextlib
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from search_spaces.errors import UserInputError
from study.state.interruption import StudyInterrupted
from study.state.paths import LEASE
from study.state.record_book import now_utc
from trainables.processes import is_alive
from trainables.storage.store import Store

# A lease can be taken if it was not renewed for this long; on the machine of its holder, as soon as the process has ended.
LEASE_SECONDS = 60.0
RENEW_SECONDS = 10.0


class LeaseFile(BaseModel):
    """The content of lease.json.

    Attributes:
        holder: random text that identifies the driver which holds the lease; "" after its release.
        host: name of the driver's machine.
        pid: its process.
        since: when it took the lease, ISO 8601, UTC.
        renewed: when it last renewed the lease, ISO 8601, UTC.
        token: the fencing token, which grows by one with every driver.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    holder: str
    host: str
    pid: int
    since: str
    renewed: str
    token: int


class Lease:
    """The lease that this process holds on the study at `store`; a thread renews it until `release`."""

    def __init__(self, store: Store, held: LeaseFile) -> None:
        self._store = store
        self._held = held
        self._renewed = time.time()
        self._lost = ""
        self._lock = threading.Lock()
        self._released = threading.Event()
        threading.Thread(target=self._keep, name="study-lease", daemon=True).start()

    @property
    def token(self) -> int:
        """The fencing token."""
        return self._held.token

    def check(self) -> None:
        """Raise StudyInterrupted if another driver has taken the study, RuntimeError if the lease was released."""
        if self._released.is_set():
            raise RuntimeError(f"the lease on the study {self._store.root} was released; nothing can be written")
        if time.time() - self._renewed > LEASE_SECONDS / 2:
            self._renew()  # the process was suspended: what it knew about the lease may be out of date
        if self._lost:
            raise StudyInterrupted(
                f"this driver lost the study {self._store.root}, which {self._lost}; it stops and writes nothing more"
            )

    def release(self) -> None:
        """Release the lease; if the storage fails, it expires instead."""
        self._released.set()
        with self._lock, contextlib.suppress(OSError):
            current = _read(self._store)
            if current is not None and current.holder == self._held.holder:
                _write(self._store, self._held.model_copy(update={"holder": "", "renewed": now_utc()}))

    def _keep(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            with contextlib.suppress(OSError):  # a later renewal may succeed
                self._renew()

    def _renew(self) -> None:
        with self._lock:
            if self._lost or self._released.is_set():
                return
            began, current = time.time(), _read(self._store)
            if current is not None and self._is_lost_to(current):
                self._lost = f"was taken over by process {current.pid} on {current.host} since {current.since}"
                return
            self._held = self._held.model_copy(update={"renewed": now_utc()})
            _write(self._store, self._held)
            now = time.time()
            if now - self._renewed > LEASE_SECONDS - 1 and now - began > RENEW_SECONDS:
                self._lost = (
                    "another driver may have taken over while this one was suspended in the middle of a renewal"
                )
                return
            self._renewed = began

    def _is_lost_to(self, current: LeaseFile) -> bool:
        """Whether the file is another driver's; an earlier one, suspended while it wrote the file, has lost the lease."""
        is_earlier = current.token < self._held.token and current.since <= self._held.since
        return current.holder != self._held.holder and not is_earlier


@contextmanager
def hold_lease(store: Store) -> Iterator[Lease]:
    """Hold the study's lease, and release it at the end.

    Raises UserInputError, which names the holder and the time, if another driver holds it.
    """
    lease = acquire_lease(store)
    try:
        yield lease
    finally:
        lease.release()


def acquire_lease(store: Store) -> Lease:
    """Return a new lease; raise UserInputError if another driver holds it."""
    current = _read(store)
    if current is None and store.exists(LEASE):
        # The file is damaged: a live driver rewrites it at its next renewal.
        time.sleep(1.5 * RENEW_SECONDS)
        current = _read(store)
    if current is not None and _is_held(current):
        raise UserInputError(
            f"the study {store.root} is driven by process {current.pid} on {current.host} since {current.since} "
            f"(last renewed {current.renewed}); stop that driver, or wait until {LEASE_SECONDS:.0f} s after its last renewal"
        )
    now = now_utc()
    mine = LeaseFile(
        holder=uuid.uuid4().hex,
        host=platform.node(),
        pid=os.getpid(),
        since=now,
        renewed=now,
        token=1 if current is None else current.token + 1,
    )
    _write(store, mine)
    # Another process may have found the lease free at the same moment: the last one to write holds it.
    time.sleep(0.05 if store.is_local else 2.0)
    winner = _read(store)
    if winner is None or winner.holder != mine.holder:
        raise UserInputError(f"the study {store.root} was taken over by another driver at the same moment")
    return Lease(store, mine)


def read_holder(store: Store) -> LeaseFile | None:
    """Return the lease of the driver that drives the study now; None if there is none."""
    current = _read(store)
    return current if current is not None and _is_held(current) else None


def _is_held(lease: LeaseFile) -> bool:
    if not lease.holder:
        return False
    if lease.host == platform.node() and not is_alive(lease.pid):
        return False
    age = datetime.fromisoformat(now_utc()) - datetime.fromisoformat(lease.renewed)
    return age.total_seconds() < LEASE_SECONDS


def _read(store: Store) -> LeaseFile | None:
    """Return the content of the lease file; None if it is missing or damaged."""
    if not store.exists(LEASE):
        return None
    try:
        return LeaseFile.model_validate_json(store.read_bytes(LEASE))
    except (ValidationError, FileNotFoundError):
        return None


def _write(store: Store, lease: LeaseFile) -> None:
    store.write_text(LEASE, lease.model_dump_json(indent=1) + "\n")
