"""A round of interventions whose driver is killed with SIGKILL in the middle, on a local Ray: it goes on to the same table."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from study.state import paths
from study.state.record_book import RecordBook
from tests.study.small_study import write_small_study
from trainables.damaged_files import DamagedFileError
from trainables.storage.store import Store

pytestmark = [pytest.mark.ray_cluster, pytest.mark.long_faults, pytest.mark.timeout(900)]

STUDY: dict[str, Any] = {
    "seed": 2,
    "data": {"num_images": 700, "test_fraction": 0.4},
    "train": {"image_size": 32},
    "search": {
        **{"factor": "class_weighting", "max_epochs": 2},
        "ranges": {"class_weighting": ["none", "inverse_frequency"]},
        "fixed": {"backbone": "resnet18", "interpolation": "bicubic", "cutmix_probability": 0.0},
    },
    "confirm": {"margin": 0.05},
}
STUDY = Path(sys.executable).parent / "study"
ROUND = "parent-intervene-1"
# What depends on the speed of the machine.
MEASURED = {"cost_ratio", "device_seconds"}


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [str(STUDY), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(process: subprocess.Popen[str]) -> None:
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors + output


def count_confirmed(root: Path) -> int:
    try:
        book = RecordBook(Store(root / ROUND))
        return sum(record.state.is_finished for record in book.of_stage("confirmation"))
    except DamagedFileError:
        return 0


def read_table(root: Path) -> list[dict[str, str]]:
    rows = csv.DictReader((root / ROUND / paths.INTERVENTIONS_CSV).read_text(encoding="utf-8").splitlines())
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def test_a_round_that_was_killed_goes_on_to_the_same_table(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    write_small_study(tmp_path / "spec.toml", "parent", **STUDY)
    finish(start("run", tmp_path / "spec.toml", "--storage", killed))
    shutil.copytree(killed, whole)
    only = ("--only", "cutmix", "--only", "weighted_loss")
    process = start("intervene", killed / "parent", *only)
    for _ in range(3000):
        if count_confirmed(killed) >= 2:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=100)
    before = count_confirmed(killed)
    assert 2 <= before < 6
    stated = (killed / ROUND / paths.INTERVENTIONS).read_bytes()
    finish(start("intervene", killed / "parent"))
    assert (killed / ROUND / paths.INTERVENTIONS).read_bytes() == stated
    finish(start("intervene", whole / "parent", *only))
    assert read_table(killed) == read_table(whole)
    assert [row["arm"] for row in read_table(killed)] == ["weighted_loss", "cutmix"]
