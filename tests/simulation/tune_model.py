"""A small model of Ray Tune's loop and of its actors, around the product's own searcher, scheduler and `run_trials`.

From Tune 2.60: a failure is reported before the trial is queued again, and that of a lost node twice; actors are used again; a
result or a failure of an actor that was given up is ignored; exceptions of callbacks come out wrapped. A lost process is noticed
after some seconds, one that does not answer after half a minute. The processes of a driver that died go on for up to a minute.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from study.cluster.tasks import shorten_cause
from tests.simulation.scheduler import Host, Mailbox, Process, Scheduler, current, draw_seconds
from tests.simulation.training_model import SimulatedWorker
from trainables.tune_adapter import encode_report

# A driver notices after so many seconds that the process of a trial has ended, or that a machine does not answer.
NOTICE_SECONDS = (0.1, 3.0)
SILENCE_SECONDS = 30.0


@dataclass
class TuneFaults:
    """What the next step of a worker meets: "error", "hang" or "notice" (SIGTERM); and how often a failure is told twice."""

    pending: list[str] = field(default_factory=list)
    told_twice: float = 0.3


class Actor:
    """The process of a worker, and its mailbox."""

    def __init__(self, cluster: "Cluster", inbox: Mailbox, shared: tuple[Any, Any]) -> None:
        self.commands, self._inbox, self._cluster, self._shared = Mailbox(cluster.scheduler), inbox, cluster, shared
        self.trial: _Trial | None = None
        self.process = cluster.start("worker", self._serve)
        self.process.on_death.append(lambda: inbox.put((self, "died", "the actor died"), cluster.draw(*NOTICE_SECONDS)))
        self.process.on_silence.append(lambda: inbox.put((self, "died", "the node does not answer")))

    def tell(self, command: str, config: Any = None) -> None:
        self.commands.put((command, config), self._cluster.draw(0.001, 0.05))

    def _serve(self) -> None:
        worker, scheduler = SimulatedWorker(), self._cluster.scheduler
        worker.prepare(*self._shared)
        while True:
            command, config = self.commands.take()
            if command != "step":
                began = scheduler.now
            try:
                if command == "setup":
                    worker._start(config)
                    self._answer("ready", None)
                elif command == "reset":
                    worker.reset_config(config)
                    self._answer("ready", None)
                else:
                    self._meet_fault(worker)
                    # Whoever has lost the trial by now, or when an epoch is trained, must write nothing in this step.
                    current().notes["trained"] = scheduler.now
                    report = worker.report_epoch()
                    self._cluster.device_seconds[worker._trial_config.fingerprint] += scheduler.now - began
                    began = scheduler.now
                    self._answer("result", encode_report(report))
            except SystemExit:
                scheduler.kill(self.process)
                scheduler.sleep(0)
            except Exception as error:
                self._answer("error", f"{type(error).__name__}: {error}")

    def _answer(self, kind: str, content: Any) -> None:
        self._inbox.put((self, kind, content), self._cluster.draw(0.001, 0.05))

    def _meet_fault(self, worker: SimulatedWorker) -> None:
        pending = self._cluster.faults.pending
        fault = pending.pop(0) if pending else ""
        if fault == "error":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if fault == "hang":
            self._cluster.scheduler.sleep(1e6)
        if fault == "notice":
            worker._should_exit = True


class Cluster:
    """Hosts, and the processes on them; the seed chooses the host of each.

    Attributes:
        processes: all that were started.
        device_seconds: what the attempts of each configuration took up to their reports.
    """

    def __init__(self, scheduler: Scheduler, rng: random.Random, hosts: list[Host], max_concurrent: int) -> None:
        self.scheduler, self.rng, self.hosts, self.max_concurrent = scheduler, rng, hosts, max_concurrent
        self.processes: list[Process] = []
        self.faults = TuneFaults()
        self.device_seconds: Counter[str] = Counter()

    def start(self, kind: str, function: Callable[[], Any], delay: float = 0.0) -> Process:
        """Start a process; it runs after a delay, and a worker after some seconds more, in which it imports."""
        process = Process(kind, 1000 + len(self.processes), self.rng.choice(self.hosts))
        self.processes.append(process)
        delay += self.draw(1.0, 5.0) if kind == "worker" else 0.0
        self.scheduler.spawn(process, function, delay, is_main=True)
        return process

    def draw(self, shortest: float, longest: float) -> float:
        return draw_seconds(self.rng, shortest, longest)

    def kill_actor(self, actor: Actor) -> None:
        """Stand in for `ray.kill`."""
        self.scheduler.kill(actor.process)


class _Trial:
    """The attributes of a trial of Tune that the product reads."""

    def __init__(self, trial_id: str, config: dict[str, Any], max_failures: int) -> None:
        self.trial_id, self.config, self.max_failures = trial_id, config, max_failures
        self.status, self.num_failures, self.error_file = Trial.PENDING, 0, None
        self.temporary_state = SimpleNamespace(ray_actor=None)
        self.actor: Actor | None = None

    def update_resources(self, _: object) -> None:
        pass


class Tuner:
    """Stands in for `ray.tune.Tuner`; its `trainable` is the pair of `TrialData` and `TrialSettings`."""

    def __init__(self, trainable: Any, tune_config: Any, run_config: Any, cluster: Cluster, scratch: Any) -> None:
        self._shared, self._cluster, self._scratch = trainable, cluster, scratch
        self._searcher, self._scheduler = tune_config.search_alg, tune_config.scheduler
        self._most, self._retries = tune_config.max_concurrent_trials, run_config.failure_config.max_failures
        self._callbacks = run_config.callbacks
        self._inbox = Mailbox(cluster.scheduler)
        self._trials: list[_Trial] = []
        self._idle: list[Actor] = []
        self._actors: list[Actor] = []
        self._num_trials = 0
        self._is_finished = False

    @property
    def _trial_to_actor(self) -> dict[_Trial, Actor]:
        return {trial: trial.actor for trial in self._trials if trial.actor is not None}

    @property
    def _actor_manager(self) -> SimpleNamespace:
        live = {actor: (actor, None) for actor in self._trial_to_actor.values()}
        return SimpleNamespace(_live_actors_to_ray_actors_resources=live)

    def fit(self) -> None:
        """Run trials until the searcher has no more."""
        task = current()
        assert task is not None
        task.process.on_death.append(self._orphan)
        try:
            while self._fill():
                self._start_pending()
                message = self._inbox.take(1.0)
                if message is not None:
                    self._hear(*message)
                for callback in self._callbacks:
                    callback.on_step_end(0, self._trials)
        except Exception as error:
            raise RuntimeError("Tune ends") from error
        finally:
            task.process.on_death.remove(self._orphan)
            self._orphan()

    def _orphan(self) -> None:
        """End the actors, some time after their driver."""
        scheduler = self._cluster.scheduler
        for actor in self._actors:
            scheduler.call_after(self._cluster.draw(0.1, 60.0), partial(scheduler.kill, actor.process))

    def _fill(self) -> bool:
        while not self._is_finished and len(self._trials) < self._most:
            trial_id = f"t{self._num_trials}"
            config = self._searcher.suggest(trial_id)
            self._is_finished = config == Searcher.FINISHED
            if not isinstance(config, dict):
                break
            self._num_trials += 1
            trial = _Trial(trial_id, config, self._retries)
            self._scheduler.on_trial_add(self, trial)
            self._trials.append(trial)
        return bool(self._trials) or not self._is_finished

    def _start_pending(self) -> None:
        for trial in self._trials:
            if trial.status != Trial.PENDING or trial.actor is not None:
                continue
            actor, command = (self._idle.pop(), "reset") if self._idle else (self._make_actor(), "setup")
            trial.actor, actor.trial = actor, trial
            actor.tell(command, trial.config)

    def _make_actor(self) -> Actor:
        actor = Actor(self._cluster, self._inbox, self._shared)
        self._actors.append(actor)
        return actor

    def _hear(self, actor: Actor, kind: str, content: Any) -> None:
        trial = actor.trial
        if kind == "died" and actor in self._idle:
            self._idle.remove(actor)
        if trial is None or trial.actor is not actor:
            return
        if kind == "ready":
            trial.status, trial.temporary_state.ray_actor = Trial.RUNNING, actor
            actor.tell("step")
        elif kind == "result":
            self._hear_result(trial, actor, content)
        else:
            trial.status = Trial.RUNNING
            self._give_up(trial, actor)
            if kind == "error":
                self._cluster.kill_actor(actor)
            self._fail(trial, content)
            if (
                kind == "died"
                and trial.status == Trial.PENDING
                and self._cluster.rng.random() < self._cluster.faults.told_twice
            ):
                self._fail(trial, content)

    def _hear_result(self, trial: _Trial, actor: Actor, content: dict[str, str]) -> None:
        if self._scheduler.on_trial_result(self, trial, content) == "CONTINUE":
            actor.tell("step")
            return
        self._searcher.on_trial_complete(trial.trial_id, result=content)
        trial.status = Trial.TERMINATED
        self._give_up(trial, actor)
        self._idle.append(actor)
        self._trials.remove(trial)

    def _give_up(self, trial: _Trial, actor: Actor) -> None:
        trial.actor = actor.trial = trial.temporary_state.ray_actor = None

    def _fail(self, trial: _Trial, cause: str) -> None:
        """Do what TuneController._process_trial_failure does."""
        trial.num_failures += 1
        path = self._scratch / f"error-{trial.trial_id}.txt"
        path.write_text(shorten_cause(cause))
        trial.error_file = str(path)
        if trial.status == Trial.RUNNING and trial.num_failures <= trial.max_failures:
            trial.status = Trial.ERROR
            self._scheduler.on_trial_error(self, trial)
            trial.status = Trial.PENDING
            self._trials.remove(trial)
            self._trials.append(trial)
            self._scheduler.on_trial_add(self, trial)
            return
        self._scheduler.on_trial_error(self, trial)
        self._searcher.on_trial_complete(trial.trial_id, error=True)
        trial.status = Trial.ERROR
        self._trials.remove(trial)
