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
from typing import Any, NamedTuple

import numpy as np
from ray import tune

from benchmarks.search.replay_curves import load_curves
from benchmarks.search.replay_sides import make_report
from search_spaces.config import Value
from study.cluster.connection import connect_cluster
from study.cluster.tasks import Stage
from study.cluster.tune_run import run_trials
from study.scheduling.search_director import SearchDirector
from study.spec.reading import validate_spec
from study.spec.study_spec import StudySpec
from study.state.record_book import RecordBook
from trainables.records.record import EpochReport, TrialRecord, TrialState
from trainables.storage.store import Store
from trainables.tune_adapter import encode_report

NUM_CLASSES = 10


class RecordedTrainable(tune.Trainable):
    """Returns the epochs of one recorded trial, as `TrialTrainable` would report them."""

    def setup(self, config: dict[str, Any], curves: Mapping[str, list[list[tuple[float, float]]]]) -> None:
        """Take the curves, by arm."""
        self._curves = curves
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in this process."""
        arm = json.loads(new_config["config_json"])["arm"]
        self._curve = self._curves[arm][int(new_config["trial_id"]) % len(self._curves[arm])]
        self._epoch = 0
        return True

    def step(self) -> dict[str, str]:
        """Return the next epoch."""
        macro_f1, seconds = self._curve[self._epoch]
        self._epoch += 1
        return encode_report(make_report(self._epoch, macro_f1, seconds, NUM_CLASSES))


class _TimedDirector(SearchDirector):
    """The search's director; reads the clocks at the start of every `every`-th trial."""

    def __init__(self, book: RecordBook, spec: StudySpec, fixed: dict[str, Value], every: int) -> None:
        super().__init__(book, spec, fixed)
        self.marks: list[tuple[float, float]] = []
        self._every, self._num_started = every, 0

    def next_trial(self) -> TrialRecord | None:
        if self.marks and self._num_started == len(self.marks) * self._every:
            self.mark()
        record = super().next_trial()
        self._num_started += record is not None
        return record

    def on_report(self, trial_id: str, report: EpochReport) -> bool:
        if not self.marks:
            self.mark()  # The start of the actors is no cost per trial.
        return super().on_report(trial_id, report)

    def mark(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))


class ManyTrials(NamedTuple):
    """The cost of a run of many trials.

    Attributes:
        costs: (wall, controller's CPU) milliseconds per trial, of each tenth of the trials.
        states: of all trials in the end.
        seconds: in all.
    """

    costs: list[tuple[float, float]]
    states: list[TrialState]
    seconds: float

    @property
    def ratios(self) -> tuple[float, ...]:
        """Wall and CPU of the last part over those of the first."""
        return tuple(last / first for first, last in zip(self.costs[0], self.costs[-1], strict=True))

    def describe(self) -> str:
        """Return the states of the trials and the peak memory of this process."""
        states = ", ".join(f"{number} {state}" for state, number in Counter(self.states).items())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
        return f"{states}; peak memory {peak:.0f} MB"


def list_curves() -> dict[str, list[list[tuple[float, float]]]]:
    """Return per arm the recorded trials, each as its (macro-F1, seconds) per epoch."""
    return {
        arm: [list(zip(*trial, strict=True)) for trial in zip(c.macro_f1.tolist(), c.cpu_seconds.tolist(), strict=True)]
        for arm, c in load_curves().arms.items()
    }


def run_many_trials(num_trials: int, workers: int) -> ManyTrials:
    """Run trials that train nothing through the real Ray run; the costs are of ten parts."""
    recorded = list_curves()
    max_epochs = max(len(c) for arm in recorded.values() for c in arm)
    every = max(1, num_trials // 10)
    # The default sampler's Gaussian process would add a quarter of a second to each of the first 150 trials of an arm.
    search = {"num_trials": num_trials, "max_epochs": max_epochs, "sampler": "tpe_multivariate"}
    resources = {"cpu": 1 / workers, "max_concurrent": workers}  # All workers share one core.
    sections = {"data": {"source": "planted"}, "model": {"weights": "none"}, "search": search, "resources": resources}
    spec = validate_spec({"name": "many-trials", **sections}, where="benchmark")
    with tempfile.TemporaryDirectory(prefix="many-trials-") as folder, connect_cluster(None) as cluster:
        book = RecordBook(Store(folder))
        director = _TimedDirector(book, spec, {"max_epochs": max_epochs}, every)
        started = time.perf_counter()
        stage = Stage(settings=None, max_concurrent=workers, splits_to_predict=(), on_change=lambda: None)
        trainable = tune.with_parameters(RecordedTrainable, curves=recorded)
        run_trials(director, stage, resources=spec.resources, scratch=cluster.scratch, trainable=trainable)
        seconds = time.perf_counter() - started
        if len(director.marks) * every <= num_trials:
            director.mark()
        states = [r.state for r in RecordBook(Store(folder))]
    walls, cpus = (np.diff(clock) * 1e3 / every for clock in zip(*director.marks, strict=True))
    return ManyTrials(list(zip(walls.tolist(), cpus.tolist(), strict=True)), states, seconds)
