"""A damaged record is recovered from its copy and reported, or refused by name; it is never accepted silently."""

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study.scheduling.search_director import SearchDirector
from study.state.record_book import RecordBook
from tests.study.replaying import replay_search
from tests.study.simulated import FIXED, drive, learning_curve, make_report, make_spec
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord
from trainables.storage.store import StorageError, Store

RECORD, COPY = "trials/00001/record.json", "trials/00001/record.copy.json"
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    drive(SearchDirector(RecordBook(store), make_spec(num_trials=4), FIXED))
    store.write_bytes("whole.json", store.read_bytes(RECORD))
    return store


def damage(content: bytes, offset: int, bit: int | None) -> bytes:
    """Cut the content off at the offset, or flip one bit there."""
    if bit is None:
        return content[:offset]
    return content[:offset] + bytes([content[offset] ^ (1 << bit)]) + content[offset + 1 :]


def has_equal_values(damaged: bytes, whole: bytes) -> bool:
    """Whether the JSON holds the same values: the damage hit white space, or a 17th digit that does not change the number."""
    try:
        return bool(json.loads(damaged) == json.loads(whole))
    except ValueError:
        return False


@QUICK
@given(data=st.data(), bit=st.none() | st.integers(0, 7))
def test_every_cut_and_flipped_bit_is_recovered_or_named(store: Store, data: st.DataObject, bit: int | None) -> None:
    whole = store.read_bytes(COPY)
    offset = data.draw(st.integers(0, len(whole) - 1))
    store.write_bytes(RECORD, damage(whole, offset, bit))
    expected = TrialRecord.from_json(whole, where="copy")
    book = RecordBook(store)
    record = book.get("search", "00001")
    if record.is_altered:
        # The configuration alone: the rest has its checksum.
        assert record.model_copy(update={"config": expected.config}) == expected
        return
    assert record == expected
    assert book.recovered or has_equal_values(damage(whole, offset, bit), whole)


@QUICK
@given(data=st.data(), bit=st.none() | st.integers(0, 7))
def test_damage_without_a_good_copy_is_refused_by_name(store: Store, data: st.DataObject, bit: int | None) -> None:
    whole = store.read_bytes("whole.json")
    place = whole.index(b'"fingerprint"')  # after the configuration
    offset = data.draw(st.integers(place, len(whole) - 3))
    damaged = damage(whole, offset, bit)
    store.write_bytes(RECORD, damaged)
    store.write_bytes(COPY, damaged)
    if has_equal_values(damaged, whole):
        return
    with pytest.raises(DamagedFileError, match=rf"{RECORD}.*and so is its copy"):
        RecordBook(store)


@pytest.mark.parametrize("bit", range(8))
def test_a_changed_last_digit_is_the_same_number_or_named(store: Store, bit: int) -> None:
    whole = store.read_bytes("whole.json")
    for number in re.finditer(rb"[0-9]\.[0-9]{12,}", whole):
        damaged = damage(whole, number.end() - 1, bit)
        for name in (RECORD, COPY):
            store.write_bytes(name, damaged)
        try:
            record = RecordBook(store).get("search", "00001")
        except DamagedFileError:
            assert not has_equal_values(damaged, whole)
        else:
            assert record.is_altered or record == TrialRecord.from_json(whole, where="whole")


def test_driver_rewrites_recovered_records_and_reports_them(store: Store) -> None:
    whole = store.read_bytes(COPY)
    store.write_bytes(RECORD, whole[:100])
    book = RecordBook(store)
    (message,) = book.recovered
    assert RECORD in message
    assert message.endswith("it was recovered from its copy")
    assert store.read_bytes(RECORD) == whole[:100], "reading alone changes nothing"
    book.sign_with(3)
    assert RecordBook(store).recovered == ()
    assert RecordBook(store).get("search", "00001").writer.endswith("#3")


def test_missing_record_is_recovered_from_its_copy(store: Store) -> None:
    store.delete(RECORD)
    book = RecordBook(store)
    assert "is missing; it was recovered from its copy" in book.recovered[0]
    assert len(book.of_stage("search")) == 4


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"3", b"null", b'{"a": NaN}', b"\xff\xfe"])
def test_hostile_record_is_refused_by_name(store: Store, content: bytes) -> None:
    for name in (RECORD, COPY):
        store.write_bytes(name, content)
    with pytest.raises(DamagedFileError, match=r"00001/record\.json is damaged"):
        RecordBook(store)


def test_a_study_is_opened_by_one_request_per_trial_and_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(SearchDirector(RecordBook(Store(tmp_path)), make_spec(num_trials=20, sampler="random"), FIXED))
    (tmp_path / "trials" / "left").mkdir()
    running, most, verbs = 0, 0, []
    lock, request = threading.Lock(), Store._try

    def slow(self: Store, verb: str, name: str, action: Callable[[], Any]) -> Any:
        nonlocal running, most
        with lock:
            verbs.append(verb)
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return request(self, verb, name, action)

    monkeypatch.setattr(Store, "_try", slow)
    monkeypatch.setattr(Store, "is_local", False)
    assert len(RecordBook(Store(tmp_path)).of_stage("search")) == 20
    assert len(verbs) <= 20 + 5
    assert most >= 10


class RemoteStore(Store):
    """A folder that is written as an object store is: each write waits until another one is on its way too."""

    is_local = False  # type: ignore[assignment]

    def __init__(self, root: Path, failing: str = "none") -> None:
        super().__init__(root)
        self._failing, self._both = failing, threading.Barrier(2, timeout=20)
        self.written: list[str] = []

    def write_bytes(self, name: str, data: bytes) -> None:
        self._both.wait()
        if name == self._failing:
            raise StorageError(f"{name}: the store does not answer")
        time.sleep(0.05)
        Store(self.root).write_bytes(name, data)
        self.written.append(name)


def test_record_and_copy_go_to_an_object_store_at_once(tmp_path: Path) -> None:
    store = RemoteStore(tmp_path)
    record = SearchDirector(RecordBook(store), make_spec(num_trials=4), FIXED).next_trial()
    assert record is not None
    assert sorted(store.written) == ["trials/00000/record.copy.json", "trials/00000/record.json"]
    assert RecordBook(Store(tmp_path)).get("search", "00000") == record


@pytest.mark.parametrize("failing", ["record.json", "record.copy.json"])
def test_a_write_that_fails_leaves_no_other_one_on_its_way(tmp_path: Path, failing: str) -> None:
    store = RemoteStore(tmp_path, f"trials/00000/{failing}")
    book = RecordBook(store)
    with pytest.raises(StorageError, match=rf"00000/{failing}: the store does not answer"):
        SearchDirector(book, make_spec(num_trials=4), FIXED).next_trial()
    assert len(store.written) == 1
    assert book.of_stage("search") == ()


class GatedStore(RemoteStore):
    """An object store that answers writes only while its gate is open."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate, self.is_asked = threading.Event(), threading.Event()
        self.gate.set()

    def write_bytes(self, name: str, data: bytes) -> None:
        self.is_asked.set()
        assert self.gate.wait(20)
        if self._failing in name:
            raise StorageError(f"{name}: the store does not answer")
        Store(self.root).write_bytes(name, data)
        self.written.append(name)

    def close_gate(self) -> None:
        self.is_asked.clear()
        self.gate.clear()

    def fail(self, trial_id: str) -> None:
        self._failing = trial_id


def start_search(store: Store, num_trials: int) -> tuple[SearchDirector, list[TrialRecord]]:
    director = SearchDirector(RecordBook(store), make_spec(num_trials=num_trials, pruning="none"), FIXED)
    started = [director.next_trial() for _ in range(num_trials)]
    return director, [record for record in started if record is not None]


def report(director: SearchDirector, record: TrialRecord, epoch: int) -> bool:
    return director.on_report(record.trial_id, make_report(epoch, learning_curve(record, epoch), 1.0))


def test_reports_go_to_an_object_store_in_groups_and_the_end_of_a_trial_waits_for_them(tmp_path: Path) -> None:
    store = GatedStore(tmp_path)
    director, trials = start_search(store, 3)
    store.written.clear()
    store.close_gate()
    for epoch in range(1, 6):
        assert all(report(director, trial, epoch) for trial in trials)
    assert store.written == []
    opens = threading.Timer(0.2, store.gate.set)
    opens.start()
    assert not report(director, trials[0], 6)
    # At most all three, all three again, and the one that has ended, of 16 reports.
    assert len(store.written) <= 2 * (3 + 3 + 1)
    assert {name.split("/")[1] for name in store.written[-2:]} == {trials[0].trial_id}
    assert list(RecordBook(Store(tmp_path))) == list(director.book)
    opens.join()


def test_what_goes_wrong_with_a_report_is_raised_by_a_later_call(tmp_path: Path) -> None:
    store = GatedStore(tmp_path)
    director, (trial, other) = start_search(store, 2)
    store.fail(trial.trial_id)
    assert report(director, trial, 1)
    with pytest.raises(StorageError, match="does not answer"):
        director.book.wait()
    with pytest.raises(StorageError, match="does not answer"):
        report(director, other, 1)
    assert RecordBook(Store(tmp_path)).get("search", other.trial_id).epochs == ()


def test_epochs_after_one_that_a_stopped_driver_has_not_written_are_reported_anew(tmp_path: Path) -> None:
    """Without it, the decisions about them could not be replayed."""
    store = GatedStore(tmp_path)
    director, trials = start_search(store, 3)
    for trial in trials:
        report(director, trial, 1)
    director.book.wait()
    store.fail(trials[1].trial_id)
    store.close_gate()
    report(director, trials[0], 2)
    assert store.is_asked.wait(20), "the others come into the next group"
    for trial in trials[1:]:
        report(director, trial, 2)
    store.gate.set()
    with pytest.raises(StorageError):
        director.book.wait()
    book = RecordBook(Store(tmp_path))
    assert [len(record.epochs) for record in book] == [2, 1, 2]
    book.sign_with(2)
    assert [len(record.epochs) for record in book] == [2, 1, 1]
    assert [record.device_seconds for record in book] == [2.0, 1.0, 1.0]
    assert list(RecordBook(Store(tmp_path))) == list(book)
    spec = make_spec(num_trials=3, pruning="none")
    drive(SearchDirector(book, spec, FIXED))
    events = [order for r in book for order in (r.suggested_order, *(e.order for e in r.epochs), r.ended_order)]
    assert {*events} == {*range(len(events))}
    assert not replay_search(book.of_stage("search"), {0: spec}).difference


def test_checkpoints_in_an_object_store_are_deleted_beside_the_next_reports(tmp_path: Path) -> None:
    store = GatedStore(tmp_path)
    director, (trial, _) = start_search(store, 2)
    folder = tmp_path / "trials" / trial.trial_id / "checkpoint"
    folder.mkdir()
    for epoch in range(1, 7):
        report(director, trial, epoch)
    director.book.wait()
    assert not folder.exists()


def test_what_a_driver_read_is_brought_to_disk_before_it_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver whose disk was full renamed a record, but did not flush the folder: a power loss would undo it later."""
    _, trials = start_search(Store(tmp_path), 2)
    flushed = []
    monkeypatch.setattr("trainables.storage.store.sync_folder", lambda path: flushed.append(path))
    RecordBook(Store(tmp_path)).sign_with(2)
    assert {tmp_path, tmp_path / "trials", *(tmp_path / "trials" / trial.trial_id for trial in trials)} <= {*flushed}
    assert Store(tmp_path).list_folder("trials") == tuple(trial.trial_id for trial in trials)
