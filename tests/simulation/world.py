"""One seed: a study, its storage, hosts and drivers, and the faults that meet them."""

import fcntl
import io
import os
import platform
import random
import shutil
import sys
import tempfile
import time
import traceback
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from pyarrow import fs
from rich.console import Console

from search_spaces.errors import UserInputError
from study.cluster import tune_run
from study.cluster.tasks import Stage, Task
from study.confirmation.stated_interventions import dump_stated
from study.open_study import OpenStudy, create_to_drive
from study.scheduling.director import Director
from study.scheduling.search_director import SearchDirector
from study.stages.stage import Session
from study.stages.training import CONFIRM, Search
from study.state import budget_extensions, lease, record_book
from study.state.paths import PLAN, SPEC
from study.state.record_book import StudyInterrupted, open_trial_files
from tests.simulation.invariants import Invariants, must
from tests.simulation.scheduler import (
    Clock,
    Host,
    Process,
    Scheduler,
    SimulatedThreads,
    Violation,
    current,
    draw_seconds,
)
from tests.simulation.scheduler import Task as Thread
from tests.simulation.storage_models import Disk, ObjectStore, StorageFaults
from tests.simulation.studies import draw_study, prepare_study
from tests.simulation.training_model import SimulatedRun, predict_test
from tests.simulation.tune_model import SILENCE_SECONDS, Cluster, Tuner
from trainables import trial_worker
from trainables.records import trial_files
from trainables.records.trial_files import TrialFiles
from trainables.storage import durable
from trainables.storage import store as store_module
from trainables.storage.store import StorageError, Store

MOST_STEPS = 60_000
# A driver that is started imports for some seconds before it reads anything.
START_SECONDS = (6.0, 40.0)
NUM_HOSTS = 3
LEAST_FAULTS = 10
MOST_UNFIT = 3
# How far a study is; the test split is read once the plan is written.
CONFIRMING, READING = 1, 2
# Faults that do not wait.
NUM_EARLY = 3
# What a driver may say when it cannot drive: another one does.
REFUSED = ("is driven by", "was taken by another driver", "in the middle of a write", "the study 'simulated' exists")
# What it may say when all trials of an arm were lost; the user extends the search or starts the trials again.
UNFIT = ("ran every epoch", "needs two seeds", "no intervention of the round")


@dataclass(frozen=True)
class Outcome:
    """What came of a seed.

    Attributes:
        problem: "" if nothing is wrong.
        steps: turns of the scheduler.
        faults: number of each fault that was injected.
        seconds: of simulated time.
        trace: the last events.
    """

    seed: int
    problem: str
    steps: int
    faults: Counter[str]
    seconds: float
    trace: tuple[str, ...]

    def describe(self, num_lines: int = 60) -> str:
        """Return the seed, what is wrong, and the last events."""
        lines = [f"seed {self.seed}: {self.problem}", *self.trace[-num_lines:]]
        return "\n".join([*lines, f"again: python -m tests.simulation --first {self.seed} --seeds 1 --trace"])


class World:
    """A simulated study from its launch to its end."""

    def __init__(self, seed: int) -> None:
        self.seed, self.rng = seed, random.Random(seed)
        self.scheduler = Scheduler()
        self.scheduler.before_step = self._step
        self.invariants = Invariants(self.scheduler)
        self.trace: deque[str] = deque(maxlen=4000)
        self.faults: Counter[str] = Counter()
        self.is_finished = False
        self._base = Path(tempfile.mkdtemp(prefix="abstudy-simulation-", dir=_find_memory()))
        self._storage_faults = StorageFaults()
        see = self._see
        parts = self.scheduler, self.rng, self._storage_faults, see
        disk = self._base / "disk"
        disk.mkdir()
        self.storage = Disk(disk, *parts) if self.rng.random() < 0.5 else ObjectStore(*parts)
        self.invariants.storage = self.storage
        self.spec, self._stated = draw_study(seed, self.rng)
        self.prepared = prepare_study(self.spec)
        hosts = [Host(f"node-{i}", skew=self.rng.gauss(0, 30)) for i in range(NUM_HOSTS)]
        self.cluster = Cluster(self.scheduler, self.rng, hosts, self.rng.randint(2, 4))
        self.invariants.device_seconds = self.cluster.device_seconds
        self._num_planned = self.rng.randint(12, 30)
        self._next_fault = self.rng.randint(5, 60)
        self._kinds = self._draw_kinds()
        # Most steps are of the search: in many seeds, most faults wait for what comes later.
        self._stage, self._focus = 0, self.rng.choice([0, 0, CONFIRMING, READING])
        self._storage_failed_until = 0.0
        self._must_extend = False
        self._num_unfit = 0

    def run(self) -> Outcome:
        """Run the study to its end."""
        problem = ""
        try:
            with self._patched():
                self._start_driver()
                self.scheduler.call_after(5.0, self._operate)
                self.scheduler.run(lambda: self.is_finished, MOST_STEPS)
        except Violation as violation:
            problem = str(violation)
        except Exception:
            problem = traceback.format_exc()
        finally:
            shutil.rmtree(self._base, ignore_errors=True)
        return Outcome(self.seed, problem, self.scheduler.steps, self.faults, self.scheduler.now, tuple(self.trace))

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        task = current()
        text = text.replace(str(self._base), "")
        self.trace.append(f"{self.scheduler.now:10.2f} {task.process if task else '-'}: {text}")

    # Drivers.

    def _start_driver(self, delay: float | None = None) -> None:
        delay = self.cluster.draw(*START_SECONDS) if delay is None else delay
        process = self.cluster.start("driver", self._drive, delay)
        self.note(f"{process} starts in {delay:.0f} s")

    def _operate(self) -> None:
        """Start a driver where none is left, as a user would who looks now and then."""
        drivers = [process for process in self.cluster.processes if process.kind == "driver" and process.is_alive]
        if not drivers:
            self._start_driver()
        self.scheduler.call_after(10.0, self._operate)

    def _drive(self) -> None:
        try:
            self._run_study()
            self.note("the study has ended")
        except StudyInterrupted as error:
            self.note(f"interrupted: {error}")
        except (KeyboardInterrupt, SystemExit) as stop:
            self.note(f"stopped: {type(stop).__name__}")
        except StorageError as error:
            self.note(f"storage: {error}")
            must(self.scheduler.now < self._storage_failed_until, f"the storage fails without a fault: {error}")
        except UserInputError as error:
            self.note(f"refused: {error}")
            self._must_extend = self._must_extend or any(text in str(error) for text in UNFIT)
            known = any(text in str(error) for text in (*REFUSED, *UNFIT))
            must(known, f"a driver ended with {type(error).__name__}: {error}")
            self._num_unfit += any(text in str(error) for text in UNFIT)
            if self._num_unfit > MOST_UNFIT and self.spec.has_given_arms:
                # The control or every intervention was lost permanently, which ends such a round.
                self._focus, self.is_finished = 0, sum(self.faults.values()) >= LEAST_FAULTS
        except Exception:
            must(False, traceback.format_exc())

    def _run_study(self) -> None:
        store = Store(self.storage.root)
        with Session(Console(file=io.StringIO())) as session:
            session.prepared, session._max_concurrent = self.prepared, self.cluster.max_concurrent
            session.view = _NoView()
            if store.exists(SPEC):
                session.open(store)
            else:
                stated = None if self._stated is None else dump_stated(self._stated)
                passport = {"data": {"class_names": list(self.prepared.data.class_names)}, "num_devices": 4.0}
                session.study = session.enter_context(create_to_drive(store, self.spec, passport, interventions=stated))
            self.note(f"drives the study with token {current().notes.get('token')}")
            session.__dict__["workers"] = _Workers(self, session.study)
            if self._must_extend and not self.spec.has_given_arms:
                self._extend(session)
            for stage in (Search(), CONFIRM):
                if not stage.is_done(session):
                    self.note(f"begins {type(stage).__name__}")
                    self._stage = max(self._stage, CONFIRMING * (stage is CONFIRM))
                    stage.run(session)
            if sum(self.faults.values()) >= LEAST_FAULTS:
                self.invariants.check_end(session.study, lambda folder: TrialFiles(session.study.store.child(folder)))
                self.is_finished = True

    def _extend(self, session: Session) -> None:
        study = session.study
        self._must_extend = False
        found = budget_extensions.parse_extension("+4", None, study.spec)
        budget_extensions.write_extension(study.store, found, len(study.book.of_stage("search")))
        spec = budget_extensions.extended_spec(study.store, budget_extensions.launched_spec(study.store))
        session.study = replace(study, spec=spec)

    # Faults.

    @property
    def _num_left(self) -> int:
        return self._num_planned - sum(self.faults.values())

    def _draw_kinds(self) -> list[str]:
        """Return the kinds of faults that this seed may meet."""
        kinds = [
            "crash",
            "crash of the driver",
            "pause",
            "stop",
            "skew",
            "node loss",
            "silence",
            "second driver",
            "worker",
        ]
        if isinstance(self.storage, Disk):
            kinds += ["power loss", "disk full"]
        else:
            kinds += ["503", "lost reply", "delayed PUT", "stale listing", "outage", "cut off"]
        return self.rng.sample(kinds, self.rng.randint(4, len(kinds)))

    def _step(self, thread: Thread) -> None:
        if self._num_left <= 0 and self.scheduler.now > self._storage_failed_until:
            self._storage_faults.pending.clear()
        if self.scheduler.steps < self._next_fault or self._num_left <= 0:
            return
        if self._stage < self._focus and sum(self.faults.values()) >= NUM_EARLY:
            self._next_fault = self.scheduler.steps + 1
            return
        shortest, longest = (15, 60) if sum(self.faults.values()) < 12 else (40, 600)
        if self._focus:
            shortest, longest = 3, 100
        self._next_fault = self.scheduler.steps + int(draw_seconds(self.rng, shortest, longest))
        kind = self.rng.choice(self._kinds)
        self.faults[kind] += 1
        self.trace.append(f"{self.scheduler.now:10.2f} fault: {kind}, at a turn of {thread.process}")
        self._inject(kind, thread.process)

    def _inject(self, kind: str, process: Process) -> None:
        rng, now, pending = self.rng, self.scheduler.now, self._storage_faults.pending
        host, alive = process.host, [found for found in self.cluster.processes if found.is_alive]
        drivers = [found for found in alive if found.kind == "driver"]
        if kind == "crash":
            self.scheduler.kill(process if rng.random() < 0.7 else rng.choice(alive))
        elif kind == "crash of the driver" and drivers:
            self.scheduler.kill(rng.choice(drivers))
        elif kind == "pause":
            self._pause(process if rng.random() < 0.7 else rng.choice(alive), self.cluster.draw(1.0, 300.0))
        elif kind == "stop" and drivers:
            rng.choice(drivers).stop = rng.choice([KeyboardInterrupt(), SystemExit(143)])
        elif kind == "skew":
            host.skew = rng.choice([-Clock.EPOCH, rng.gauss(0, 60), rng.gauss(0, 1e5)])
        elif kind == "node loss":
            self._lose(host)
        elif kind == "silence":
            seconds = rng.uniform(40.0, 200.0)
            there = [found for found in alive if found.host is host]
            for found in there:
                self._pause(found, seconds)
            self.scheduler.call_after(SILENCE_SECONDS, lambda: self._tell_silence(there))
        elif kind == "second driver":
            for _ in range(rng.randint(1, 2)):
                self._start_driver(START_SECONDS[0] + rng.uniform(0, 1.0))
        elif kind == "worker":
            self.cluster.faults.pending.append(rng.choice(["error", "hang", "notice"]))
        elif kind == "power loss":
            for found in self.cluster.hosts:
                self._lose(found)
            self.storage.lose_power()
            self.invariants.check_disk()
        elif kind == "503":
            pending.extend([kind] * rng.randint(1, 12))
        elif kind in ("disk full", "lost reply", "delayed PUT"):
            pending.append(kind)
        elif kind == "stale listing":
            self._storage_faults.stale_until = now + self.cluster.draw(5.0, 60.0)
        elif kind == "outage":
            self._storage_faults.down_until = now + self.cluster.draw(2.0, 150.0)
        elif kind == "cut off":
            host.cut_off_until = now + self.cluster.draw(2.0, 150.0)
        self._storage_failed_until = now + 600.0

    def _pause(self, process: Process, seconds: float) -> None:
        """Suspend a process; not for long where a driver has sent a write to an object store, which has no lock."""
        if process.kind == "driver" and process.num_writes and isinstance(self.storage, ObjectStore):
            seconds = min(seconds, 20.0)
        process.paused_until = process.last_pause = max(process.paused_until, self.scheduler.now + seconds)

    def _lose(self, host: Host) -> None:
        """End all processes of a machine, which starts again."""
        for process in self.cluster.processes:
            if process.host is host:
                self.scheduler.kill(process)
        host.boot, host.booted = host.boot + 1, self.scheduler.now

    def _tell_silence(self, processes: list[Process]) -> None:
        for process in processes:
            if process.paused_until > self.scheduler.now:
                for function in process.on_silence:
                    function()

    # What the product finds in place of the real world.

    @contextmanager
    def _patched(self) -> Iterator[None]:
        with ExitStack() as stack:
            clock, threads = Clock(self.scheduler, time), SimulatedThreads(self.scheduler)
            for name in ("time", "monotonic", "perf_counter", "clock_gettime", "sleep"):
                stack.enter_context(mock.patch.object(time, name, getattr(clock, name)))
            replaced: list[tuple[Any, str, Any]] = [
                (platform, "node", _here(platform.node, lambda process: process.host.name)),
                (os, "getpid", _here(os.getpid, lambda process: process.pid)),
                (uuid, "uuid4", _here(uuid.uuid4, lambda _: SimpleNamespace(hex=f"{self.rng.getrandbits(128):032x}"))),
                (lease, "threading", threads),
                (lease, "read_boot_id", lambda: f"{_me().host.name} start {_me().host.boot}"),
                (lease, "read_pid_namespace", lambda: f"{_me().host.name} {_me().pid % 5 == 0}"),
                (lease, "read_start_time", self._read_start_time),
                (lease, "fcntl", SimpleNamespace(**{**vars(fcntl), "flock": _flock})),
                (record_book, "ThreadPoolExecutor", threads.ThreadPoolExecutor),
                (trial_files, "ThreadPoolExecutor", threads.ThreadPoolExecutor),
                (durable, "_flushed", _OfEachProcess()),
                (trial_worker, "make_run", self._make_run),
                (trial_worker, "prepare_to_train", lambda _: None),
                (tune_run, "tune", self._make_tune()),
                (tune_run, "ray", SimpleNamespace(kill=self.cluster.kill_actor)),
                (lease.Lease, "check", self._wrap_check(lease.Lease.check)),
                (sys, "stderr", io.StringIO()),
                *((Store, name, self._wrap_write(getattr(Store, name))) for name in ("write_bytes", "create_bytes")),
            ]
            if isinstance(self.storage, Disk):
                replaced += [(os, name, function) for name, function in self.storage.patches().items()]
                replaced += [
                    (Store, "_try", self._wrap_try(Store._try)),
                    (Store, "delete", self._wrap_delete(Store.delete)),
                ]
            else:
                opened = SimpleNamespace(from_uri=self.storage.open)
                names = ("LocalFileSystem", "FileType", "FileSelector", "FileInfo")
                pyarrow = SimpleNamespace(FileSystem=opened, **{name: getattr(fs, name) for name in names})
                replaced += [(store_module, "fs", pyarrow), (store_module, "put_new", self.storage.put_new)]
            for owner, name, value in replaced:
                stack.enter_context(mock.patch.object(owner, name, value))
            yield

    def _make_run(self, config: Any, data: Any, *, checkpoint: Any, **_: object) -> SimulatedRun:
        return SimulatedRun(config, data, self.scheduler, checkpoint)

    def _make_tune(self) -> SimpleNamespace:
        kinds = ("TuneConfig", "RunConfig", "CheckpointConfig", "FailureConfig")
        make = dict.fromkeys(kinds, SimpleNamespace)

        def tuner(trainable: Any, tune_config: Any, run_config: Any) -> Tuner:
            return Tuner(trainable, tune_config, run_config, self.cluster, self._base)

        return SimpleNamespace(Tuner=tuner, with_resources=lambda trainable, _: trainable, **make)

    def _read_start_time(self, pid: int) -> str | None:
        host = _me().host
        there = (
            found for found in self.cluster.processes if found.pid == pid and found.host is host and found.is_alive
        )
        return next((f"start of {found.pid}" for found in there), None)

    def _see(self, name: str, data: bytes | None) -> None:
        self.note(f"{'deletes' if data is None else 'writes'} {name}")
        self._stage = READING if name == PLAN else self._stage
        self.invariants.see(name, data)

    def _wrap_check(self, check: Callable[[Any], None]) -> Callable[[Any], None]:
        def wrapped(held: lease.Lease) -> None:
            task = current()
            if task is None:
                check(held)
                return
            began = self.scheduler.now
            task.process.num_writes += 1
            try:
                check(held)
            finally:
                task.process.num_writes -= 1
            task.notes |= {"token": held.token, "checked": began}

        return wrapped

    def _wrap_write(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(store: Store, name: str, data: bytes) -> Any:
            task = current()
            if task is None:
                return write(store, name, data)
            task.process.num_writes += 1
            try:
                result = write(store, name, data)
            finally:
                task.process.num_writes -= 1
            if result is not False:
                root, place = self.storage.root, store.locate(name)
                self.invariants.acknowledge(place.removeprefix(f"{root}/"), data)
            return result

        return wrapped

    def _wrap_try(self, attempt: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(store: Store, verb: str, name: str, action: Callable[[], Any]) -> Any:
            if current() is not None:
                self.scheduler.sleep(draw_seconds(self.rng, 0.0001, 0.01))
            return attempt(store, verb, name, action)

        return wrapped

    def _wrap_delete(self, delete: Callable[[Store, str], None]) -> Callable[[Store, str], None]:
        def wrapped(store: Store, name: str) -> None:
            try:
                delete(store, name)
            finally:
                if current() is not None:
                    self.storage.note_deleted(store.locate(name))

        return wrapped


class _OfEachProcess:
    """A set that every process has its own of."""

    def __contains__(self, value: object) -> bool:
        return value in _me().memory

    def add(self, value: object) -> None:
        _me().memory.add(value)


class _NoView:
    """No view of the progress."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, *_: object) -> None:
        pass


class _Workers:
    """`study.cluster.tasks.Workers` on the simulated cluster."""

    def __init__(self, world: World, study: OpenStudy) -> None:
        self._world, self._study = world, study

    def run_trials(self, director: Director, stage: Stage) -> None:
        """Run trials by the product's `run_trials`, and now and then rebuild the director beside the one that runs."""

        def look() -> None:
            if isinstance(director, SearchDirector) and self._world.rng.random() < 0.02:
                self._world.invariants.check_rebuilt(director)

        tune_run.run_trials(
            director,
            replace(stage, on_change=look),
            resources=self._study.spec.resources,
            scratch="",
            trainable=(self._world.prepared.data, stage.settings),
        )

    def run_tasks(self, _: object, tasks: list[Task]) -> Iterator[Any]:
        """Predict the test split."""
        for task in tasks:
            self._world.invariants.check_read()
            self._world.scheduler.sleep(self._world.cluster.draw(0.2, 5.0))
            root, record, _cpu = task.arguments
            yield predict_test(open_trial_files(Store(root), record), record, self._world.prepared.data)


def _me() -> Process:
    task = current()
    assert task is not None
    return task.process


def _here(real: Callable[[], Any], simulated: Callable[[Process], Any]) -> Callable[[], Any]:
    return lambda: real() if current() is None else simulated(_me())


def _flock(file: Any, kind: int) -> None:
    fcntl.flock(file, kind)
    _me().locks = [*(held for held in _me().locks if not held.closed), file]


def _find_memory() -> str | None:
    """Return a file system in memory if there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def run_seed(seed: int) -> Outcome:
    """Run one seed."""
    return World(seed).run()
