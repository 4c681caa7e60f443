"""One Ray Tune run: the director decides which trials run and for how long, Tune schedules them on the cluster.

A trial that hangs, whose process neither reports nor ends, is retried like one whose process failed.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search_spaces.errors import UserInputError
from study.cluster.tasks import Stage, make_trial_arguments, shorten_cause
from study.scheduling.director import Director
from study.spec.sections import ResourcesSpec
from study.state.record_book import StudyInterrupted, storage_interruption
from trainables.devices import DeviceMemoryError
from trainables.storage.store import StorageError
from trainables.tune_adapter import NUM_ID_DIGITS, ON_NODE, decode_report, request_resources


class _NotPickled:
    """Base of the objects that Tune pickles for its own restore, which is never used: the records are the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


# Different trials that failed on a node one after the other, without an epoch in between, before no trial starts there.
MAX_FAILED_TRIALS = 3
# Set-up of a new process may take this many times resources.timeout_seconds.
SET_UP_TIMEOUTS = 4


class FaultyNodes:
    """Nodes on which trials fail before an epoch: one with a broken GPU is free soonest, and would draw the retries of all.

    A trial that failed on a node goes on elsewhere; after `MAX_FAILED_TRIALS` trials in a row no trial starts there any more.
    Both hold only while the trial fits on another node on which none has failed: otherwise the trials are the reason.

    Nodes have the names of `trainables.tune_adapter.TrialTrainable.node_name`.
    """

    def __init__(self) -> None:
        # By the end of a node's name, which its id in Ray begins with.
        self._failed: dict[str, set[str]] = {}

    def hear(self, node: str) -> None:
        """Note an epoch that was trained on a node."""
        self._failed.pop(node[-NUM_ID_DIGITS:], None)

    def add_failure(self, node: str, trial_id: str) -> int:
        """Note an attempt that failed on a node; return how many trials in a row have failed there."""
        failed = self._failed.setdefault(node[-NUM_ID_DIGITS:], set())
        failed.add(trial_id)
        return len(failed)

    def list_avoided(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the ids in Ray of the nodes on which a trial does not start, by its arguments."""
        wanted = {"CPU": arguments["num_cpus"], "GPU": arguments["num_gpus"]}
        fitting = {
            node["NodeID"]: self._failed.get(node["NodeID"][:NUM_ID_DIGITS], set())
            for node in (ray.nodes() if self._failed else ())
            if node["Alive"] and all(node["Resources"].get(kind, 0) >= number for kind, number in wanted.items())
        }
        if all(fitting.values()):
            return ()
        trial_id = arguments["trial_id"]
        return tuple(n for n, trials in fitting.items() if trial_id in trials or len(trials) >= MAX_FAILED_TRIALS)


class Asker:
    """Calls the director and keeps the error that ends the run, because Tune wraps or logs the errors of its callbacks.

    Attributes:
        failure: the error that ends the run.
        dropped: ids of trials that Tune ended as failed although they have retries left; see `DirectedScheduler`.
        nodes: those on which trials do not start.
    """

    def __init__(self, director: Director) -> None:
        self._director = director
        self.failure: StorageError | StudyInterrupted | UserInputError | None = None
        self.dropped: set[str] = set()
        self.nodes = FaultyNodes()

    def ask(self, function: Callable[[Director], Any]) -> Any:
        """Return `function(director)`; raise what a user can act on, such as a StorageError if a record could not be written."""
        if self.failure is not None:
            raise self.failure
        try:
            return function(self._director)
        except (StorageError, StudyInterrupted, UserInputError) as error:
            self.failure = error
            raise


class DirectedSearcher(_NotPickled, Searcher):  # type: ignore[misc]
    """Returns the director's trials to Tune.

    Args:
        asker: calls the director.
        resources: of the study.
        splits_to_predict: splits whose predictions a trial stores at its end.
    """

    def __init__(self, asker: Asker, resources: ResourcesSpec, splits_to_predict: Sequence[str]) -> None:
        super().__init__()
        self._asker = asker
        self._resources, self._splits_to_predict = resources, splits_to_predict
        self._live: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the config of the director's next trial, None to wait, or Tune's FINISHED."""
        record = self._asker.ask(lambda director: director.next_trial())
        if record is None:
            # A trial that still runs may be dropped and queued again.
            is_over = not self._live and self._asker.ask(lambda director: director.is_exhausted)
            return str(Searcher.FINISHED) if is_over else None
        self._live[trial_id] = record.trial_id
        network = self._asker.ask(lambda director: director.book.find_network(record.config))
        arguments = make_trial_arguments(record, network, self._resources, self._splits_to_predict)
        return arguments | {"avoided_nodes": self._asker.nodes.list_avoided(arguments)}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Tell the director about a trial that ended with an error or was dropped."""
        record_id = self._live.pop(trial_id)
        if trial_id in self._asker.dropped:
            self._asker.ask(lambda director: director.requeue(record_id))
        elif error:
            self._asker.ask(lambda director: director.on_retries_exhausted(record_id))

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the records are the state, and Tune's snapshot of a searcher is never read."""

    def restore(self, checkpoint_path: str) -> None:
        """Raise NotImplementedError, because a study resumes from its records."""
        raise NotImplementedError("a study resumes from its records")


class HangWatch:
    """Kills the processes of trials that have not reported for too long, or whose set-up does not end.

    The clock of a trial starts when its process is ready, and again at every report. The set-up of a new process may take
    `SET_UP_TIMEOUTS` times as long: a node may need long to build its file of mapped images. The wait for free devices does not
    count. Tune 2.60 gives a trial its actor (`temporary_state.ray_actor`) once the set-up has ended and takes it away when the
    actor stops.

    Args:
        timeout_seconds: time without a report after which a process is killed.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        # By trial, and whether its process is ready.
        self._last_sign: dict[tuple[str, bool], float] = {}
        self._killed: dict[str, str] = {}
        self._controller: Any = None

    def reset(self, trial: Trial, controller: Any) -> None:
        """Stop the clock of a trial that waits for a process, which Tune's controller starts."""
        self._controller = controller
        for is_ready in (False, True):
            self._last_sign.pop((trial.trial_id, is_ready), None)

    def hear(self, trial: Trial) -> None:
        """Restart the clock of a trial that has reported."""
        self._last_sign[trial.trial_id, True] = time.monotonic()

    def take_cause(self, trial: Trial) -> str:
        """Return why the trial's process was killed, once; "" if this watch did not kill it."""
        return self._killed.pop(trial.trial_id, "")

    def kill_hung(self, trials: Sequence[Trial]) -> None:
        """Kill the process of each trial whose clock has run out; to be called about once a second."""
        now = time.monotonic()
        actors = {(t.trial_id, True): t.temporary_state.ray_actor for t in trials}
        actors |= {(t.trial_id, False): self._find_starting(t) for t in trials if actors[t.trial_id, True] is None}
        self._last_sign = {key: self._last_sign.get(key, now) for key, actor in actors.items() if actor is not None}
        for (trial_id, is_ready), last_sign in self._last_sign.items():
            allowed = self._timeout_seconds * (1 if is_ready else SET_UP_TIMEOUTS)
            if now - last_sign > allowed and trial_id not in self._killed:
                limit = (
                    "resources.timeout_seconds" if is_ready else f"{SET_UP_TIMEOUTS} times resources.timeout_seconds"
                )
                missing = "report" if is_ready else "end of its set-up"
                self._killed[trial_id] = f"no {missing} for {allowed:g} s ({limit}): its process was killed"
                ray.kill(actors[trial_id, is_ready])

    def _find_starting(self, trial: Trial) -> Any:
        """Return the actor of a trial that has its devices and is not ready yet; None if there is none."""
        if self._controller is None:
            return None
        tracked = self._controller._trial_to_actor.get(trial)
        actor, _ = self._controller._actor_manager._live_actors_to_ray_actors_resources.get(tracked, (None, None))
        return actor


class DirectedScheduler(_NotPickled, FIFOScheduler):  # type: ignore[misc]
    """Passes reports and errors to the director, which decides whether a trial continues.

    When a node is lost, Tune 2.60 may handle one failed attempt twice: for the task that failed and for the actor that died.
    The first call queues the trial again. At the second the trial is pending, and Tune ends it as failed although it has
    retries left. Such trials are added to `Asker.dropped`, and the director queues them again.

    Args:
        asker: calls the director.
        resources: of the study.
    """

    def __init__(self, asker: Asker, resources: ResourcesSpec) -> None:
        super().__init__()
        self._asker = asker
        self._retries = resources.retries
        self._furthest: dict[str, int] = {}
        self.watch = HangWatch(resources.timeout_seconds)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Stop the trial's hang clock until its process is ready."""
        self.watch.reset(trial, tune_controller)
        super().on_trial_add(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Choose no trial: Tune then starts pending ones in their order.

        FIFOScheduler chooses the first pending trial, also where its process is starting. Tune 2.60 gives a process that became
        free to the chosen trial and kills the one that was starting for it. Where trials end sooner than a process starts (a
        resumed study, a node that joins, trials that are pruned), processes were started and killed in turn, and their devices
        trained nothing.
        """

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Pass an epoch to the director; return Tune's CONTINUE or STOP."""
        report = decode_report(result)
        self.watch.hear(trial)
        self._asker.nodes.hear(report.node)
        self._renew_retries(trial, report.metrics.epoch)
        goes_on = self._asker.ask(lambda director: director.on_report(trial.config["trial_id"], report))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Record the cause of a failed attempt; allow no retry if the director has a problem.

        Tune has decided before whether this failure is followed by another attempt.
        """
        if trial.status == Trial.PENDING:
            self._asker.dropped.add(trial.trial_id)
            return
        cause, node = _find_node(self.watch.take_cause(trial) or _cause(trial))
        is_too_large = DeviceMemoryError.__name__ in cause
        if node and not is_too_large:
            cause += self._blame_node(node, trial)
        self._asker.ask(lambda director: director.on_error(trial.config["trial_id"], cause))
        if self._asker.ask(lambda director: director.problem):
            trial.max_failures = 0
        elif is_too_large:
            self._retry_alone(trial)

    def _blame_node(self, node: str, trial: Trial) -> str:
        """Let a trial that failed go on elsewhere if its node is faulty; return what follows for other trials."""
        num_failed = self._asker.nodes.add_failure(node, trial.config["trial_id"])
        avoided = self._asker.nodes.list_avoided(trial.config)
        if trial.status != Trial.RUNNING:
            trial.config["avoided_nodes"] = avoided
            trial.update_resources(request_resources(trial.config))
        is_excluded = avoided and num_failed == MAX_FAILED_TRIALS
        return (
            f"; {num_failed} trials in a row failed there before an epoch: no other one starts there"
            if is_excluded
            else ""
        )

    def _retry_alone(self, trial: Trial) -> None:
        """Let a trial that did not fit into the memory of its GPU try once more, alone on a GPU, if Tune retries it at all."""
        if trial.status == Trial.RUNNING:
            # Tune has decided against it, and refuses other resources for a trial that it takes as running.
            return
        if 0 < trial.config["num_gpus"] < 1:
            trial.config["num_gpus"] = 1.0
            trial.update_resources(request_resources(trial.config))
        trial.max_failures = trial.num_failures

    def _renew_retries(self, trial: Trial, epoch: int) -> None:
        """Allow all retries again after a new epoch. An epoch that an attempt reports from its checkpoint is not new."""
        if epoch > self._furthest.get(trial.trial_id, trial.config["num_reported_epochs"]):
            self._furthest[trial.trial_id] = epoch
            trial.max_failures = trial.num_failures + self._retries


class _Heartbeat(_NotPickled, tune.Callback):  # type: ignore[misc]
    """Calls `on_change` and kills trials that hang, about once a second."""

    def __init__(self, on_change: Callable[[], None], watch: HangWatch) -> None:
        self._on_change = on_change
        self._watch = watch
        self._last = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Do so, if a second has passed since the last time."""
        if time.monotonic() - self._last >= 1.0:
            self._on_change()
            self._watch.kill_hung(trials)
            self._last = time.monotonic()


def run_trials(director: Director, stage: Stage, *, resources: ResourcesSpec, scratch: str, trainable: Any) -> None:
    """Run the director's trials until it is exhausted, or until an interrupt.

    Args:
        director: decides which trials run and for how long.
        stage: settings of the run.
        resources: of the study.
        scratch: local folder for the files that Tune writes and the study does not use.
        trainable: from `trainables.tune_adapter.make_trainable`.

    Raises:
        StudyInterrupted: if a record could not be written. The study on disk is consistent and can be resumed.
    """
    if director.is_exhausted:
        return
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    asker = Asker(director)
    scheduler = DirectedScheduler(asker, resources)
    tuner = tune.Tuner(
        tune.with_resources(trainable, request_resources),
        tune_config=tune.TuneConfig(
            search_alg=DirectedSearcher(asker, resources, stage.splits_to_predict),
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=stage.max_concurrent,
            reuse_actors=True,
            trial_name_creator=lambda trial: str(trial.trial_id),
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=scratch,
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=resources.retries),
            callbacks=[_Heartbeat(stage.on_change, scheduler.watch)],
        ),
    )
    try:
        tuner.fit()
        asker.ask(lambda director: director.book.wait())
    except Exception:
        if isinstance(asker.failure, StorageError):
            raise storage_interruption(asker.failure) from None
        if asker.failure is not None:
            raise asker.failure from None
        raise
    stage.on_change()


def _cause(trial: Trial) -> str:
    """Return the last lines of the error that Tune wrote for the trial."""
    path = trial.error_file
    if not path or not Path(path).exists():
        return "the trial's process ended without an error message"
    return shorten_cause(Path(path).read_text(errors="replace"))


def _find_node(cause: str) -> tuple[str, str]:
    """Return a cause with the node that its last line names in the line before, and the node; "" where it names none."""
    *lines, last = cause.splitlines()
    if not lines or not last.startswith(ON_NODE):
        return cause, ""
    return "\n".join([*lines[:-1], f"{lines[-1]} ({last})"]), last.removeprefix(ON_NODE)
