"""Seconds of `study sync` with a study of many trials: ``python -m benchmarks.performance.tracker_seconds mlflow|trackio``.

The trials are made up and trained nothing. The first call writes every run, the second finds nothing to write, and the third adds
an epoch to one trial of a hundred; each is a process that begins with imports. The store is a new SQLite file in a temporary
folder.
"""

import argparse
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import tomli_w

from benchmarks.search.replay_sides import make_report
from search_spaces.config import TrialConfig
from study.spec.reading import validate_spec
from study.state import paths
from study.state.record_book import RecordBook, now_utc
from study.state.sealed_files import write_sealed_json, write_sealed_toml
from trainables.records.record import EpochRecord, TrialRecord, TrialState
from trainables.storage.store import Store

NUM_CLASSES, EVERY, EPOCH_SECONDS = 10, 100, 12.5


def make_record(number: int, num_epochs: int, *, is_running: bool, num_classes: int = NUM_CLASSES) -> TrialRecord:
    """Return a trial with a made-up curve, which has one epoch less while it runs."""
    hyperparameters = {"max_lr": 10 ** -(1 + number % 7 / 3), "weight_decay": 1e-4, "label_smoothing": number % 3 / 10}
    fixed = {"max_epochs": num_epochs, "batch_size": 64}
    arm = ("resnet18", "resnet50")[number % 2]
    config = TrialConfig(arm=arm, seed=number, hyperparameters={"backbone": arm, **hyperparameters}, fixed=fixed)
    return TrialRecord(
        trial_id=f"{number:05d}",
        stage="search",
        config=config,
        fingerprint=config.fingerprint,
        state=TrialState.RUNNING if is_running else TrialState.COMPLETE,
        suggested_order=number,
        epochs=tuple(_list_epochs(number, num_epochs - is_running, num_classes)),
        device_seconds=EPOCH_SECONDS * num_epochs,
        started=now_utc(),
        ended="" if is_running else now_utc(),
    )


def _list_epochs(number: int, num_epochs: int, num_classes: int) -> Iterator[EpochRecord]:
    for epoch in range(1, num_epochs + 1):
        macro_f1 = (0.5 + number % 100 / 250) * (1 - math.exp(-epoch / 5))
        # As a director keeps them: the F1 of every class of the last epoch alone.
        metrics = make_report(epoch, macro_f1, EPOCH_SECONDS, num_classes if epoch == num_epochs else 0).metrics
        yield EpochRecord(**dict(metrics), device_seconds=EPOCH_SECONDS * epoch, order=epoch, decision="continue")


def make_study(folder: Path, num_trials: int, num_epochs: int, num_classes: int = NUM_CLASSES) -> RecordBook:
    """Write a study of which every `EVERY`-th trial still runs; return its records."""
    store, sections = Store(folder), {"data": {"source": "planted"}, "model": {"weights": "none"}}
    search = {"num_trials": num_trials, "max_epochs": num_epochs}
    spec = validate_spec({"name": "made-up", **sections, "search": search}, where="benchmark")
    write_sealed_toml(store, paths.SPEC, tomli_w.dumps(spec.model_dump(exclude_none=True)))
    write_sealed_json(store, paths.PASSPORT, {"data": {"class_names": [str(k) for k in range(num_classes)]}})
    book = RecordBook(store)
    for number in range(num_trials):
        is_running = number % EVERY == 0
        book.save(make_record(number, num_epochs, is_running=is_running, num_classes=num_classes))
    return book


def measure_sync(tracker: str, folder: Path) -> str:
    """Return the wall and CPU seconds of a call, and the line that it prints."""
    places = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "TRACKIO_DIR": str(folder / "trackio")}
    command = [sys.executable, "-m", "study.cli", "sync", str(folder / "made-up"), "--to", tracker]
    variables = {**os.environ, **places, "PYTHONPATH": str(Path.cwd())}
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True, text=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{wall:.1f} s ({cpu:.1f} s of CPU): {done.stdout.strip()}"


def main() -> None:
    """Print the seconds of the three calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tracker", choices=("mlflow", "trackio"))
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tracker-seconds-") as name:
        folder = Path(name)
        book = make_study(folder / "made-up", given.trials, given.epochs)
        print("first call,", measure_sync(given.tracker, folder))
        print("second call,", measure_sync(given.tracker, folder))
        for number in range(0, given.trials, EVERY):
            book.save(
                make_record(number, given.epochs, is_running=False).updated(
                    started=book.get("search", f"{number:05d}").started
                )
            )
        print(f"one trial of {EVERY} went on,", measure_sync(given.tracker, folder))


if __name__ == "__main__":
    main()
