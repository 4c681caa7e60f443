"""One driver at a time: who holds a study, when it can be taken, and that nothing is written without the lease."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces.errors import UserInputError
from study.open_study import create_to_drive, load_study, open_to_drive
from study.scheduling.search_director import SearchDirector
from study.state import lease as lease_module
from study.state.fenced_store import FencedStore
from study.state.interruption import StudyInterrupted
from study.state.lease import Lease, LeaseFile, acquire_lease, hold_lease, read_holder
from study.state.record_book import RecordBook
from tests.study.command_line import run_cli
from tests.study.searched import simulate, simulate_confirmed
from tests.study.simulated import FIXED, make_report, make_spec
from tests.study.state import suspended_driver
from trainables.storage.store import Store


def write_lease(store: Store, **changes: object) -> None:
    content = {
        "holder": "somebody",
        "host": platform.node(),
        "pid": os.getpid(),
        "since": lease_module.now_utc(),
        "renewed": lease_module.now_utc(),
        "token": 7,
        **changes,
    }
    store.write_text("lease.json", json.dumps(content))


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


def test_lease_of_a_dead_process_can_be_taken_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_lease(store, pid=dead_process())
    with hold_lease(store) as lease:
        assert lease.token == 8


def test_lease_of_another_host_can_be_taken_after_it_expires(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_lease(store, host="elsewhere", pid=1)
    with pytest.raises(UserInputError, match="process 1 on elsewhere"):
        acquire_lease(store)
    write_lease(store, host="elsewhere", pid=1, renewed="2020-01-01T00:00:00+00:00")
    with hold_lease(store) as lease:
        assert lease.token == 8


def test_driver_that_lost_its_lease_writes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    store = Store(tmp_path)
    with hold_lease(store) as lease:
        book = RecordBook(FencedStore(store.root, lease.check))
        director = SearchDirector(book, make_spec(), FIXED)
        record = director.next_trial()
        assert record is not None
        director.on_report(record.trial_id, make_report(1, 0.5, 1.0))
        write_lease(store, holder="the next driver")
        time.sleep(0.5)
        before = (tmp_path / "trials/00000/record.json").read_bytes()
        with pytest.raises(StudyInterrupted, match="lost the study"):
            director.on_report(record.trial_id, make_report(2, 0.5, 1.0))
        assert (tmp_path / "trials/00000/record.json").read_bytes() == before
    holder = read_holder(store)
    assert holder is not None
    assert holder.holder == "the next driver"


def test_suspended_driver_checks_the_lease_before_it_writes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with hold_lease(store) as lease:
        write_lease(store, holder="the next driver")
        lease.check()  # shortly after a renewal the file is not read
        lease._renewed -= lease_module.LEASE_SECONDS
        with pytest.raises(StudyInterrupted, match="lost the study"):
            lease.check()


def test_lease_is_renewed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    store = Store(tmp_path)
    with hold_lease(store):
        old = json.loads(store.read_text("lease.json")) | {"renewed": "2020-01-01T00:00:00+00:00"}
        store.write_text("lease.json", json.dumps(old))
        time.sleep(0.5)
        assert not json.loads(store.read_text("lease.json"))["renewed"].startswith("2020")


@pytest.mark.parametrize("damage", ["", "{", '{"holder": 3}', "\x00\x00"])
def test_damaged_lease_is_taken_only_if_no_driver_rewrites_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    store = Store(tmp_path)
    store.write_text("lease.json", damage)
    assert isinstance(acquire_lease(store), Lease)
    store.write_text("lease.json", damage)
    with pytest.raises(UserInputError, match="is driven by"):
        acquire_lease(store)


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a study but its lease."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: content for name, content in files.items() if name != "lease.json"}


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


def test_driver_suspended_in_the_middle_of_a_renewal_has_lost_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, write = Store(tmp_path), lease_module._write
    with hold_lease(store) as lease:

        def write_late(store: Store, held: LeaseFile) -> None:
            write_lease(store, holder="the next driver")
            time.sleep(0.1)
            write(store, held)

        monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
        monkeypatch.setattr(lease_module, "_write", write_late)
        lease._renewed -= lease_module.LEASE_SECONDS
        with pytest.raises(StudyInterrupted, match="may have taken over"):
            lease.check()


def test_lease_overwritten_by_the_driver_that_lost_it_is_written_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_lease(store, host="elsewhere", renewed="2020-01-01T00:00:00+00:00", since="2020-01-01T00:00:00+00:00")
    overwritten = store.read_text("lease.json")
    with hold_lease(store) as lease:
        store.write_text("lease.json", overwritten)
        lease._renewed -= lease_module.LEASE_SECONDS
        lease.check()
        holder = read_holder(store)
        assert holder is not None
        assert holder.token == lease.token


def test_study_is_created_under_its_lease_and_only_once(tmp_path: Path) -> None:
    store, spec = Store(tmp_path), make_spec()
    write_lease(store, pid=dead_process())  # of a launch that was killed before it wrote anything
    text = 'name = "simulated"\n[data]\nsource = "planted"\n[model]\nweights = "none"\n'
    with create_to_drive(store, spec, text, {}) as created:
        assert read_holder(store) is not None
        assert created.spec.name == "simulated"
    before = read_files(tmp_path)
    with pytest.raises(UserInputError, match="exists"), create_to_drive(store, spec, text, {}):
        pass
    assert read_files(tmp_path) == before
