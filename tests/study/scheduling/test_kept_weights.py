"""Weights of search trials: kept of those that may still be chosen, deleted of the others, and said in the record."""

from pathlib import Path
from typing import Any

import pytest
import torch

from study.scheduling.search_director import SearchDirector
from study.state.record_book import RecordBook, open_trial_files
from tests.study.simulated import FIXED, drive, make_spec
from trainables.records.record import TrialRecord, best_trials
from trainables.storage.store import Store


def search(folder: Path, *, stop: int | None = None, **changes: Any) -> list[TrialRecord]:
    """Run a search without pruning, or a part of it, and return its records as they are on disk."""
    spec = make_spec(num_trials=12, pruning="none", **changes)
    drive(SearchDirector(RecordBook(Store(folder)), spec, FIXED), num_workers=1, max_events=stop)
    return list(RecordBook(Store(folder)).of_stage("search"))


def kept(records: list[TrialRecord], arm: str) -> set[str]:
    return {r.trial_id for r in records if r.config.arm == arm and not r.weights_dropped}


@pytest.mark.parametrize(("changes", "number"), [({}, 2), ({"keep_weights": 1}, 1), ({"keep_weights": 0}, 0)])
def test_the_best_of_each_arm_are_kept(tmp_path: Path, changes: dict[str, Any], number: int) -> None:
    records = search(tmp_path, **changes)
    for arm in ("resnet18", "resnet50"):
        best = best_trials(records, arm)
        assert len(best) > 2
        assert kept(records, arm) == {r.trial_id for r in best[:number]}


def test_all_are_kept_where_that_is_wanted(tmp_path: Path) -> None:
    assert not any(r.weights_dropped for r in search(tmp_path, keep_weights="all"))
    assert make_spec().num_kept_weights == 2


def test_a_resumed_search_keeps_the_same(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole")
    search(tmp_path / "stopped", stop=40)
    again = search(tmp_path / "stopped")
    assert [r.weights_dropped for r in again] == [r.weights_dropped for r in whole]


def test_weights_that_a_killed_driver_left_behind_go_with_those_of_a_later_trial(tmp_path: Path) -> None:
    search(tmp_path, stop=40, keep_weights=1)
    book = RecordBook(Store(tmp_path))
    left = next(r for r in book.of_stage("search") if r.weights_dropped)
    book.save(left.updated(weights_dropped=False))
    records = search(tmp_path, keep_weights=1)
    assert kept(records, left.config.arm) == {best_trials(records, left.config.arm)[0].trial_id}


def test_the_file_goes_and_the_record_says_so(tmp_path: Path) -> None:
    record = search(tmp_path, keep_weights="all")[0]
    book = RecordBook(Store(tmp_path))
    files = open_trial_files(book.store, record)
    digests = files.write_weights({"fc.bias": torch.zeros(3)}, 1)
    record = book.save(record.updated(digests={**digests, "best/0001/search.npz": "0"}))
    assert not record.weights_dropped
    book.drop_weights(record)
    (dropped,) = [r for r in RecordBook(Store(tmp_path)).of_stage("search") if r.trial_id == record.trial_id]
    assert dropped.weights_dropped
    assert dropped.digests == {"best/0001/search.npz": "0"}
    assert not any(files.store.exists(path) for path in digests)


def test_results_of_attempts_that_lost_go_with_the_checkpoints(tmp_path: Path) -> None:
    book = RecordBook(Store(tmp_path))
    record = SearchDirector(book, make_spec(), FIXED).next_trial()
    assert record is not None
    files = open_trial_files(book.store, record)
    lost, digests = (files.write_weights({"fc.bias": torch.full((3,), attempt)}, attempt) for attempt in (1, 2))
    ended = book.save(record.updated(state="COMPLETE", attempts=2, digests=digests))
    book.drop_checkpoint(ended)
    assert [files.store.exists(path) for path in (*lost, *digests)] == [False, True]
