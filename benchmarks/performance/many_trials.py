"""P8: the controller's cost per trial in a run of 10,000 trials, first thousand against last; and what large studies take.

The trials of P8 train nothing: each returns the recorded curve of a trial of its arm, epoch by epoch, without delay. Everything
else is the product: Ray Tune, the search's director, samplers, brackets and records on disk.

``python -m benchmarks.performance.many_trials [--trials 10000 --classes 10]`` makes up a study of 20 epochs and prints the bytes
and the driver's CPU per epoch, and the time to open it on a disk and on a moto server that answers after 30 ms.

``--reports`` prints how many reports a second the director of a search takes whose store answers after 50 ms: from threads, one
at a time, and by Ray Tune from several raylets.
"""

import argparse
import json
import os
import resource
import secrets
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ray import tune
from ray.cluster_utils import Cluster

from benchmarks.performance.tracker_seconds import make_study
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
from trainables.records.record import RECORD, EpochReport, TrialRecord, TrialState
from trainables.storage.store import Store
from trainables.tune_adapter import encode_report

NUM_CLASSES, NUM_EPOCHS = 10, 20
# Of the moto server, and of the object store that takes reports.
LATENCY_SECONDS, ANSWER_SECONDS = 0.03, 0.05


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


def measure_reports(folder: Path, num_classes: int) -> list[float]:
    """Return the driver's CPU seconds for the report of each epoch of a trial, its record's writes included."""
    search = {"num_trials": 2, "max_epochs": NUM_EPOCHS, "sampler": "random", "pruning": "none"}
    sections = {"data": {"source": "planted"}, "model": {"weights": "none"}, "search": search}
    spec = validate_spec({"name": "reports", **sections}, where="benchmark")
    director = SearchDirector(RecordBook(Store(folder)), spec, {"max_epochs": NUM_EPOCHS})
    record = director.next_trial()
    assert record is not None
    seconds = []
    for epoch in range(1, NUM_EPOCHS + 1):
        report = make_report(epoch, 0.5 + epoch / 100, 1.0, num_classes)
        started = time.process_time()
        director.on_report(record.trial_id, report)
        seconds.append(time.process_time() - started)
    return seconds


def measure_opening(root: str | Path) -> tuple[float, int]:
    """Return the seconds in which all records of a study are read, and their number."""
    started = time.perf_counter()
    number = len(list(RecordBook(Store(root))))
    return time.perf_counter() - started, number


def serve_study(folder: Path, started: Connection) -> None:
    """Serve the files of a study as s3://bucket/study by moto, each answer `LATENCY_SECONDS` late; send the port."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends
    from moto.server import DomainDispatcherApplication, create_backend_app  # type: ignore[attr-defined]
    from werkzeug.serving import WSGIRequestHandler, make_server

    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    backend.create_bucket("bucket", "us-east-1")
    for path in folder.rglob("*"):
        if path.is_file():
            backend.put_object("bucket", f"study/{path.relative_to(folder)}", path.read_bytes())
    application = DomainDispatcherApplication(create_backend_app)

    def answer_late(environ: Any, start_response: Any) -> Any:
        time.sleep(LATENCY_SECONDS)
        return application(environ, start_response)

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_: object) -> None:
            """Say nothing."""

    server = make_server("127.0.0.1", 0, answer_late, threaded=True, request_handler=Handler)
    started.send(server.port)
    server.serve_forever()


def measure_opening_on_s3(folder: Path) -> tuple[float, int]:
    """Return the seconds and the number of records by `measure_opening` of the same study on a moto server of its own process."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark"}
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve_study, args=(folder, theirs), daemon=True)
    server.start()
    try:
        return measure_opening(
            f"s3://bucket/study?endpoint_override=127.0.0.1:{ours.recv()}&scheme=http&region=us-east-1"
        )
    finally:
        server.kill()
        server.join()


class _DistantStore(Store):
    """An object store in memory that answers each request after `ANSWER_SECONDS`."""

    is_local = False  # type: ignore[assignment]

    def __init__(self, root: str, files: dict[str, bytes] | None = None) -> None:
        super().__init__(root)
        self._files = {} if files is None else files

    def child(self, name: str) -> "_DistantStore":
        return _DistantStore(super().child(name).root, self._files)

    def _answer(self, request: Callable[[], Any]) -> Any:
        time.sleep(ANSWER_SECONDS)
        return request()

    def write_bytes(self, name: str, data: bytes) -> None:
        self._answer(lambda: self._files.__setitem__(self.locate(name), data))

    def list_folder(self, name: str = "") -> tuple[str, ...]:
        start = f"{self.locate(name)}/"
        return self._answer(
            lambda: tuple({f[len(start) :].split("/")[0] for f in list(self._files) if f.startswith(start)})
        )

    def delete(self, name: str) -> None:
        # Whether there is something, and what.
        self._answer(lambda: self._answer(lambda: self._files.pop(self.locate(name), None)))


class _ReportingDirector(SearchDirector):
    """A search's director on a distant store; notes when each report had come, and how long it took."""

    def __init__(self, num_trials: int, num_epochs: int) -> None:
        # Without pruning, trials end after all their epochs.
        search = {"num_trials": num_trials, "max_epochs": num_epochs, "sampler": "tpe_multivariate", "pruning": "none"}
        sections = {"data": {"source": "planted"}, "model": {"weights": "none"}, "search": search}
        self.spec = validate_spec({"name": "reports", **sections}, where="benchmark")
        super().__init__(RecordBook(_DistantStore("reports")), self.spec, {"max_epochs": num_epochs})
        self._ended: list[float] = []
        self._seconds: list[float] = []

    def on_report(self, trial_id: str, report: EpochReport) -> bool:
        started = time.perf_counter()
        goes_on = super().on_report(trial_id, report)
        self._ended.append(time.perf_counter())
        self._seconds.append(self._ended[-1] - started)
        return goes_on

    def describe(self) -> str:
        """Return the number of reports, how many came in a second, and the milliseconds of one."""
        rate = (len(self._ended) - 1) / (self._ended[-1] - self._ended[0])
        median, mean = 1e3 * np.median(self._seconds), 1e3 * np.mean(self._seconds)
        return f"{len(self._ended)} reports, {rate:.1f} a second, {median:.1f} ms each (median), {mean:.1f} ms (mean)"


def measure_threads(num_threads: int, num_trials: int, num_epochs: int) -> str:
    """Return how fast a director takes the reports of threads, one at a time."""
    director, curves, loop = _ReportingDirector(num_trials, num_epochs), list_curves(), threading.Lock()

    def run_trials_of_a_thread(_: int) -> None:
        while True:
            with loop:
                record = director.next_trial()
            if record is None:
                return
            own = curves[record.config.arm]
            curve, epoch, goes_on = own[int(record.trial_id) % len(own)], 0, True
            while goes_on:
                epoch += 1
                report = make_report(epoch, *curve[(epoch - 1) % len(curve)], NUM_CLASSES)
                with loop:
                    goes_on = director.on_report(record.trial_id, report)

    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(run_trials_of_a_thread, range(num_threads)))
    return director.describe()


def measure_nodes(num_nodes: int, num_trials_of_a_node: int, num_trials: int, num_epochs: int) -> str:
    """Return how fast a director takes the reports of trials on several raylets of this machine, which Tune passes on."""
    encoded = [encode_report(make_report(epoch, 0.5, 1.0, NUM_CLASSES)) for epoch in range(1, num_epochs + 1)]

    class Encoded(tune.Trainable):  # type: ignore[misc]  # Made here: it pickles by value, so that its processes start fast.
        def setup(self, _: dict[str, Any]) -> None:
            self.reset_config({})

        def reset_config(self, _: dict[str, Any]) -> bool:
            self._left = iter(encoded)
            return True

        def step(self) -> dict[str, str]:
            return next(self._left)

    director = _ReportingDirector(num_trials, num_epochs)
    resources = director.spec.resources.model_copy(update={"cpu": 1 / num_trials_of_a_node})
    concurrent = num_nodes * num_trials_of_a_node
    stage = Stage(settings=None, max_concurrent=concurrent, splits_to_predict=(), on_change=lambda: None)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with tempfile.TemporaryDirectory(prefix="nodes-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "temp_dir": f"{folder}/ray", "include_dashboard": False},
        )
        try:
            for _ in range(num_nodes):
                cluster.add_node(num_cpus=1)
            with connect_cluster(cluster.address) as connected:
                run_trials(director, stage, resources=resources, scratch=connected.scratch, trainable=Encoded)
        finally:
            cluster.shutdown()
    return director.describe()


def main() -> None:
    """Print what a large study takes, or how many reports a second a director takes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=NUM_CLASSES)
    parser.add_argument("--reports", action="store_true")
    given = parser.parse_args()
    if given.reports:
        print("128 threads, 256 trials:", measure_threads(128, 256, NUM_EPOCHS), flush=True)
        print("16 trials at once on 4 raylets, 48 trials:", measure_nodes(4, 4, 48, NUM_EPOCHS))
        return
    with tempfile.TemporaryDirectory(prefix="many-trials-") as name:
        folder, reports = Path(name, "study"), measure_reports(Path(name, "reports"), given.classes)
        size = len(Store(Path(name, "reports")).read_bytes(f"trials/00000/{RECORD}"))
        make_study(folder, given.trials, NUM_EPOCHS, given.classes)
        print(f"{given.trials} trials, {given.classes} classes, {NUM_EPOCHS} epochs")
        print(
            f"a record has {size / NUM_EPOCHS:.0f} bytes per epoch; a report takes {1e3 * reports[0]:.1f} ms of CPU at"
        )
        print(f"the first epoch, {1e3 * reports[-1]:.1f} at the last, {1e3 * sum(reports) / NUM_EPOCHS:.1f} on average")
        for where, measure in (("on a disk", measure_opening), ("on S3", measure_opening_on_s3)):
            seconds, number = measure(folder)
            print(f"opened {where} in {seconds:.1f} s, {number} records", flush=True)


if __name__ == "__main__":
    main()
