"""One driver at a time: who holds a study, when it is free again, and that a driver that lost it stops writing."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search_spaces.errors import UserInputError
from study.scheduling.search_director import SearchDirector
from study.state import lease as lease_module
from study.state.interruption import StudyInterrupted
from study.state.lease import Lease, acquire_lease, hold_lease, read_holder
from study.state.record_book import RecordBook
from tests.study.simulated import FIXED, make_report, make_spec
from trainables.records.store import Store


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


def test_second_driver_is_refused_with_who_and_since_when(tmp_path: Path) -> None:
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
            book.fence(lease.check, lease.token)
            record = SearchDirector(book, make_spec(), FIXED).next_trial()
            assert record is not None
            assert record.writer.endswith(f":{os.getpid()}#{token}")


def test_lease_of_a_dead_process_is_free_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_lease(store, pid=dead_process())
    with hold_lease(store) as lease:
        assert lease.token == 8


def test_lease_of_another_host_is_free_after_its_time(tmp_path: Path) -> None:
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
        book = RecordBook(store)
        book.fence(lease.check, lease.token)
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


def test_driver_that_slept_looks_before_it_writes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with hold_lease(store) as lease:
        write_lease(store, holder="the next driver")
        lease.check()  # within the lease's time it need not look
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
def test_damaged_lease_waits_for_its_driver_and_is_taken_if_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    store = Store(tmp_path)
    store.write_text("lease.json", damage)
    assert isinstance(acquire_lease(store), Lease)
    store.write_text("lease.json", damage)
    with pytest.raises(UserInputError, match="is driven by"):
        acquire_lease(store)
