"""One driver at a time: each driver takes the study with the next token, which no other can take, and renews its lease.

Token T is the file `lease/T`, created exclusively and then written by its holder alone. The driver with the largest token
drives the study; an earlier one stops at its next write, before which it checks (`study.state.sealed_files`). No clocks of two
machines are compared: a lease is stale if a driver that wants it saw its file unchanged for `LEASE_SECONDS`, by its own clock.
On an object store, where no lock keeps others away, a driver whose renewals were late takes the next token itself, if nobody has.
"""

import contextlib
import errno
import fcntl
import os
import platform
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from search_spaces.errors import UserInputError
from study.state.paths import LEASES
from study.state.record_book import StudyInterrupted, now_utc
from trainables.data.problems import make_printable
from trainables.processes import read_boot_id, read_pid_namespace, read_start_time, uptime_seconds
from trainables.storage.durable import make_folder
from trainables.storage.store import StorageError, StorageRefusedError, Store

# A lease can be taken if it was not renewed for this long; on the machine of its holder, as soon as the process has ended.
LEASE_SECONDS = 60.0
RENEW_SECONDS = 10.0
POLL_SECONDS = 1.0
# Longest time that a write of a study's driver may take while another one waits to take over.
LOCK_SECONDS = 10.0
# Locked for each write on a local or mounted disk, so that no driver takes over between the check of a write and its end.
LOCK = f"{LEASES}/lock"


class LeaseFile(BaseModel):
    """The content of a token's file.

    Attributes:
        holder: random text that identifies the driver; "" after its release.
        host: name of its machine.
        boot: identifies the start of this machine; "" where it is not known.
        pid_namespace: identifies the processes among which `pid` is unique; "" where it is not known.
        pid: its process.
        started: when that process started, in clock ticks of this machine; None where it is not known.
        since: when it took the lease, ISO 8601, UTC. Shown to people only, as is `renewed`.
        renewed: when it last renewed the lease, ISO 8601, UTC.
        uptime: of its machine at that time, seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    holder: str
    host: str
    boot: str
    pid_namespace: str
    pid: int
    started: str | None
    since: str
    renewed: str
    uptime: float

    @property
    def is_here(self) -> bool:
        """Whether the driver's machine is this one, and has not started again."""
        return bool(self.boot) and (self.host, self.boot) == (platform.node(), read_boot_id())

    @property
    def is_visible(self) -> bool:
        """Whether this process sees the driver's: it is on the same machine, and in the same container."""
        return self.is_here and self.pid_namespace == read_pid_namespace() != ""

    @property
    def has_ended(self) -> bool:
        """Whether the driver has released the lease, or its process has certainly ended."""
        return not self.holder or (self.is_visible and read_start_time(self.pid) != self.started)

    def describe(self) -> str:
        """Return who holds the lease since when."""
        return make_printable(f"process {self.pid} on {self.host} since {self.since}")

    def renew(self) -> "LeaseFile":
        """Return the content with the present time."""
        return self.model_copy(update={"renewed": now_utc(), "uptime": uptime_seconds()})


class Lease:
    """The lease that this process holds on the study at `store`; a thread renews it until `release`.

    Attributes:
        token: the largest one that this driver has taken.
    """

    def __init__(self, store: Store, token: int, held: LeaseFile) -> None:
        self.token = token
        self._store = store
        self._held = held
        self._renewed = held.uptime
        self._lost = ""
        self._lock = threading.Lock()
        self._released = threading.Event()
        threading.Thread(target=self._keep, name="study-lease", daemon=True).start()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Check that this driver may write, and on a local or mounted disk keep others from taking over until the end.

        Raises:
            StudyInterrupted: If another driver has taken the study.
            RuntimeError: If the lease was released.
        """
        with _locked(self._store, fcntl.LOCK_SH):
            self.check()
            yield

    def check(self) -> None:
        """Raise as `writing` does.

        On an object store this asks the storage only where renewals are late: else nobody can have taken over.

        Raises:
            StorageRefusedError: Also if the lease may be lost and the storage does not say whether it is.
        """
        if self._released.is_set():
            raise RuntimeError(f"the lease on the study {self._store.root} was released; nothing can be written")
        if self._store.is_local or self._is_late:
            try:
                self._look()
                if self._is_late:
                    self._renew()
            except StorageError as error:
                raise StorageRefusedError(f"nothing was written, since the lease may be lost: {error}") from None
        if self._lost:
            raise StudyInterrupted(
                f"this driver lost the study {self._store.root}, which {self._lost}; it stops and writes nothing more"
            )

    def release(self) -> None:
        """Release the lease; if the storage fails, or has not answered the last renewals, it expires instead."""
        self._released.set()
        if self._is_late:
            return  # each request would be retried for more than a minute
        with self._lock, contextlib.suppress(OSError):
            self._look()
            if not self._lost:
                _write(self._store, self.token, self._held.renew().model_copy(update={"holder": ""}))

    def _keep(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            with contextlib.suppress(OSError):  # a later renewal may succeed
                self._look()
                if self._lost:
                    return
                self._renew()

    @property
    def _is_late(self) -> bool:
        """Whether another driver may be about to take over, and no lock keeps it from that."""
        return not self._store.is_local and uptime_seconds() - self._renewed > LEASE_SECONDS / 2

    def _renew(self) -> None:
        """Write the time of now; where renewals were late, into the next token, which one driver alone can take."""
        with self._lock:
            if self._released.is_set():
                return
            held = self._held.renew()
            if not self._is_late:
                _write(self._store, self.token, held)
            elif self._store.create_bytes(_name(self.token + 1), _encode(held)):
                self.token += 1
            else:
                self._look()
                return
            self._held, self._renewed = held, held.uptime

    def _look(self) -> None:
        """Find out whether another driver has the next token."""
        if self._lost or not self._store.exists(_name(self.token + 1)):
            return
        successor = _read(self._store, self.token + 1)
        self._lost = "was taken over by " + ("another driver" if successor is None else successor.describe())


@contextmanager
def hold_lease(store: Store) -> Iterator[Lease]:
    """Hold the study's lease, and release it at the end, also at that by SIGTERM or by SIGHUP of a closed terminal.

    Raises:
        UserInputError: As `acquire_lease` does.
    """
    with _exiting_on_signals():
        lease = acquire_lease(store)
        try:
            yield lease
        finally:
            lease.release()


@contextmanager
def _exiting_on_signals() -> Iterator[None]:
    """Let the first SIGTERM or SIGHUP raise SystemExit, if it would end the process at once; with `nohup` it does not.

    Ray, where the signal comes while it waits, raises one with the status 1 in its place.
    """
    driver, is_main = os.getpid(), threading.current_thread() is threading.main_thread()
    ending = [n for n in (signal.SIGTERM, signal.SIGHUP) if is_main and signal.getsignal(n) == signal.SIG_DFL]
    received: list[int] = []

    def leave(number: int, _: object) -> None:
        is_driver = os.getpid() == driver
        for other in ending:
            if signal.getsignal(other) is leave:
                signal.signal(other, signal.SIG_IGN if is_driver else signal.SIG_DFL)
        if not is_driver:  # a process that was forked
            signal.raise_signal(number)
        received.append(number)
        sys.exit(128 + number)

    for number in ending:
        signal.signal(number, leave)
    try:
        yield
    except SystemExit:
        if received:
            sys.exit(128 + received[0])
        raise
    finally:
        for number in ending:
            if signal.getsignal(number) in {leave, signal.SIG_IGN}:
                signal.signal(number, signal.SIG_DFL)


def acquire_lease(store: Store) -> Lease:
    """Return a new lease.

    Where it cannot be known at once whether the last driver has ended, because it ran on another machine or in another container,
    its lease is watched for `LEASE_SECONDS`; this is said on the standard error.

    Raises:
        UserInputError: Naming the holder and the time, if another driver holds the lease; naming the storage, if that has no
            conditional writes.
    """
    token = _last_token(store)
    if token:
        _wait_for_end(store, token)
    now, pid = now_utc(), os.getpid()
    mine = LeaseFile(
        holder=uuid.uuid4().hex,
        host=platform.node(),
        boot=read_boot_id(),
        pid_namespace=read_pid_namespace(),
        pid=pid,
        started=read_start_time(pid),
        since=now,
        renewed=now,
        uptime=uptime_seconds(),
    )
    with _locked(store, fcntl.LOCK_EX):
        if not store.create_bytes(_name(token + 1), _encode(mine)):
            raise UserInputError(f"the study {store.root} was taken by another driver at the same moment")
    return Lease(store, token + 1, mine)


def read_holder(store: Store) -> LeaseFile | None:
    """Return the lease of the driver that drives the study now, as far as it can be known at once; None if there is none."""
    lease = _read(store, _last_token(store))
    if lease is None or lease.has_ended:
        return None
    # On another machine, by the clocks of both: good enough to be shown.
    age = datetime.fromisoformat(now_utc()) - datetime.fromisoformat(lease.renewed)
    seconds = uptime_seconds() - lease.uptime if lease.is_here else age.total_seconds()
    return lease if seconds < LEASE_SECONDS else None


def _wait_for_end(store: Store, token: int) -> None:
    """Return as soon as the driver with this token has ended or is stale; raise UserInputError if it lives."""
    asked = uptime_seconds()
    first = lease = _read(store, token)
    # How long the file has been unchanged; on this machine its age is known.
    since = min(lease.uptime, uptime_seconds()) if lease is not None and lease.is_here else uptime_seconds()
    said = False
    while lease is None or not lease.has_ended:
        if lease is None and first is not None:
            first, since = lease, asked
        # It was unchanged when it was asked for, however long the answer took.
        waits = LEASE_SECONDS - (asked - since)
        if waits <= 0 and lease == first:
            return
        holder = "an unreadable lease" if lease is None else lease.describe()
        if lease is not None and (lease.is_visible or lease != first):
            raise UserInputError(
                f"the study {store.root} is driven by {holder} (last renewed {lease.renewed}); stop that driver, or wait until "
                f"{LEASE_SECONDS:.0f} s after its last renewal"
            )
        if not said:
            print(f"waits up to {waits:.0f} s to see whether {holder} still drives {store.root}", file=sys.stderr)
            said = True
        time.sleep(min(POLL_SECONDS, RENEW_SECONDS / 4, waits))
        asked = uptime_seconds()
        lease = _read(store, token)


@contextmanager
def _locked(store: Store, kind: int) -> Iterator[None]:
    """Hold the lock of a study on a local or mounted disk: shared to write, exclusive to take over.

    On an object store, and on a disk without locks, there is none: a driver that is suspended between the check of a write and
    the write itself for longer than `LEASE_SECONDS` writes once more.
    """
    if not store.is_local:
        yield
        return
    path = store.local_path / LOCK
    try:
        make_folder(path.parent)
        opened = path.open("a+")
    except OSError as error:
        raise StorageError(f"{path} could not be opened, which a driver needs: {error.strerror}") from None
    with opened as file:
        ends = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > ends:
                    raise UserInputError(
                        f"a driver of the study {store.root} is in the middle of a write and does not go on; "
                        f"end the process that has {path} open"
                    ) from None
                time.sleep(0.02)
                continue
            except OSError as error:
                if error.errno not in {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}:
                    raise
            break
        yield


def _last_token(store: Store) -> int:
    """Return the largest token that was taken; 0 if none was."""
    return max((int(name) for name in store.list_folder(LEASES) if name.isdecimal()), default=0)


def _name(token: int) -> str:
    return f"{LEASES}/{token:06d}"


def _encode(lease: LeaseFile) -> bytes:
    return f"{lease.model_dump_json(indent=1)}\n".encode()


def _read(store: Store, token: int) -> LeaseFile | None:
    """Return the content of a token's file; None if it is missing or damaged, or names no time with its zone."""
    try:
        lease = LeaseFile.model_validate_json(store.read_bytes(_name(token)))
        return lease if datetime.fromisoformat(lease.renewed).tzinfo else None
    except (ValueError, FileNotFoundError):
        return None


def _write(store: Store, token: int, lease: LeaseFile) -> None:
    store.write_bytes(_name(token), _encode(lease))
