"""One driver at a time: who holds a study, when it can be taken, and that nothing is written without the lease."""

import json
import math
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from search_spaces.errors import UserInputError
from study.open_study import create_to_drive, load_study, open_to_drive
from study.scheduling.search_director import SearchDirector
from study.state import lease as lease_module
from study.state.lease import LEASE_SECONDS, acquire_lease, hold_lease, read_holder
from study.state.paths import PASSPORT
from study.state.record_book import RecordBook, StudyInterrupted, now_utc
from study.state.sealed_files import FencedStore, write_sealed_json
from study.views.status import print_status
from tests.study.command_line import run_cli
from tests.study.searched import simulate, simulate_confirmed
from tests.study.simulated import FIXED, make_report, make_spec
from tests.study.state import suspended_driver
from trainables.processes import read_boot_id, read_pid_namespace, read_start_time, uptime_seconds
from trainables.storage import store as store_module
from trainables.storage.durable import link_new
from trainables.storage.store import StorageError, Store


def write_lease(store: Store, token: int = 7, **changes: object) -> None:
    """Write the lease of another live driver on this machine: a child of this process that the tests call by its pid."""
    content = {
        "holder": "somebody",
        "host": platform.node(),
        "boot": read_boot_id(),
        "pid_namespace": read_pid_namespace(),
        "pid": os.getpid(),
        "started": read_start_time(os.getpid()),
        "since": now_utc(),
        "renewed": now_utc(),
        "uptime": uptime_seconds(),
        **changes,
    }
    store.write_text(f"lease/{token:06d}", json.dumps(content))


ELSEWHERE: dict[str, object] = {"host": "elsewhere", "boot": "another", "pid": 1}


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def test_second_driver_is_refused_with_the_holder_and_the_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with hold_lease(store) as lease:
        holder = read_holder(store)
        assert holder is not None
        with pytest.raises(
            UserInputError, match=f"process {os.getpid()} on .* since {holder.since}".replace("+", r"\+")
        ):
            acquire_lease(store)
        lease.check()
    assert read_holder(store) is None


HELD = """
import sys, time
from study.state.lease import hold_lease
from trainables.storage.store import Store
with hold_lease(Store(sys.argv[1])):
    try:
        print("held", flush=True)
        time.sleep(60)
    except SystemExit:
        sys.exit(1)  # as Ray does
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_driver_that_is_told_to_end_releases_the_lease(
    tmp_path: Path, number: signal.Signals, is_ignored: bool
) -> None:
    """A closed terminal sends SIGHUP, which a driver that was started with `nohup` ignores."""
    # Also where these tests were started with `nohup`.
    action = f"import signal; signal.signal({number:d}, signal.{'SIG_IGN' if is_ignored else 'SIG_DFL'})\n"
    with subprocess.Popen([sys.executable, "-c", action + HELD, tmp_path], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "held\n"
        driver.send_signal(number)
        if is_ignored:
            with pytest.raises(subprocess.TimeoutExpired):
                driver.wait(0.3)
            driver.kill()
        else:
            assert driver.wait(60) == 128 + number
    lease = json.loads((tmp_path / "lease/000001").read_text())
    assert bool(lease["holder"]) is is_ignored


def test_the_release_does_not_wait_for_an_object_store_that_has_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In R19 a driver that had stopped went on for minutes, in which it told nobody."""
    lease, asked = acquire_lease(Store(tmp_path)), list[float]()
    monkeypatch.setattr(Store, "is_local", False)
    monkeypatch.setattr(lease, "_look", lambda: asked.append(lease._renewed))
    monkeypatch.setattr(lease, "_renewed", lease._renewed - LEASE_SECONDS)
    lease.release()
    assert asked == []


def test_the_signals_of_a_process_are_its_own_again(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)]
    with hold_lease(Store(tmp_path)):
        assert signal.getsignal(signal.SIGHUP) != signal.SIG_DFL
    assert [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)] == before


def test_token_grows_with_every_driver_and_signs_the_records(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for token in (1, 2):
        with hold_lease(store) as lease:
            assert lease.token == token
            book = RecordBook(store)
            book.sign_with(lease.token)
            record = SearchDirector(book, make_spec(), FIXED).next_trial()
            assert record is not None
            assert record.writer.endswith(f":{os.getpid()}#{token}")


@pytest.mark.parametrize("is_dead", [True, False])
def test_lease_of_a_process_that_ended_or_whose_id_another_one_has_now_can_be_taken_at_once(
    tmp_path: Path, is_dead: bool
) -> None:
    store = Store(tmp_path)
    write_lease(store, **({"pid": dead_process()} if is_dead else {"started": "1"}))
    with hold_lease(store) as lease:
        assert lease.token == 8


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)


@pytest.mark.usefixtures("short_lease")
@pytest.mark.parametrize("renewed", ["2020-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"])
def test_lease_of_another_machine_is_watched_whatever_its_clock(
    tmp_path: Path, renewed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    write_lease(store, **ELSEWHERE, renewed=renewed)
    began = time.monotonic()
    with hold_lease(store) as lease:
        assert lease.token == 8
        assert time.monotonic() - began > 0.6
    assert "to see whether process 1 on elsewhere" in capsys.readouterr().err


@pytest.mark.usefixtures("short_lease")
@pytest.mark.parametrize("clock_is_ahead_by", [-3600, 0, 3600])
def test_live_lease_of_another_machine_is_never_taken(tmp_path: Path, clock_is_ahead_by: int) -> None:
    """In the first version, a clock that is 61 s ahead or behind was enough to take a live lease."""
    store, stopped = Store(tmp_path), threading.Event()
    write_lease(store, **ELSEWHERE)
    stamp = (datetime.now(UTC) + timedelta(seconds=clock_is_ahead_by)).isoformat(timespec="seconds")

    def renew() -> None:
        while not stopped.wait(0.1):
            write_lease(store, **ELSEWHERE, renewed=stamp)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(renew)
        try:
            with pytest.raises(UserInputError, match="is driven by process 1 on elsewhere"):
                acquire_lease(store)
        finally:
            stopped.set()


def test_process_of_another_container_on_this_machine_is_not_taken_for_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process id means another process here, or none; how long ago it renewed is known by the clock of the machine."""
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.4)
    store = Store(tmp_path)
    write_lease(store, pid_namespace="pid:[1]", pid=dead_process())
    assert read_holder(store) is not None
    began = time.monotonic()
    with hold_lease(store) as lease:
        assert time.monotonic() - began > 0.3
        assert lease.token == 8


def test_a_renewal_counts_however_late_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that was cut off from the storage for a minute had waited long enough, and took the lease of one that lived."""
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(lease_module, "POLL_SECONDS", 0.05)
    store, read, calls = Store(tmp_path), lease_module._read, list[int]()
    write_lease(store, **ELSEWHERE)

    def read_late(store: Store, token: int) -> object:
        calls.append(token)
        if len(calls) == 2:
            time.sleep(0.5)
            write_lease(store, **ELSEWHERE, uptime=1.0)
        return read(store, token)

    monkeypatch.setattr(lease_module, "_read", read_late)
    with pytest.raises(UserInputError, match="is driven by"):
        acquire_lease(store)


def test_driver_that_lost_its_lease_writes_nothing_more(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with hold_lease(store) as lease:
        book = RecordBook(FencedStore(store.root, lease.writing))
        director = SearchDirector(book, make_spec(), FIXED)
        record = director.next_trial()
        assert record is not None
        director.on_report(record.trial_id, make_report(1, 0.5, 1.0))
        write_lease(store, token=2, holder="the next driver")
        before = (tmp_path / "trials/00000/record.json").read_bytes()
        with pytest.raises(StudyInterrupted, match="lost the study"):
            director.on_report(record.trial_id, make_report(2, 0.5, 1.0))
        assert (tmp_path / "trials/00000/record.json").read_bytes() == before
    holder = read_holder(store)
    assert holder is not None
    assert holder.holder == "the next driver"


def test_no_driver_takes_over_between_the_check_of_a_write_and_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LOCK_SECONDS", 0.2)
    store, written = Store(tmp_path), store_module._replace_local
    with hold_lease(store) as lease:

        def suspended(path: Path, data: bytes) -> None:
            monkeypatch.setattr(store_module, "_replace_local", written)
            # For this process the lease has expired meanwhile, as if the driver had been suspended here for a minute.
            monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.0)
            with pytest.raises(UserInputError, match="in the middle of a write"):
                acquire_lease(store)
            written(path, data)

        monkeypatch.setattr(store_module, "_replace_local", suspended)
        FencedStore(store.root, lease.writing).write_text("note", "one")
        with hold_lease(store), pytest.raises(StudyInterrupted, match="lost the study"):
            FencedStore(store.root, lease.writing).write_text("note", "two")
    assert store.read_text("note") == "one"


def test_on_an_object_store_a_driver_whose_renewals_are_late_takes_the_next_token_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was suspended with a driver that wanted to take over, saw no successor, and wrote while that one took over."""
    store = Store(tmp_path)
    with hold_lease(store) as lease:
        monkeypatch.setattr(Store, "is_local", False)
        monkeypatch.setattr(
            Store, "create_bytes", lambda _, name, data: link_new(tmp_path / "aside", tmp_path / name, data)
        )
        lease.check()
        assert lease.token == 1
        lease._renewed -= lease_module.LEASE_SECONDS / 2 + 1
        lease.check()
        assert lease.token == 2
        assert read_holder(store) is not None
        lease.check()
        lease._renewed -= lease_module.LEASE_SECONDS / 2 + 1
        # Another driver takes it between the look of the check and its end.
        monkeypatch.setattr(
            Store, "create_bytes", lambda *_: bool(write_lease(store, token=3, holder="the next driver"))
        )
        with pytest.raises(StudyInterrupted, match="lost the study"):
            lease.check()
        assert lease.token == 2


def test_a_disk_that_cannot_be_written_is_named_by_who_wants_to_drive(tmp_path: Path) -> None:
    (tmp_path / "study").write_text("no folder")
    with pytest.raises(StorageError, match="lease/lock could not be opened, which a driver needs"):
        acquire_lease(Store(tmp_path / "study"))


def test_lease_is_renewed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    store = Store(tmp_path)
    with hold_lease(store):
        first = store.read_bytes("lease/000001")
        time.sleep(0.5)
        assert store.read_bytes("lease/000001") != first


@pytest.mark.usefixtures("short_lease")
@pytest.mark.parametrize("damage", ["", "{", '{"holder": 3}', "\x00\x00"])
def test_damaged_lease_is_taken_only_if_no_driver_rewrites_it(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    store.write_text("lease/000001", damage)
    with hold_lease(store) as lease:
        assert lease.token == 2
        store.write_text("lease/000002", damage)
        with pytest.raises(UserInputError, match="is driven by"):
            acquire_lease(store)


@pytest.mark.usefixtures("short_lease")
@pytest.mark.parametrize(
    "changes",
    [
        {**ELSEWHERE, "renewed": "yesterday"},
        {**ELSEWHERE, "renewed": "2026-12-01T10:00:00"},
        {**ELSEWHERE, "renewed": "1970-01-01T00:00:00+00:00"},
        {**ELSEWHERE, "uptime": math.nan},
        {**ELSEWHERE, "host": "[/red]\x1b[2J"},
        {"pid_namespace": "pid:[1]", "uptime": 1e12},
    ],
    ids=str,
)
def test_a_lease_written_by_hand_stops_no_view_and_no_driver_for_long(
    tmp_path: Path, changes: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    study = simulate(tmp_path, max_events=1)
    write_sealed_json(study.store, PASSPORT, {"num_devices": 1})
    write_lease(study.store, **changes)
    print_status(study, Console())
    with hold_lease(Store(study.store.root)) as lease:
        assert lease.token == 8
    assert "\x1b" not in "".join(capsys.readouterr())


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a study but its lease."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: content for name, content in files.items() if not name.startswith("lease/")}


@pytest.mark.timeout(120)
def test_driver_suspended_past_its_lease_is_refused_every_kind_of_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = simulate_confirmed(tmp_path / "study")
    folder = study.store.local_path
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", suspended_driver.LEASE_SECONDS)
    command = [sys.executable, "-m", suspended_driver.__name__, str(folder)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        try:
            written = json.loads(driver.stdout.readline())
            assert set(written.values()) == {""}, "with the lease every write succeeds"
            os.kill(driver.pid, signal.SIGSTOP)
            while read_holder(study.store) is not None:
                time.sleep(0.1)
            assert run_cli("analyze", folder).status == 0
            before = read_files(folder)
            os.kill(driver.pid, signal.SIGCONT)
            driver.stdin.write("\n")
            driver.stdin.flush()
            refused = json.loads(driver.stdout.readline())
        finally:
            driver.kill()
    assert set(refused) == set(written)
    assert all("lost the study" in refusal for refusal in refused.values()), refused
    assert read_files(folder) == before


@pytest.mark.parametrize("command", ["analyze", "report", "compare"])
def test_commands_that_write_are_refused_while_another_driver_holds_the_study(tmp_path: Path, command: str) -> None:
    store = simulate(tmp_path / "study", max_events=3).store
    write_lease(store)
    before = read_files(tmp_path)
    outcome = run_cli(command, tmp_path / "study")
    assert outcome.status == 2
    assert f"is driven by process {os.getpid()}" in outcome.errors
    assert read_files(tmp_path) == before


WRITES: dict[str, Callable[[Store], None]] = {
    "text": lambda store: store.write_text("spec.toml", ""),
    "bytes": lambda store: store.write_bytes("spec.toml", b""),
    "deletion": lambda store: store.delete("spec.toml"),
    "file of a trial": lambda store: store.child("trials").write_text("note", ""),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_study_opened_to_be_read_or_after_its_lease_cannot_be_written(
    tmp_path: Path, write: Callable[[Store], None]
) -> None:
    store = simulate(tmp_path, max_events=3).store
    with open_to_drive(store) as driven:
        driven.store.write_text("note", "")
    before = read_files(tmp_path)
    with pytest.raises(RuntimeError, match="only under its lease"):
        write(load_study(store).store)
    with pytest.raises(RuntimeError, match="was released"):
        write(driven.store)
    assert read_files(tmp_path) == before


def test_study_is_created_under_its_lease_and_only_once(tmp_path: Path) -> None:
    store, spec = Store(tmp_path), make_spec()
    write_lease(store, pid=dead_process())  # of a launch that was killed before it wrote anything
    with create_to_drive(store, spec, {}) as created:
        assert read_holder(store) is not None
        assert created.spec.name == "simulated"
    before = read_files(tmp_path)
    with pytest.raises(UserInputError, match="exists"), create_to_drive(store, spec, {}):
        pass
    assert read_files(tmp_path) == before
