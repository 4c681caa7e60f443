"""Progress, from records alone, and the live view in a terminal and outside of one."""

import io
from pathlib import Path

from rich.console import Console

from study.open_study import OpenStudy
from study.scheduling.search_director import SearchDirector
from study.state.checksums import write_sealed_json
from study.state.record_book import RecordBook
from study.views.live_view import LiveView, build_progress_table, compute_progress, describe_progress
from tests.study.simulated import FIXED, drive, make_spec
from trainables.records.store import Store


def open_simulated(folder: Path, max_events: int | None = None) -> OpenStudy:
    store = Store(folder)
    write_sealed_json(store, "passport.json", {"num_devices": 2})
    book = RecordBook(store)
    drive(SearchDirector(book, make_spec(), FIXED), max_events=max_events)
    return OpenStudy(store=store, spec=make_spec(), book=book)


def test_counts_shares_and_best_are_those_of_the_records(tmp_path: Path) -> None:
    study = open_simulated(tmp_path)
    progress = compute_progress(study, "search")
    assert (progress.num_finished, progress.num_planned, progress.eta_seconds) == (24, 24, 0.0)
    assert sum(arm.share for arm in progress.arms) == 1.0
    for arm in progress.arms:
        own = [r for r in study.book if r.config.arm == arm.arm]
        assert arm.num_complete + arm.num_pruned + arm.num_failed + arm.num_running == len(own)
        best = study.book.get("search", arm.best_trial_id)
        assert arm.best_macro_f1 == best.last_macro_f1 == max(r.last_macro_f1 or 0 for r in own if len(r.epochs) == 6)


def test_nothing_finished_has_no_eta(tmp_path: Path) -> None:
    progress = compute_progress(open_simulated(tmp_path, max_events=1), "search")
    assert progress.num_finished == 0
    assert progress.eta_seconds is None
    assert "ETA unknown" in describe_progress(progress)


def test_live_view_draws_arms_and_progress_in_a_terminal(tmp_path: Path) -> None:
    study = open_simulated(tmp_path, max_events=30)
    console = Console(file=io.StringIO(), force_terminal=True, width=100, record=True)
    with LiveView(console) as view:
        view.update(study, "search")
        text = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("simulated", "of 24 trials", "ETA", "resnet18", "resnet50", "share", "best macro-F1"):
        assert word in text
    assert [line for line in text.splitlines() if "arm" in line and "━" in line] == []


def test_without_a_terminal_lines_are_printed_now_and_then(tmp_path: Path) -> None:
    study = open_simulated(tmp_path, max_events=30)
    console = Console(file=io.StringIO(), width=100)
    with LiveView(console) as view:
        for _ in range(5):
            view.update(study, "search")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("search:") == 1


def test_table_has_a_row_per_arm(tmp_path: Path) -> None:
    assert build_progress_table(compute_progress(open_simulated(tmp_path), "search")).row_count == 2
