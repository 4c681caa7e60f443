"""10,000 trials through the real Ray run: what the controller costs per trial, first thousand against last.

The trials train nothing: each returns, epoch by epoch and at once, the recorded curve of a trial of its arm. Everything
else is the product: Ray Tune, the search's director, samplers, brackets and records on disk.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import typer
from ray import tune
from rich.console import Console
from rich.table import Table

from benchmarks.search.record_curves import PARQUET
from study.cluster.connection import connect_cluster
from study.cluster.tune_run import TuneRun, run_trials
from study.scheduling.director import Report
from study.scheduling.search_director import SearchDirector
from study.spec.reading import validate_spec
from study.spec.study_spec import StudySpec
from study.state.record_book import RecordBook
from trainables.records.record import TrialRecord, TrialState
from trainables.records.store import Store
from trainables.training.epoch_metrics import EpochMetrics

GOAL = 3.0
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
        metrics = EpochMetrics(
            **{name: epoch[name] for name in ("epoch", "macro_f1", "train_loss", "search_loss")},
            per_class_f1=(epoch["macro_f1"],) * NUM_CLASSES,
            head_lr=0.1,
            backbone_lr=0.01,
            train_seconds=epoch["cpu_seconds"],
            evaluate_seconds=0.0,
            train_images_per_second=1.0,
            peak_memory_bytes=1,
        )
        return {
            "epoch": epoch["epoch"],
            "macro_f1": epoch["macro_f1"],
            "report": {
                "metrics": metrics.model_dump_json(),
                "device_seconds": epoch["cpu_seconds"],
                "details": {"device": "recorded"},
            },
        }


@dataclass(slots=True)
class _TimedDirector:
    """The search's director, with a look at the clocks at every thousandth trial."""

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
    """What a run of many trials cost.

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


def main(num_trials: int = 10_000, workers: int = 2, curves: Path = PARQUET) -> None:
    """Run the trials and print the table; exit with status 1 if the goal is missed."""
    console = Console(width=100)
    found = run_many_trials(num_trials, workers, curves)
    table = Table(title=f"{num_trials} trials, {workers} at once, with ASHA")
    for column in ("trials", "wall ms per trial", "controller's CPU ms per trial"):
        table.add_column(column, justify="right")
    for index, (wall, cpu) in enumerate(found.costs):
        table.add_row(f"{index * found.every + 1} to {(index + 1) * found.every}", f"{wall:.1f}", f"{cpu:.1f}")
    console.print(table)
    console.print(f"states: {', '.join(f'{found.states.count(s)} {s}' for s in TrialState)}")
    wall, cpu = found.ratios
    is_met = max(wall, cpu) <= GOAL
    console.print(f"last / first: wall {wall:.2f}, CPU {cpu:.2f}; goal <= {GOAL}: {'met' if is_met else 'missed'}")
    console.print(f"files beside the trials' folders that were written again: {', '.join(found.rewritten) or 'none'}")
    console.print(f"{found.seconds:.0f} s in all; peak memory of the controller {peak_memory_mb():.0f} MB")
    sys.exit(0 if is_met and len(found.states) == num_trials and not found.rewritten else 1)


def peak_memory_mb() -> float:
    """Return the largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    typer.run(main)
