"""The progress of a study, computed from its records, and the live view with and without a terminal."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from search_spaces.config import list_folds
from search_spaces.errors import UserInputError
from study.confirmation.plan import confirmation_seeds, make_plan, write_plan
from study.open_study import OpenStudy
from study.scheduling.director import ConfirmationDirector, want
from study.scheduling.search_director import SearchDirector
from study.state.paths import COMPARISON_CSV, PASSPORT, REPORT_HTML, SPEC, open_study, study_uri
from study.state.record_book import RecordBook
from study.state.sealed_files import write_sealed_json
from study.views.live_view import LiveView, compute_progress, describe_progress, tabulate_progress
from study.views.status import find_studies, study_state
from tests.study.simulated import FIXED, drive, make_report, make_spec
from trainables.records.record import best_trials
from trainables.storage.store import StorageError, Store


def open_simulated(folder: Path, max_events: int | None = None, **search: object) -> OpenStudy:
    store = Store(folder)
    write_sealed_json(store, "passport.json", {"num_devices": 2})
    book = RecordBook(store)
    drive(SearchDirector(book, make_spec(**search), FIXED), max_events=max_events)
    return OpenStudy(store=store, spec=make_spec(**search), book=book)


def test_a_folder_that_cannot_be_read_hides_no_other_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lost+found", "mine"):
        open_simulated(tmp_path / name).store.write_text(SPEC, "")
    whole = Store.exists

    def exists(store: Store, name: str) -> bool:
        if name.startswith("lost"):
            raise StorageError("lost+found/spec.toml could not be read: Permission denied")
        return whole(store, name)

    monkeypatch.setattr(Store, "exists", exists)
    listed = {study["name"]: study["state"] for study in find_studies(str(tmp_path))}
    assert list(listed) == ["lost+found", "mine"]
    assert "Permission denied" in listed["lost+found"]
    with pytest.raises(UserInputError, match=r"there is no study at .*mien \(did you mean 'mine'\?\)"):
        open_study("mien", str(tmp_path))


def test_an_empty_variable_of_the_storage_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY_STORAGE", "")
    assert study_uri("demo") == "studies/demo"


def test_reported_study_with_an_extended_search_is_searching(tmp_path: Path) -> None:
    study = open_simulated(tmp_path)
    study.store.write_text(REPORT_HTML, "")
    assert study_state(study) == "reported"
    assert study_state(replace(study, spec=make_spec(num_trials=30))) == "searching"


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


@pytest.mark.parametrize(("asha", "tolerance"), [(False, 0.35), (True, 0.7)])
@pytest.mark.parametrize("max_events", [1, 4, 12, 30])
def test_eta_is_the_time_that_the_simulated_workers_still_need(
    tmp_path: Path, max_events: int, asha: bool, tolerance: float
) -> None:
    whole = open_simulated(tmp_path / "whole", pruning="asha" if asha else "none")
    study = open_simulated(tmp_path / "part", max_events, pruning="asha" if asha else "none")
    needed = sum(r.device_seconds for r in whole.book) - sum(r.device_seconds for r in study.book)
    assert compute_progress(study, "search").eta_seconds == pytest.approx(needed / 2, rel=tolerance)


def test_two_costly_trials_do_not_set_the_pace_of_the_others(tmp_path: Path) -> None:
    study = open_simulated(tmp_path, max_events=0, num_trials=20, pruning="none")
    director = SearchDirector(study.book, study.spec, FIXED)
    trials = [director.next_trial() for _ in range(4)]
    for epoch in range(1, 7):
        for record in trials:
            assert record is not None
            if record.config.arm == "resnet50" or epoch == 1:
                director.on_report(
                    record.trial_id, make_report(epoch, 0.5, 100.0 if record.config.arm == "resnet50" else 1.0)
                )
    done = [r for r in study.book if r.state.is_finished]
    assert [r.config.arm for r in done] == ["resnet50", "resnet50"]
    # The other 18 trials are cheap ones, 6 s each, of which two have run an epoch, on two devices.
    assert compute_progress(study, "search").eta_seconds == pytest.approx((18 * 6 - 2) / 2, abs=6)


@pytest.mark.parametrize(("num_confirmed", "left"), [(0, 84.0), (2, 60.0)])
def test_eta_of_the_confirmation_counts_the_seeds_left_of_each_arm_and_the_ranking(
    tmp_path: Path, num_confirmed: int, left: float
) -> None:
    """Two candidates per arm are ranked with one seed each, which the comparison does not use again."""
    study = open_simulated(tmp_path)
    winners = [best_trials(study.book.of_stage("search"), arm)[0] for arm in ("resnet18", "resnet50")]
    seeds = confirmation_seeds(study.spec)[:num_confirmed]
    drive(ConfirmationDirector(study.book, [w for winner in winners for w in want(winner, seeds)]))
    progress = compute_progress(study, "confirmation")
    assert progress.num_planned == 2 * (5 + 2)
    assert progress.eta_seconds == pytest.approx(left, abs=13)


def test_a_trial_of_a_fold_shows_no_score_since_it_trained_on_the_images_of_its_score(tmp_path: Path) -> None:
    study = open_simulated(tmp_path)
    winner = best_trials(study.book.of_stage("search"), "resnet18")[0]
    seeds = confirmation_seeds(study.spec)[:2]
    drive(ConfirmationDirector(study.book, want(winner, seeds, list_folds(2))))
    (arm,) = (arm for arm in compute_progress(study, "confirmation").arms if arm.arm == "resnet18")
    assert (arm.num_complete, arm.best_macro_f1) == (4, None)


def test_a_comparison_that_an_early_look_decided_is_finished(tmp_path: Path) -> None:
    study = open_simulated(tmp_path)
    winners = [best_trials(study.book.of_stage("search"), arm)[0] for arm in ("resnet18", "resnet50")]
    seeds = confirmation_seeds(study.spec)[:2]
    drive(ConfirmationDirector(study.book, [w for winner in winners for w in want(winner, seeds)]))
    assert study_state(study) == "confirming"
    study.store.write_text(COMPARISON_CSV, "")
    progress = compute_progress(study, "confirmation")
    assert (progress.num_planned, progress.fraction_done, progress.eta_seconds) == (4, 1.0, 0.0)
    assert study_state(study) == "confirmed"
    ConfirmationDirector(study.book, want(winners[0], confirmation_seeds(study.spec)[2:3])).next_trial()
    later = compute_progress(study, "confirmation")
    assert later.num_planned == 2 * (5 + 2)
    assert later.eta_seconds > 0
    plan = make_plan(study.spec, {"resnet18": winners[0], "resnet50": winners[1]}, confirmation_seeds(study.spec))
    write_plan(study.store, plan)
    assert study_state(study) == "confirming", "the plan wants the trial that runs"
    other = best_trials(study.book.of_stage("search"), "resnet18")[1]
    write_plan(study.store, plan.model_copy(update={"chosen": {**plan.chosen, "resnet18": other.trial_id}}))
    assert study_state(study) == "confirmed", "a driver that died left it, and nobody wants it any more"


def test_budget_of_device_seconds_is_divided_among_the_devices(tmp_path: Path) -> None:
    study = open_simulated(tmp_path, 20, num_trials=None, device_seconds=400.0)
    spent = sum(r.device_seconds for r in study.book)
    assert compute_progress(study, "search").eta_seconds == (400.0 - spent) / 2


def test_nothing_measured_has_no_eta(tmp_path: Path) -> None:
    progress = compute_progress(open_simulated(tmp_path, max_events=0), "search")
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


@pytest.mark.parametrize("is_readable", [True, False])
def test_without_a_terminal_lines_are_printed_now_and_then(tmp_path: Path, is_readable: bool) -> None:
    """Progress that cannot be read is said, and the study goes on."""
    study = open_simulated(tmp_path, max_events=30)
    if not is_readable:
        study.store.delete(PASSPORT)
    console = Console(file=io.StringIO(), width=100)
    with LiveView(console) as view:
        for _ in range(5):
            view.update(study, "search")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("search:") == 1
    assert text.count("search: its progress cannot be shown now") == (not is_readable)


def test_table_has_a_row_per_arm(tmp_path: Path) -> None:
    assert len(tabulate_progress(compute_progress(open_simulated(tmp_path), "search")).rows) == 2
