"""Runs of Ray Tune: faulty, hanging and slow trials on one local Ray, and what Tune does to trials, without it."""

import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import ray
import torch
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from study.cluster import tune_run
from study.cluster.connection import Cluster, connect_cluster
from study.cluster.ray_workers import RayWorkers
from study.cluster.tasks import Task
from study.cluster.tune_run import (
    MAX_FAILED_TRIALS,
    Asker,
    DirectedScheduler,
    DirectedSearcher,
    FaultyNodes,
    HangWatch,
    run_trials,
)
from study.scheduling.director import ConfirmationDirector, Director, want
from study.scheduling.search_director import SearchDirector
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook, RecordBook
from tests.faults.nodes import local_cluster
from tests.study import simulated
from tests.study.replaying import replay_search
from tests.study.simulated import FIXED, drive, learning_curve, make_report, make_stage
from trainables.records.record import TrialState, best_trials
from trainables.storage.store import Store
from trainables.tune_adapter import encode_report, request_resources

TIMEOUT = 3.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The Ray of all runs here."""
    with connect_cluster(None) as started:
        yield started


def make_spec(resources: dict[str, Any], **search: Any) -> StudySpec:
    spec = simulated.make_spec(**search)
    return spec.model_copy(update={"resources": spec.resources.model_copy(update=resources)})


def make_trainable(
    train: Callable[[str, int, float], float | None], set_up: Callable[[str], None] = lambda _: None
) -> type[tune.Trainable]:
    """Return a trainable of the macro-F1 that `train` returns for trial, epoch and GPUs. Made here: it pickles by value."""

    class Simulated(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            set_up(config["trial_id"])
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._epoch, self._config = new_config["num_reported_epochs"], new_config
            return True

        def step(self) -> dict[str, str]:
            self._epoch += 1
            held = self._config["num_gpus"]
            return encode_report(
                make_report(self._epoch, train(self._config["trial_id"], self._epoch, held), held or 1.0)
            )

    return Simulated


FAULTS: dict[str, float | None] = {"00001": math.nan, "00002": math.inf, "00004": None}
CRASHES, EXHAUSTS = "00005", "00007"
NUM_TRIALS = 12


@pytest.mark.ray_cluster
@pytest.mark.timeout(240)
def test_injected_faults_end_five_trials_and_the_study_ends_normally(cluster: Cluster, tmp_path: Path) -> None:
    """Each ends at the faulty report, and nothing waits for it."""

    def exhaust_memory() -> None:
        """Leave the process no room for another tensor, then ask for one."""
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 1_000_000, limits[1]))
        try:
            torch.zeros(100_000_000)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)

    def train(trial_id: str, epoch: int, _: float) -> float | None:
        if epoch == 2 and trial_id == CRASHES:
            raise ValueError("the image is not an image")
        if epoch == 2 and trial_id == EXHAUSTS:
            exhaust_memory()
        return FAULTS[trial_id] if epoch == 2 and trial_id in FAULTS else 0.3 + 0.01 * int(trial_id) + 0.05 * epoch

    spec = make_spec({"retries": 0}, num_trials=NUM_TRIALS)
    book = RecordBook(Store(tmp_path))
    director = SearchDirector(book, spec, FIXED)
    run_trials(
        director, make_stage(2), resources=spec.resources, scratch=cluster.scratch, trainable=make_trainable(train)
    )
    records = book.of_stage("search")
    assert director.is_exhausted
    assert len(records) == NUM_TRIALS
    failed = {r.trial_id: r for r in records if r.state is TrialState.FAILED}
    assert set(failed) == {*FAULTS, CRASHES, EXHAUSTS}
    for trial_id in FAULTS:
        assert failed[trial_id].reason == "macro_f1 was not a finite number at epoch 2"
        assert len(failed[trial_id].epochs) == 2
    assert "ValueError: the image is not an image" in failed[CRASHES].reason
    assert len(failed[CRASHES].epochs) == 1
    assert "memory" in failed[EXHAUSTS].reason
    for arm in ("resnet18", "resnet50"):
        assert not {r.trial_id for r in best_trials(records, arm)} & set(failed)
        states = [t.state for t in director._samplers[arm].trials]
        assert all(state.is_finished() for state in states)
        assert len(states) == sum(r.config.arm == arm for r in records)
    replay = replay_search(records, {0: spec})
    assert (replay.num_suggestions, replay.difference) == (NUM_TRIALS, "")


@pytest.mark.ray_cluster
@pytest.mark.timeout(240)
def test_slow_set_up_is_waited_for_and_a_trial_that_hangs_is_retried(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process of each trial is slow: trial 00000 in its set-up, trial 00001 in its second epoch."""
    # On a busy machine, a process starts in more than the time that four time-outs of this test leave.
    monkeypatch.setattr(tune_run, "SET_UP_TIMEOUTS", 20)

    def sleep_once(trial_id: str) -> None:
        if not (tmp_path / trial_id).exists():
            (tmp_path / trial_id).touch()
            time.sleep(2 * TIMEOUT)

    def set_up(trial_id: str) -> None:
        if trial_id == "00000":
            sleep_once(trial_id)

    def train(trial_id: str, epoch: int, _: float) -> float:
        if trial_id == "00001" and epoch == 2:
            sleep_once(trial_id)
        return 0.5

    spec = make_spec({"timeout_seconds": TIMEOUT}, num_trials=2, pruning="none")
    book = MemoryBook()
    director, trainable = SearchDirector(book, spec, FIXED), make_trainable(train, set_up)
    run_trials(director, make_stage(2), resources=spec.resources, scratch=cluster.scratch, trainable=trainable)
    slow, hung = book.of_stage("search")
    assert [slow.state, hung.state] == [TrialState.COMPLETE] * 2
    assert (slow.attempts, slow.retry_causes) == (1, ())
    assert hung.attempts == 2
    assert f"no report for {TIMEOUT:g} s" in hung.retry_causes[0]
    assert [e.epoch for e in hung.epochs] == [1, 2, 3, 4, 5, 6]


@pytest.mark.ray_cluster
@pytest.mark.timeout(240)
def test_a_process_that_starts_slowly_is_not_replaced_by_one_that_is_free(cluster: Cluster, tmp_path: Path) -> None:
    """It keeps its trial, and the other process takes new ones meanwhile."""

    def set_up(trial_id: str) -> None:
        (tmp_path / f"process {os.getpid()}").touch()
        time.sleep(0.0 if trial_id == "00000" else 3.0)
        (tmp_path / f"ready {os.getpid()}").touch()

    def train(trial_id: str, *_: float) -> float:
        # Until the other process is there, the trials of the first one must not end, also on a busy machine.
        time.sleep(0.2 if len(list(tmp_path.glob("ready *"))) < 2 else 0.0)
        (tmp_path / f"trial {trial_id} {os.getpid()}").touch()
        return 0.5

    spec = make_spec({"cpu": 0.5}, num_trials=14, pruning="none")
    director, trainable = SearchDirector(MemoryBook(), spec, FIXED), make_trainable(train, set_up)
    run_trials(director, make_stage(2), resources=spec.resources, scratch=cluster.scratch, trainable=trainable)
    places = [path.name.split() for path in tmp_path.iterdir()]
    processes = {place[1] for place in places if place[0] == "process"}
    users = {place[2]: place[1] for place in places if place[0] == "trial"}
    assert len(processes) == 2, "every process that was started runs trials"
    assert set(users) == processes


GPU_LOG = "gpus.jsonl"


def run_on_gpus(address: str, folder: str) -> None:
    """Run 40 trials that hold a GPU or a quarter of one, and tasks that hold a quarter or none; each step and task writes a line.

    The devices of a process are in its environment: nothing computes on them.
    """

    def write_line(held: float, seconds: float) -> None:
        started = time.time()
        time.sleep(seconds)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        line = {"pid": os.getpid(), "visible": visible, "held": held, "started": started, "ended": time.time()}
        with (Path(folder) / GPU_LOG).open("a") as log:
            log.write(f"{json.dumps(line)}\n")

    def train(_: str, __: int, held: float) -> float:
        write_line(held, 0.1)
        return 0.5

    gpu = {"resnet18": 1.0, "resnet50": 0.25}
    spec = make_spec({"cpu": 0.1, "gpu": gpu, "device": "cpu"}, num_trials=40, pruning="none")
    with connect_cluster(address) as cluster:
        director = SearchDirector(MemoryBook(), spec, FIXED)
        run_trials(
            director, make_stage(8), resources=spec.resources, scratch=cluster.scratch, trainable=make_trainable(train)
        )
        assert all(record.state is TrialState.COMPLETE for record in director.book.of_stage("search"))
        none: Any = None
        tasks = [Task(arguments=(held, 1.0), cpu=0.1, gpu=held) for held in (0.25, 0.25, 0.0)]

        def compute(held: float, seconds: float, **_: Any) -> None:
            write_line(held, seconds)

        list(RayWorkers(cluster.scratch, spec, none).run_tasks(compute, tasks))


@pytest.mark.long_faults
@pytest.mark.timeout(280)
def test_trials_on_eight_logical_gpus_see_those_that_they_hold(tmp_path: Path) -> None:
    program = f"from {__name__} import run_on_gpus; run_on_gpus"
    with local_cluster(0, head_cpus=2, head_gpus=8) as nodes:
        done = subprocess.run(
            [sys.executable, "-c", f"{program}({nodes.address!r}, {str(tmp_path)!r})"],
            env={**os.environ, **nodes.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    lines = [json.loads(line) for line in (tmp_path / GPU_LOG).read_text().splitlines()]
    steps, on_gpus = lines[:-3], [line for line in lines if line["held"]]
    assert len(steps) == 40 * 6
    assert {line["held"] for line in steps} == {1.0, 0.25}
    assert {line["visible"] for line in on_gpus} <= set("01234567"), "one device each"
    assert [line["visible"] for line in lines[-3:] if not line["held"]] == [""], "a task without a GPU is given none"
    assert len({(line["pid"], line["visible"]) for line in steps}) == len({line["pid"] for line in steps})
    loads = []
    for line in on_gpus:
        there = [x for x in on_gpus if x["visible"] == line["visible"] and x["started"] <= line["started"] < x["ended"]]
        loads.append((sum(x["held"] for x in there), len(there)))
    assert max(load for load, _ in loads) <= 1.0, "a whole GPU has one trial, and none has more than four quarters"
    assert max(number for _, number in loads) > 1, "quarters share a GPU"


Driven = tuple[Director, MemoryBook, DirectedSearcher, DirectedScheduler]


@pytest.fixture(params=["search", "confirmation"])
def driven(request: pytest.FixtureRequest) -> Driven:
    """A director of two trials, its book, and what stands between them and Tune."""
    book = MemoryBook()
    director: Director = SearchDirector(book, simulated.make_spec(num_trials=2), FIXED)
    if request.param == "confirmation":
        drive(director)
        director = ConfirmationDirector(book, want(best_trials(book.of_stage("search"), "resnet18")[0], (1, 2)))
    asker, resources = Asker(director), simulated.make_spec().resources
    return director, book, DirectedSearcher(asker, resources, ("search",)), DirectedScheduler(asker, resources)


def make_trial(trial_id: str, status: str, config: object) -> Any:
    return SimpleNamespace(
        trial_id=trial_id, status=status, config=config, error_file=None, max_failures=2, num_failures=1
    )


def test_a_dropped_trial_with_retries_left_is_queued_again_and_completes(driven: Driven) -> None:
    director, book, searcher, scheduler = driven
    configs = [searcher.suggest(name) for name in ("tune-a", "tune-b")]
    assert all(isinstance(config, dict) for config in configs)
    record_id = configs[0]["trial_id"]
    assert searcher.suggest("tune-c") is None
    scheduler.on_trial_error(None, make_trial("tune-a", Trial.PENDING, configs[0]))
    searcher.on_trial_complete("tune-a", error=True)
    record = book.get(director.stage, record_id)
    assert record.state is TrialState.RUNNING
    assert record.retry_causes == ()
    again: Any = searcher.suggest("tune-d")
    assert again["trial_id"] == record_id
    assert book.get(director.stage, record_id).attempts == record.attempts + 1
    for trial_id in (record_id, configs[1]["trial_id"]):
        for epoch in range(1, 7):
            macro_f1 = learning_curve(book.get(director.stage, trial_id), epoch)
            director.on_report(trial_id, make_report(epoch, macro_f1, 1.0))
        assert book.get(director.stage, trial_id).state is TrialState.COMPLETE
    assert searcher.suggest("tune-e") is None
    searcher.on_trial_complete("tune-b")
    searcher.on_trial_complete("tune-d")
    assert searcher.suggest("tune-f") == Searcher.FINISHED


def test_a_trial_without_retries_left_fails(driven: Driven) -> None:
    director, book, searcher, scheduler = driven
    config: Any = searcher.suggest("tune-a")
    scheduler.on_trial_error(None, make_trial("tune-a", Trial.RUNNING, config))
    searcher.on_trial_complete("tune-a", error=True)
    assert book.get(director.stage, config["trial_id"]).state is TrialState.FAILED


def test_clock_starts_when_the_process_is_ready_and_again_at_each_report(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []
    now = 0.0
    monkeypatch.setattr(ray, "kill", killed.append)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = HangWatch(10.0)
    trial: Any = SimpleNamespace(trial_id="a", temporary_state=SimpleNamespace(ray_actor=None))
    watch.kill_hung([trial])
    now = 100.0
    trial.temporary_state.ray_actor = "actor"
    watch.kill_hung([trial])
    now = 109.0
    watch.kill_hung([trial])
    watch.hear(trial)
    now = 118.0
    watch.kill_hung([trial])
    assert killed == []
    assert watch.take_cause(trial) == ""
    now = 120.0
    for _ in range(2):
        watch.kill_hung([trial])
    assert killed == ["actor"]
    assert "no report for 10 s" in watch.take_cause(trial)
    watch.reset(trial, None)
    trial.temporary_state.ray_actor = None
    now = 500.0
    watch.kill_hung([trial])
    trial.temporary_state.ray_actor = "next actor"
    watch.kill_hung([trial])
    assert killed == ["actor"]


def test_a_set_up_that_does_not_end_is_ended_and_the_clock_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune's controller has the actor that is being set up; a trial that waits for devices has none."""
    killed: list[str] = []
    now = 0.0
    monkeypatch.setattr(ray, "kill", killed.append)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch, live = HangWatch(10.0), dict[str, tuple[str, None]]()
    trial = Mock(trial_id="a", temporary_state=SimpleNamespace(ray_actor=None))
    manager = SimpleNamespace(_live_actors_to_ray_actors_resources=live)
    watch.reset(trial, SimpleNamespace(_trial_to_actor={trial: "a's"}, _actor_manager=manager))
    watch.kill_hung([trial])
    for now in (100.0, 140.0, 141.0):  # noqa: B007
        live["a's"] = ("actor", None)
        assert killed == []
        watch.kill_hung([trial])
    assert killed == ["actor"]
    assert watch.take_cause(trial) == (
        "no end of its set-up for 40 s (4 times resources.timeout_seconds): its process was killed"
    )
    trial.temporary_state.ray_actor = "ready actor"
    watch.kill_hung([trial])
    now = 151.5
    watch.kill_hung([trial])
    assert killed == ["actor", "ready actor"]


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of two nodes with a GPU that are alive, eight digits of which are in a node's name; a head has none."""
    ids = [digit * 56 for digit in "abc"]

    def list_nodes() -> list[dict[str, Any]]:
        return [
            {"NodeID": n, "Alive": True, "Resources": {"CPU": 8.0} | ({} if "c" in n else {"GPU": 1.0})} for n in ids
        ]

    monkeypatch.setattr(ray, "nodes", list_nodes)
    return ids


def test_a_trial_goes_on_elsewhere_and_a_node_that_only_fails_gets_none(alive: list[str]) -> None:
    nodes, bad, good = FaultyNodes(), f"host/{alive[0][:8]}", f"host/{alive[1][:8]}"

    def avoided(trial_id: str, num_gpus: float = 1.0) -> tuple[str, ...]:
        return nodes.list_avoided({"trial_id": trial_id, "num_cpus": 8.0, "num_gpus": num_gpus})

    assert avoided("00000") == ()
    assert nodes.add_failure(bad, "00000") == 1
    assert avoided("00000") == (alive[0],)
    assert avoided("00001") == ()
    assert avoided("00000", num_gpus=2.0) == (), "it fits on no other node"
    assert nodes.add_failure(bad, "00000") == 1, "the same trial again"
    assert [nodes.add_failure(bad, f"{n:05d}") for n in range(1, MAX_FAILED_TRIALS)] == [2, 3]
    assert avoided("00009") == (alive[0],)
    nodes.add_failure(good, "00009")
    assert avoided("00009") == (), "both fail, so that the trials are the reason"
    nodes.hear(good)
    assert avoided("00009") == (alive[0],)
    head = alive.pop()
    lost = alive.pop()
    alive.append(head)
    assert avoided("00009") == (), "the only other node with a GPU is lost"
    alive.append(lost)
    nodes.hear(bad)
    assert avoided("00000") == ()


def test_the_node_of_an_error_is_in_its_last_line_and_the_retry_avoids_it(
    alive: list[str], driven: Driven, tmp_path: Path
) -> None:
    director, book, searcher, scheduler = driven
    config: Any = searcher.suggest("tune-a") | {"num_gpus": 1.0}
    trial = make_trial("tune-a", Trial.ERROR, config)
    trial.error_file, changed = tmp_path / "error.txt", []
    trial.error_file.write_text(f"Traceback\nValueError: no CUDA device\non node host/{alive[0][:8]}")
    trial.update_resources = changed.append
    scheduler.on_trial_error(None, trial)
    assert book.get(director.stage, config["trial_id"]).retry_causes[0].splitlines()[-1] == (
        f"ValueError: no CUDA device (on node host/{alive[0][:8]})"
    )
    assert changed == [request_resources({**config, "avoided_nodes": (alive[0],)})]
    assert changed[0] != request_resources({**config, "avoided_nodes": ()})
