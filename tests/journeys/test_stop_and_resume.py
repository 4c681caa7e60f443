"""A driver that is stopped by Ctrl-C or killed: its exit status, and the trials that resume runs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from study.state.record_book import RecordBook
from tests.study.small_study import write_small_study
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord
from trainables.storage.store import Store

pytestmark = [pytest.mark.ray_cluster, pytest.mark.timeout(280)]

SEARCH = {
    **{"num_trials": 5, "max_epochs": 3, "keep_weights": "all"},
    "fixed": {"class_weighting": "none", "backbone": "resnet18"},
}
STUDY = Path(sys.executable).parent / "study"


def start(root: Path, command_name: str, *more: str) -> subprocess.Popen[str]:
    """Start or resume the study in a session of its own, as a shell would."""
    train = {"image_size": 32, "batch_size": 16}
    # Each process of Ray takes seconds of both cores to start.
    one = {"max_concurrent": 1}
    write_small_study(root / "spec.toml", "stopped", train=train, search=SEARCH, resources=one)
    options = [str(root / "spec.toml"), "--storage", str(root)]
    if command_name == "resume":
        options = [str(root / "stopped"), "--search-only"]
    command = [str(STUDY), command_name, *options, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finished(root: Path) -> dict[str, TrialRecord]:
    try:
        return {r.trial_id: r for r in RecordBook(Store(root / "stopped")) if r.state.is_finished}
    except DamagedFileError:
        return {}


def wait_for_finished(root: Path, number: int, process: subprocess.Popen[str]) -> dict[str, TrialRecord]:
    for _ in range(1200):
        done = finished(root)
        if len(done) >= number:
            return done
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("no trial finished in two minutes")


def test_stopped_and_killed_study_is_resumed_without_losing_or_repeating_a_finished_trial(tmp_path: Path) -> None:
    process = start(tmp_path, "launch")
    wait_for_finished(tmp_path, 1, process)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 3, errors
    assert "study resume" in errors
    assert "Traceback" not in errors
    stopped = finished(tmp_path)
    process = start(tmp_path, "resume")
    wait_for_finished(tmp_path, len(stopped) + 1, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=100)
    killed = finished(tmp_path)
    assert len(stopped) < len(killed) < 5
    # What began on Ray ends in a process without it.
    process = start(tmp_path, "resume", "--local")
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors + output
    after = finished(tmp_path)
    assert len(after) == 5
    assert {i: killed[i] for i in stopped} == stopped
    assert {i: after[i] for i in killed} == killed
    assert all([e.epoch for e in r.epochs] == [1, 2, 3] for r in after.values())
