"""P8: the controller's cost per trial in a run of 10,000 trials, first thousand against last.

The trials train nothing: each returns the recorded curve of a trial of its arm, epoch by epoch, without delay. Everything
else is the product: Ray Tune, the search's director, samplers, brackets and records on disk.
"""

import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from ray import tune

from benchmarks.search.replay_curves import PARQUET
from study.cluster.connection import connect_cluster
from study.cluster.tune_run import TuneRun, run_trials
from study.scheduling.director import Report
from study.scheduling.search_director import SearchDirector
from study.spec.study_spec import StudySpec, validate_spec
from study.state.record_book import RecordBook
from trainables.records.record import TrialRecord, TrialState
from trainables.records.store import Store

NUM_CLASSES = 10


class RecordedTrainable(tune.Trainable):
    """Returns the epochs of one recorded trial, as `TrialTrainable` would report them."""

    def setup(self, config: dict[str, Any], curves: Mapping[str, list[list[dict[str, Any]]]]) -> None:
        self._curves = curves
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        arm = json.loads(new_config["config_json"])["arm"]
        self._curve = self._curves[arm][int(new_config["trial_id"]) % len(self._curves[arm])]
        self._epoch = 0
        return True

    def step(self) -> dict[str, Any]:
        epoch = self._curve[self._epoch]
        self._epoch += 1
        return {
            "epoch": epoch["epoch"],
            "macro_f1": epoch["macro_f1"],
            "report": {
                "metrics": {
                    **{name: epoch[name] for name in ("epoch", "macro_f1", "train_loss", "search_loss")},
                    "per_class_f1": [epoch["macro_f1"]] * NUM_CLASSES,
                    "head_lr": 0.1,
                    "backbone_lr": 0.01,
                    "train_seconds": epoch["cpu_seconds"],
                    "evaluate_seconds": 0.0,
                    "train_images_per_second": 1.0,
                    "peak_memory_bytes": 1,
                },
                "device_seconds": epoch["cpu_seconds"],
                "details": {"device": "recorded"},
            },
        }


@dataclass(slots=True)
class _TimedDirector:
    """The search's director; reads the clocks at every thousandth trial."""

    director: SearchDirector
    every: int
    folders: tuple[Path, ...]
    marks: list[tuple[float, float]] = field(default_factory=list)
    shared: list[dict[str, tuple[int, float]]] = field(default_factory=list)
    num_started: int = 0

    @property
    def is_exhausted(self) -> bool:
        return self.director.is_exhausted

    def next_trial(self) -> TrialRecord | None:
        if self.marks and self.num_started == len(self.marks) * self.every:
            self.mark()
        record = self.director.next_trial()
        self.num_started += record is not None
        return record

    def on_report(self, trial_id: str, report: Report) -> bool:
        if not self.marks:
            self.mark()  # the start of the actors is not the controller's cost per trial
        return self.director.on_report(trial_id, report)

    def mark(self) -> None:
        """Note the clocks, and the files beside the trials."""
        self.marks.append((time.perf_counter(), time.process_time()))
        self.shared.append(shared_files(*self.folders))

    def rewritten(self) -> list[str]:
        """Return the files that changed from one mark to the next."""
        pairs = zip(self.shared[:-1], self.shared[1:], strict=True)
        return sorted({name for old, new in pairs for name in old if name in new and old[name] != new[name]})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.director, name)


def load_curves(path: Path) -> dict[str, list[list[dict[str, Any]]]]:
    """Return per arm the recorded trials, each as its epochs."""
    frame = pd.read_parquet(path)
    curves: dict[str, list[list[dict[str, Any]]]] = {}
    for (arm, _), epochs in frame.groupby(["arm", "trial"]):
        columns = ["epoch", "macro_f1", "train_loss", "search_loss", "cpu_seconds"]
        curves.setdefault(str(arm), []).append(epochs[columns].sort_values("epoch").to_dict("records"))
    return curves


def make_spec(num_trials: int, max_epochs: int, workers: int) -> StudySpec:
    """Return a study of the recorded space in which `workers` trials run at once on one core."""
    return validate_spec(
        {
            "name": "many-trials",
            "data": {"source": "planted"},
            "model": {"weights": "none"},
            "search": {"num_trials": num_trials, "max_epochs": max_epochs},
            "resources": {"cpu": 1 / workers, "max_concurrent": workers},
        },
        where="benchmark",
    )


def shared_files(*folders: Path) -> dict[str, tuple[int, float]]:
    """Return size and time of last change of every file that lies beside the trials' folders, not in them."""
    files = [p for folder in folders if folder.is_dir() for p in folder.iterdir() if p.is_file()]
    return {p.name: (p.stat().st_size, p.stat().st_mtime) for p in files}


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyTrials:
    """The cost of a run of many trials.

    Attributes:
        every: trials between two marks.
        costs: (wall, controller's CPU) milliseconds per trial, from mark to mark.
        states: of all trials in the end.
        rewritten: files beside the trials' folders that were written again.
        seconds: in all.
    """

    every: int
    costs: tuple[tuple[float, float], ...]
    states: tuple[TrialState, ...]
    rewritten: tuple[str, ...]
    seconds: float

    def describe(self) -> str:
        """Return the states of the trials, the files that were written again and the peak memory of this process."""
        states = ", ".join(f"{number} {state}" for state, number in Counter(self.states).items())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
        rewritten = ", ".join(self.rewritten) or "none"
        return f"{states}; files beside the trials' folders written again: {rewritten}; peak memory {peak:.0f} MB"

    @property
    def ratios(self) -> tuple[float, ...]:
        """Wall and CPU of the last part over those of the first."""
        return tuple(last / first for first, last in zip(self.costs[0], self.costs[-1], strict=True))


def run_many_trials(num_trials: int, workers: int, curves: Path = PARQUET) -> ManyTrials:
    """Run trials that train nothing through the real Ray run; the costs are of ten parts."""
    recorded = load_curves(curves)
    max_epochs = max(len(c) for arm in recorded.values() for c in arm)
    every = max(1, num_trials // 10)
    spec = make_spec(num_trials, max_epochs, workers)
    with tempfile.TemporaryDirectory(prefix="many-trials-") as folder, connect_cluster(None) as cluster:
        search = SearchDirector(RecordBook(Store(folder)), spec, {"max_epochs": max_epochs})
        director = _TimedDirector(search, every, (Path(folder), Path(cluster.scratch, "tune")))
        started = time.perf_counter()
        run_trials(
            director,
            TuneRun(
                spec=spec,
                cluster=cluster,
                max_concurrent=workers,
                trainable=tune.with_parameters(RecordedTrainable, curves=recorded),
                splits_to_predict=(),
                on_change=lambda: None,
            ),
        )
        seconds = time.perf_counter() - started
        if len(director.marks) * every <= num_trials:
            director.mark()
        states = tuple(r.state for r in RecordBook(Store(folder)))
    marks = zip(director.marks[:-1], director.marks[1:], strict=True)
    costs = [tuple(1e3 * (b - a) / every for a, b in zip(before, after, strict=True)) for before, after in marks]
    return ManyTrials(
        every=every,
        costs=tuple((wall, cpu) for wall, cpu in costs),
        states=states,
        rewritten=tuple(director.rewritten()),
        seconds=seconds,
    )
