"""What `study sync` gives to a tracker: runs equal to the records, those that changed alone, and messages for bad input.

tests/study/views/test_tracker_stores.py has the trackers themselves.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console

from analysis.comparison.tables import format_row
from search_spaces import extensions
from search_spaces.errors import UserInputError
from study.cli_options import TrackerName
from study.open_study import OpenStudy, load_study, open_to_drive
from study.results.stored_findings import load_findings
from study.scheduling.search_director import SearchDirector
from study.views import trackers
from study.views.trackers import TrackedRun, list_tracked, sync_study, write_changes
from tests.golden.make_golden import FINISHED
from tests.study.command_line import run_cli
from tests.study.searched import simulate
from tests.study.simulated import FIXED, drive
from trainables.records.record import TrialState
from trainables.storage.store import Store


class KeptRuns:
    """A tracker in memory, which may fail at a write."""

    place = "here"

    def __init__(self, fails_at: int | None = None) -> None:
        self.runs: dict[str, TrackedRun] = {}
        self._fails_at, self.num_writes = fails_at, 0

    def read_digests(self) -> dict[str, str]:
        return {key: run.digest for key, run in self.runs.items()}

    def write(self, run: TrackedRun) -> None:
        if self.num_writes == self._fails_at:
            raise OSError("gone")
        self.runs[run.key] = run
        self.num_writes += 1


def go_on(study: OpenStudy, max_events: int | None = None) -> None:
    drive(SearchDirector(study.book, study.spec, FIXED | {"image_size": 32}), max_events=max_events)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    return simulate(tmp_path_factory.mktemp("searched") / "simulated")


def test_a_run_has_the_epochs_times_and_state_of_its_record(searched: OpenStudy) -> None:
    *runs, whole = list_tracked(searched)
    assert len({run.key for run in [*runs, whole]}) == len(runs) + 1
    for run, record in zip(runs, searched.book, strict=True):
        assert run.name == f"search/{record.trial_id}"
        assert run.key.endswith(f"search/{record.trial_id}/{record.config.seed}")
        assert (run.state, run.tags["state"]) == (record.state, record.state.value)
        assert run.params == {key: str(value) for key, value in record.config.hyperparameters.items()}
        assert [step for step, _, _ in run.points] == [epoch.epoch for epoch in record.epochs]
        start = datetime.fromisoformat(record.started).timestamp()
        for (_, at, values), epoch in zip(run.points, record.epochs, strict=True):
            assert at == start + epoch.device_seconds
            assert (values["macro_f1/search"], values["loss/train"]) == (epoch.macro_f1, epoch.train_loss)
    assert whole.name == "simulated"
    assert whole.texts["spec.toml"] == (searched.store.local_path / "spec.toml").read_text()


def test_a_number_that_was_not_finite_is_a_tag(searched: OpenStudy) -> None:
    diverged = [run for run in list_tracked(searched) if run.state is TrialState.FAILED]
    assert [run.name for run in diverged] == ["search/00003", "search/00004"]
    for run in diverged:
        assert run.tags["not_finite"] == "macro_f1/search at epoch 2"
        assert run.points[-1][2]["macro_f1/search"] is None
    assert all("not_finite" not in run.tags for run in list_tracked(searched) if run not in diverged)


def test_a_confirmed_study_has_its_verdict_and_the_scores_of_its_confirmation() -> None:
    study = load_study(Store(FINISHED))
    *runs, whole = list_tracked(study)
    assert whole.tags["verdict 1"] == format_row(load_findings(study).rows[0])
    assert {"Which", "How sure", "state"} <= set(whole.tags)
    assert set(whole.texts) == {"spec.toml", "report.md", "findings/comparison.csv"}
    confirmed = [run for run in runs if run.tags["stage"] == "confirmation"]
    assert confirmed
    for run in confirmed:
        record = study.book.get("confirmation", run.tags["trial_id"])
        assert run.points[-1][2]["macro_f1/confirm"] == record.confirm_macro_f1
        assert all("macro_f1/confirm" not in values for _, _, values in run.points[:-1])


def test_a_digest_is_that_of_the_content(searched: OpenStudy) -> None:
    run, again = next(list_tracked(searched)), next(list_tracked(load_study(searched.store)))
    assert run.digest == again.digest
    step, at, values = run.points[-1]
    for change in (
        {"points": (*run.points[:-1], (step, at, values | {"loss/train": 0.5}))},
        {"points": run.points[:-1]},
        {"tags": {**run.tags, "reason": "other"}},
        {"ended": None},
    ):
        assert dataclasses.replace(run, **change).digest != run.digest


def test_what_is_equal_is_skipped_and_what_has_changed_is_written(tmp_path: Path) -> None:
    study, kept = simulate(tmp_path / "simulated", max_events=20), KeptRuns()
    first, total = write_changes(study, kept)
    assert first == total == len(kept.runs)
    assert write_changes(study, kept) == (0, total)
    before = kept.read_digests()
    go_on(study, max_events=3)
    written, now = write_changes(study, kept)
    changed = {key for key, digest in kept.read_digests().items() if before.get(key) != digest}
    assert written == len(changed) < now
    go_on(study)
    write_changes(study, kept)
    assert kept.runs == {run.key: run for run in list_tracked(study)}


@pytest.mark.parametrize("fails_at", [0, 1, 7])
def test_what_was_left_out_by_a_failure_is_written_by_the_next_call(searched: OpenStudy, fails_at: int) -> None:
    broken = KeptRuns(fails_at)
    with pytest.raises(UserInputError, match="here failed: gone; run `study sync` again"):
        write_changes(searched, broken)
    whole = KeptRuns()
    whole.runs = broken.runs
    written, total = write_changes(searched, whole)
    assert written == total - fails_at
    assert whole.runs == {run.key: run for run in list_tracked(searched)}


def test_a_study_that_was_launched_twice_has_other_runs(searched: OpenStudy, tmp_path: Path) -> None:
    other = simulate(tmp_path / "simulated")
    record = next(iter(other.book))
    other.book.save(record.updated(started="2020-01-01T00:00:00+00:00"))
    assert not {run.key for run in list_tracked(other)} & {run.key for run in list_tracked(searched)}


def test_before_the_first_trial_there_is_nothing_to_write(tmp_path: Path) -> None:
    study = simulate(tmp_path / "simulated", max_events=0)
    for record in list(study.book):
        study.store.delete(f"trials/{record.trial_id}")
    assert write_changes(load_study(study.store), KeptRuns()) == (0, 0)


def test_following_goes_on_until_no_process_drives_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, store = KeptRuns(), simulate(tmp_path / "simulated", max_events=4).store
    seen: list[int] = []

    def drive_on(driven: OpenStudy, lease: ExitStack) -> Iterator[None]:
        for _ in range(3):
            go_on(driven, max_events=10)
            yield
        lease.close()
        yield

    monkeypatch.setattr(trackers, "MlflowTracker", lambda _: kept)
    with ExitStack() as lease:
        parts = drive_on(lease.enter_context(open_to_drive(store)), lease)

        def sleep(_: float) -> None:
            seen.append(kept.num_writes)
            next(parts)

        monkeypatch.setattr("study.views.trackers.time.sleep", sleep)
        sync_study(store, TrackerName.MLFLOW, Console(quiet=True), follow=True)
    assert len(seen) == 4
    assert seen[0] < seen[1] < seen[2] < kept.num_writes
    assert kept.runs == {run.key: run for run in list_tracked(load_study(store))}


def test_a_failure_while_following_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, store = KeptRuns(fails_at=2), simulate(tmp_path / "simulated", max_events=4).store
    monkeypatch.setattr(trackers, "TrackioTracker", lambda _: kept)
    with ExitStack() as lease:
        lease.enter_context(open_to_drive(store))

        def sleep(_: float) -> None:
            kept._fails_at = None
            lease.close()

        monkeypatch.setattr("study.views.trackers.time.sleep", sleep)
        sync_study(store, TrackerName.TRACKIO, Console(width=200), follow=True)
    assert "here failed: gone" in capsys.readouterr().out
    assert kept.runs == {run.key: run for run in list_tracked(load_study(store))}


@pytest.mark.parametrize("name", list(TrackerName))
@pytest.mark.parametrize("version", ["", "0.1.2"])
def test_a_tracker_that_is_missing_or_of_another_version_is_named_with_its_extra(
    name: TrackerName, version: str, searched: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extensions, "version", lambda _: version)
    outcome = run_cli("sync", searched.store.root, "--to", name.value)
    assert outcome.status == 2
    assert outcome.errors.count("\n") == 1
    assert f'run `pip install "abstudy[{name.value}]"`' in outcome.errors
    assert ("found is 0.1.2" if version else "it is not installed") in outcome.errors
