"""MLflow and trackio hold what the records say: after one call and two, after kills, after more trials, while a study runs.

Their SQLite files are read as they are. A tracker is tested in an environment that has it:
`python -m tests.versions mlflow` and `python -m tests.versions trackio`.
"""

import importlib.util
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from analysis.comparison.tables import format_row
from study.open_study import OpenStudy, load_study, open_to_drive
from study.results.stored_findings import load_findings
from study.state.budget_extensions import Extension, write_extension
from tests.docs.markdown import ROOT, read_blocks
from tests.docs.test_pages import read_commands
from tests.golden.make_golden import FINISHED
from tests.study.searched import simulate
from tests.study.views.test_trackers import go_on
from trainables.records.record import TrialRecord, TrialState
from trainables.storage.store import Store

# The command line, which follows without long waits.
PROGRAM = "import study.views.trackers as t; t.SECONDS_BETWEEN = 0.1; from study.cli import main; main()"
STATUS = {"RUNNING": "RUNNING", "COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAILED": "FAILED"}
Metrics = dict[tuple[str, int], tuple[float, int]]


class StoredRun(NamedTuple):
    """A run as its store has it: (value, milliseconds) by tag and step, tags, and its state in the store's words."""

    metrics: Metrics
    tags: dict[str, str]
    state: str


class Place:
    """A folder with a tracker's store, and the command that syncs to it."""

    def __init__(self, folder: Path, tracker: str) -> None:
        self.folder, self.tracker = folder, tracker
        folder.mkdir(parents=True)
        self.database = folder / ("mlflow.db" if tracker == "mlflow" else "simulated.db")
        places = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "TRACKIO_DIR": str(folder)}
        self.variables = {**os.environ, **places, "PYTHONPATH": str(ROOT), "STUDY_STORAGE": "studies"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, *words]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=self.variables, **pipes)

    def sync(self, study: Path | str, *options: str) -> str:
        process = self.start("sync", str(study), "--to", self.tracker, *options)
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        return output

    def query(self, text: str) -> list[tuple[Any, ...]]:
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(self.database, timeout=30)) as connection:
            try:
                return connection.execute(text).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                return []

    def count_runs(self) -> int:
        table = "runs" if self.tracker == "mlflow" else "configs"
        return len(self.query(f"SELECT * FROM {table}"))

    def read(self) -> dict[str, StoredRun]:
        found = list(self._read_mlflow() if self.tracker == "mlflow" else self._read_trackio())
        assert len({name for name, _ in found}) == len(found), "a run twice"
        return dict(found)

    def _read_mlflow(self) -> Iterator[tuple[str, StoredRun]]:
        for run, name, status in self.query("SELECT run_uuid, name, status FROM runs WHERE lifecycle_stage = 'active'"):
            rows = self.query(f"SELECT key, step, value, timestamp, is_nan FROM metrics WHERE run_uuid = '{run}'")
            assert not any(is_nan for *_, is_nan in rows)
            metrics = {(key, step): (value, at) for key, step, value, at, _ in rows}
            assert len(metrics) == len(rows), "a metric twice"
            tags = dict(self.query(f"SELECT key, value FROM tags WHERE run_uuid = '{run}'"))
            params = dict(self.query(f"SELECT key, value FROM params WHERE run_uuid = '{run}'"))
            yield name, StoredRun(metrics, tags | params, status)

    def _read_trackio(self) -> Iterator[tuple[str, StoredRun]]:
        for run, config in self.query("SELECT run_id, config FROM configs"):
            rows = self.query(f"SELECT run_name, step, timestamp, metrics FROM metrics WHERE run_id = '{run}'")
            tags, metrics = json.loads(config), dict[tuple[str, int], tuple[float, int]]()
            for _, step, at, values in rows:
                milliseconds = round(1000 * datetime.fromisoformat(at).timestamp())
                for key, value in json.loads(values).items():
                    assert (key, step) not in metrics, "a metric twice"
                    metrics[key, step] = (value, milliseconds)
            yield rows[0][0], StoredRun(metrics, tags, STATUS.get(tags["state"], ""))


def list_expected(record: TrialRecord) -> Metrics:
    """Return (value, milliseconds) by tag and epoch, as the record has them."""
    start, found = datetime.fromisoformat(record.started).timestamp(), dict[tuple[str, int], tuple[float | None, int]]()
    for epoch in record.epochs:
        at = round(1000 * (start + epoch.device_seconds / record.devices_per_trial))
        values = {
            **{"macro_f1/search": epoch.macro_f1, "loss/train": epoch.train_loss, "loss/search": epoch.search_loss},
            **{"learning_rate/head": epoch.head_lr, "learning_rate/backbone": epoch.backbone_lr},
            "speed/train_images_per_second": epoch.train_images_per_second,
        }
        if epoch is record.epochs[-1] and record.confirm_macro_f1 is not None:
            values["macro_f1/confirm"] = record.confirm_macro_f1
        found |= {(tag, epoch.epoch): (value, at) for tag, value in values.items()}
    return {place: (value, at) for place, (value, at) in found.items() if value is not None}


def assert_equal_to_records(place: Place, store: Store) -> None:
    study, stored = load_study(store), place.read()
    records = {f"{record.stage}/{record.trial_id}": record for record in study.book}
    assert set(stored) == {*records, study.name}
    for name, record in records.items():
        run = stored[name]
        assert run.metrics == list_expected(record), name
        assert run.state == STATUS[record.state.value], name
        assert (run.tags["arm"], run.tags["seed"]) == (record.config.arm, str(record.config.seed))
        assert run.tags["max_lr"] == str(record.config.hyperparameters["max_lr"])
        is_finite = all(epoch.is_finite for epoch in record.epochs)
        assert ("not_finite" in run.tags) == (not is_finite)


@pytest.fixture(params=["mlflow", "trackio"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed; `python -m tests.versions {request.param}` tests it")
    return Place(tmp_path / "tracker", request.param)


def extend(study: OpenStudy, total: int) -> None:
    """Do what `study resume --num-trials` does, without training."""
    with open_to_drive(study.store) as driven:
        write_extension(driven.store, Extension(kind="num_trials", total=total), len(driven.book.of_stage("search")))
    with open_to_drive(study.store) as driven:
        go_on(driven)


def test_twice_is_once_and_more_trials_are_added(place: Place, tmp_path: Path) -> None:
    study = simulate(tmp_path / "simulated", max_events=30)
    store = study.store
    total = len(list(study.book)) + 1
    assert f"{total} runs written, 0 unchanged" in place.sync(tmp_path / "simulated")
    assert any(record.state is TrialState.RUNNING for record in study.book)
    assert_equal_to_records(place, store)
    before = place.read()
    assert f"0 runs written, {total} unchanged" in place.sync(tmp_path / "simulated")
    assert place.read() == before
    with open_to_drive(store) as driven:
        go_on(driven)
    extend(study, 30)
    place.sync(tmp_path / "simulated")
    assert len(place.read()) == 31
    assert_equal_to_records(place, store)
    if place.tracker == "mlflow":
        deleted = place.query("SELECT * FROM runs WHERE lifecycle_stage = 'deleted'")
        assert deleted == [], "epochs are added to the runs of trials that went on"


@pytest.mark.parametrize("num_runs", [1, 9])
def test_killed_in_between_and_run_again_it_is_equal(place: Place, tmp_path: Path, num_runs: int) -> None:
    store = simulate(tmp_path / "simulated").store
    process = place.start("sync", str(tmp_path / "simulated"), "--to", place.tracker)
    deadline = time.monotonic() + 120
    while place.count_runs() < num_runs and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    assert 1 <= place.count_runs() < 25
    place.sync(tmp_path / "simulated")
    assert_equal_to_records(place, store)


def test_records_that_have_changed_replace_what_was_written(place: Place, tmp_path: Path) -> None:
    study = simulate(tmp_path / "simulated", num_trials=4)
    place.sync(tmp_path / "simulated")
    record = next(record for record in study.book if record.state is TrialState.COMPLETE)
    epochs = (record.epochs[0].model_copy(update={"train_loss": 0.125}), *record.epochs[1:])
    study.book.save(record.updated(epochs=epochs))
    assert "1 runs written, 4 unchanged" in place.sync(tmp_path / "simulated")
    assert_equal_to_records(place, study.store)


def test_it_follows_a_study_that_runs_and_ends_with_it(place: Place, tmp_path: Path) -> None:
    store = simulate(tmp_path / "simulated", max_events=6).store
    with open_to_drive(store) as driven:
        process = place.start("sync", str(tmp_path / "simulated"), "--to", place.tracker, "--follow")
        deadline = time.monotonic() + 120
        while place.count_runs() < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        for _ in range(6):
            go_on(driven, max_events=12)
            time.sleep(0.5)
        go_on(driven)
        assert process.poll() is None, "it follows while the study is driven"
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.count("runs written") > 2
    assert_equal_to_records(place, store)


def test_the_study_has_its_configuration_verdict_and_report(place: Place, tmp_path: Path) -> None:
    shutil.copytree(FINISHED, tmp_path / "finished")
    store = Store(tmp_path / "finished")
    place.database = place.folder / ("mlflow.db" if place.tracker == "mlflow" else "finished.db")
    place.sync(tmp_path / "finished")
    assert_equal_to_records(place, store)
    run = place.read()["finished"]
    assert run.tags["verdict 1"] == format_row(load_findings(load_study(store)).rows[0])
    report = (tmp_path / "finished" / "report.md").read_text()
    if place.tracker == "trackio":
        assert run.metrics["report.md", 0][0] == {"_type": "trackio.markdown", "_value": report}
        assert run.tags["spec.toml"] == (tmp_path / "finished" / "spec.toml").read_text()
    else:
        ((uri,),) = place.query("SELECT artifact_uri FROM runs WHERE name = 'finished'")
        artifacts = Path(uri.removeprefix("file://"))
        assert (artifacts / "report.md").read_text() == report
        assert (artifacts / "spec.toml").read_text() == (tmp_path / "finished" / "spec.toml").read_text()
        assert (artifacts / "findings" / "comparison.csv").exists()


def test_a_place_that_cannot_be_reached_is_named_in_one_message(place: Place, tmp_path: Path) -> None:
    simulate(tmp_path / "simulated", num_trials=2)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    place.variables |= {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "TRACKIO_DIR": str(blocked / "trackio")}
    started = time.monotonic()
    process = place.start("sync", str(tmp_path / "simulated"), "--to", place.tracker)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 2
    assert f"error: {place.tracker} cannot be used" in errors
    assert "Traceback" not in errors
    assert time.monotonic() - started < 60


def list_documented(tracker: str) -> list[Sequence[str]]:
    """Return the commands of docs/trackers.md that sync to a tracker."""
    commands = [
        command for block in read_blocks(ROOT / "docs" / "trackers.md", "sh") for command in read_commands(block)
    ]
    return [command for command in commands if command[0] == "sync" and tracker in command]


def test_the_documented_commands_run(place: Place) -> None:
    shutil.copytree(FINISHED, place.folder / "studies" / "mine")
    commands = list_documented(place.tracker)
    assert commands
    for command in commands:
        process = place.start(*command)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, f"{shlex.join(command)}: {errors}"
