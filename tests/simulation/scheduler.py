"""Simulated hosts, processes and threads: real threads of which one runs at a time, on a clock that jumps to the next event.

A thread gives up its turn where it sleeps, waits, or calls the storage. A process that is killed is never continued: no `finally`
of it runs, as after SIGKILL. What it holds of the kernel, its locks on files, is released.
"""

import fcntl
import heapq
import itertools
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_local = threading.local()


class WorldEnds(BaseException):
    """Ends a thread when the simulation is over."""


class Violation(BaseException):
    """Something that must never happen has happened."""


@dataclass(eq=False)
class Host:
    """A machine with its own clocks.

    Attributes:
        name: of the machine.
        boot: number of its start.
        booted: time of its start.
        skew: seconds that its wall clock is ahead of the true time.
        cut_off_until: no request of its processes reaches the storage before this time.
    """

    name: str
    boot: int = 1
    booted: float = -1000.0
    skew: float = 0.0
    cut_off_until: float = 0.0


@dataclass(eq=False)
class Process:
    """A process on a host.

    Attributes:
        kind: "driver" or "worker".
        paused_until: it does not run before this time.
        last_pause: time at which its last pause ended.
        stop: exception that its main thread raises at its next turn, as a signal handler would.
        on_death: called when it is killed.
        on_silence: called when it has not answered for long.
        locks: the files that it has locked.
        num_writes: writes that it has begun and that have not returned.
        memory: a set of the product's that every process has its own of.
    """

    kind: str
    pid: int
    host: Host
    is_dead: bool = False
    has_ended: bool = False
    paused_until: float = 0.0
    last_pause: float = -1.0
    stop: BaseException | None = None
    on_death: list[Callable[[], None]] = field(default_factory=list)
    on_silence: list[Callable[[], None]] = field(default_factory=list)
    locks: list[Any] = field(default_factory=list)
    num_writes: int = 0
    memory: set[Any] = field(default_factory=set)

    @property
    def is_alive(self) -> bool:
        return not (self.is_dead or self.has_ended)

    def __str__(self) -> str:
        return f"{self.kind} {self.pid} on {self.host.name}"


class Task:
    """A thread of a process.

    Attributes:
        notes: what the invariants keep about it.
    """

    def __init__(self, process: Process, function: Callable[[], Any], *, is_main: bool = False) -> None:
        self.process, self.is_main, self.is_done = process, is_main, False
        self.turn = _make_taken_lock()
        self.ticket = 0
        self.notes: dict[str, float] = {}
        self._function = function
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.scheduler: Scheduler

    def _run(self) -> None:
        _local.task = self
        self.turn.acquire()
        try:
            if not self.scheduler.is_over:
                self._function()
        except WorldEnds:
            pass
        except BaseException as error:
            self.scheduler.failure = self.scheduler.failure or error
        self.is_done = True
        self.process.has_ended = self.process.has_ended or self.is_main
        self.scheduler.leave()


def _make_taken_lock() -> threading.Lock:
    """Return a lock whose next release lets the one go on that waits for it; much faster than a semaphore."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def current() -> Task | None:
    """Return the simulated thread that calls; None outside of a simulation."""
    return getattr(_local, "task", None)


def act_for(task: Task, function: Callable[[], Any]) -> None:
    """Call a function that must not wait, on behalf of a thread that has given up or died."""
    before, _local.task = current(), task
    try:
        function()
    finally:
        _local.task = before


class Scheduler:
    """Gives turns to the threads in the order of their times.

    Attributes:
        now: true time, seconds.
        steps: turns so far.
        failure: error that ended the simulation.
        before_step: called with the thread before each turn.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self.is_over = False
        self.failure: BaseException | None = None
        self.before_step: Callable[[Task], None] = lambda _: None
        self._heap: list[tuple[float, int, int, Any]] = []
        self._serial = itertools.count()
        self._main = _make_taken_lock()
        self._tasks: list[Task] = []
        self._is_finished: Callable[[], bool]
        self._most_steps: int

    def spawn(
        self, process: Process, function: Callable[[], Any], delay: float = 0.0, *, is_main: bool = False
    ) -> Task:
        """Start a thread of a process."""
        task = Task(process, function, is_main=is_main)
        task.scheduler = self
        self._tasks.append(task)
        task.thread.start()
        self.wake(task, delay)
        return task

    def wake(self, task: Task, delay: float = 0.0) -> None:
        """Give a thread its next turn after a delay, in place of any that was arranged before."""
        task.ticket += 1
        heapq.heappush(self._heap, (self.now + max(0.0, delay), next(self._serial), task.ticket, task))

    def call_after(self, delay: float, function: Callable[[], None]) -> None:
        """Call a function at a time, whatever the processes do."""
        heapq.heappush(self._heap, (self.now + delay, next(self._serial), 0, function))

    def sleep(self, seconds: float) -> None:
        """Let the calling thread sleep."""
        task = self._me()
        if self.is_over:
            raise WorldEnds
        self.wake(task, seconds)
        self._switch(task)

    def wait(self, waiting: deque[Task], timeout: float | None) -> None:
        """Let the calling thread wait until another one wakes those in `waiting`, or for `timeout` seconds."""
        task = self._me()
        if self.is_over:
            raise WorldEnds
        waiting.append(task)
        task.ticket += 1
        if timeout is not None:
            self.wake(task, timeout)
        self._switch(task)
        if task in waiting:
            waiting.remove(task)

    def wake_all(self, waiting: deque[Task]) -> None:
        """Wake the threads that wait."""
        while waiting:
            self.wake(waiting.popleft())

    def leave(self) -> None:
        """Let the next thread go on when the calling one has ended."""
        self._hand_to(None if self.is_over else self._find_next())

    def kill(self, process: Process) -> None:
        """End a process at once."""
        if not process.is_alive:
            return
        process.is_dead = True
        for file in process.locks:
            if not file.closed:
                fcntl.flock(file, fcntl.LOCK_UN)
        for function in process.on_death:
            function()

    def run(self, is_finished: Callable[[], bool], most_steps: int) -> None:
        """Give turns until the end; raise what a thread raised.

        Raises:
            Violation: If that takes more than `most_steps`.
        """
        self._is_finished, self._most_steps = is_finished, most_steps
        try:
            if (first := self._find_next()) is not None:
                first.turn.release()
                self._main.acquire()
            if self.failure is not None:
                raise self.failure
        finally:
            self._end()

    def _find_next(self) -> Task | None:
        """Return the thread that has the next turn, None at the end; what happens before it happens in the calling thread."""
        me, _local.task = current(), None
        try:
            while self.failure is None and not self._is_finished():
                if not self._heap:
                    raise Violation("nothing can happen any more, but the study has not ended")
                if self.steps >= self._most_steps:
                    raise Violation(f"the study has not ended after {self.steps} steps, {self.now:.0f} s")
                if (task := self._step()) is not None:
                    return task
        except BaseException as error:
            self.failure = self.failure or error
        finally:
            _local.task = me
        return None

    def _step(self) -> Task | None:
        """Let the next event happen; return the thread whose turn it is, if any."""
        time, serial, ticket, target = heapq.heappop(self._heap)
        if not isinstance(target, Task):
            self.now = max(self.now, time)
            target()
            return None
        process = target.process
        if target.is_done or ticket != target.ticket or not process.is_alive:
            return None
        self.now = max(self.now, time)
        self.steps += 1
        self.before_step(target)
        if not process.is_alive:
            return None
        if process.paused_until > self.now:
            heapq.heappush(self._heap, (process.paused_until, serial, ticket, target))
            return None
        return target

    def _hand_to(self, task: Task | None) -> None:
        """Let a thread go on; the main one for None."""
        (self._main if task is None else task.turn).release()

    def _switch(self, task: Task) -> None:
        """Give up the turn, and return with the next one; where that comes at once, no other thread is woken."""
        if (following := self._find_next()) is not task:
            self._hand_to(following)
            task.turn.acquire()
        if self.is_over:
            raise WorldEnds
        if task.is_main and task.process.stop is not None:
            stop, task.process.stop = task.process.stop, None
            raise stop

    def _end(self) -> None:
        self.is_over = True
        for task in self._tasks:
            if not task.is_done:
                task.turn.release()
                self._main.acquire()
            task.thread.join()

    def _me(self) -> Task:
        task = current()
        assert task is not None
        return task


class SimulatedThreads:
    """What `threading` and `concurrent.futures` offer, for the threads of simulated processes."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.Thread = lambda target, **_: _Thread(scheduler, target)
        self.Event = lambda: _Event(scheduler)
        self.Lock = lambda: _Lock(scheduler)
        self.current_thread, self.main_thread = threading.current_thread, threading.main_thread

        def make_executor(max_workers: int = 1, thread_name_prefix: str = "") -> "_Executor":  # noqa: ARG001
            return _Executor(scheduler)

        self.ThreadPoolExecutor = make_executor


class _Thread:
    def __init__(self, scheduler: Scheduler, target: Callable[[], None]) -> None:
        self._scheduler, self._target = scheduler, target

    def start(self) -> None:
        task = current()
        assert task is not None
        self._scheduler.spawn(task.process, self._target)


class _Event:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._is_set, self._waiting = scheduler, False, deque()

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._scheduler.wake_all(self._waiting)

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            self._scheduler.wait(self._waiting, timeout)
        return self._is_set


class _Lock:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._owner, self._waiting = scheduler, None, deque()

    def __enter__(self) -> None:
        while self._owner is not None:
            self._scheduler.wait(self._waiting, None)
        self._owner = current()

    def __exit__(self, *_: object) -> None:
        self._owner = None
        self._scheduler.wake_all(self._waiting)


class _Future:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._ended = scheduler, _Event(scheduler)
        self._result: Any = None
        self._error: BaseException | None = None

    def compute(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self._result = function(*arguments)
        except (WorldEnds, Violation):
            raise
        except BaseException as error:
            self._error = error
        self._ended.set()

    def done(self) -> bool:
        return self._ended.is_set()

    def exception(self) -> BaseException | None:
        while not self._ended.wait():
            pass
        return self._error

    def result(self) -> Any:
        if (error := self.exception()) is not None:
            raise error
        return self._result


class _Executor:
    """A pool of one thread, as `CheckpointWriter` has it; `map` computes in the caller."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._last = scheduler, None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> _Future:
        task, future, before = current(), _Future(self._scheduler), self._last
        assert task is not None

        def work() -> None:
            while before is not None and not before._ended.wait():
                pass
            future.compute(function, arguments)

        self._scheduler.spawn(task.process, work).notes.update(task.notes)
        self._last = future
        return future

    def map(self, function: Callable[[Any], Any], values: Any) -> list[Any]:
        return [function(value) for value in values]

    def shutdown(self) -> None:
        while self._last is not None and not self._last._ended.wait():
            pass

    def __enter__(self) -> "_Executor":
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


class Mailbox:
    """Messages from one process to another, which the network delivers in their order."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._messages, self._waiting = scheduler, deque(), deque()

    def put(self, message: Any, delay: float = 0.0) -> None:
        if delay:
            self._scheduler.call_after(delay, lambda: self.put(message))
            return
        self._messages.append(message)
        self._scheduler.wake_all(self._waiting)

    def take(self, timeout: float | None = None) -> Any:
        """Return the next message; None if none comes in time."""
        if not self._messages:
            self._scheduler.wait(self._waiting, timeout)
        while timeout is None and not self._messages:
            self._scheduler.wait(self._waiting, timeout)
        return self._messages.popleft() if self._messages else None


class Clock:
    """The functions of `time`, for the host of the thread that calls; other threads get the real ones."""

    EPOCH = 1_800_000_000.0

    def __init__(self, scheduler: Scheduler, real: Any) -> None:
        self._scheduler = scheduler
        self._real = {
            name: getattr(real, name) for name in ("time", "monotonic", "perf_counter", "clock_gettime", "sleep")
        }

    def time(self) -> float:
        task = current()
        return self._real["time"]() if task is None else self.EPOCH + self._scheduler.now + task.process.host.skew

    def monotonic(self) -> float:
        task = current()
        return self._real["monotonic"]() if task is None else self._scheduler.now - task.process.host.booted

    def perf_counter(self) -> float:
        task = current()
        return self._real["perf_counter"]() if task is None else self._scheduler.now - task.process.host.booted

    def clock_gettime(self, clock: int) -> float:
        return self._real["clock_gettime"](clock) if current() is None else self.monotonic()

    def sleep(self, seconds: float) -> None:
        if current() is None:
            self._real["sleep"](seconds)
        else:
            self._scheduler.sleep(seconds)


def draw_seconds(rng: random.Random, shortest: float, longest: float) -> float:
    """Return a time between two, each order of magnitude as likely."""
    return shortest * (longest / shortest) ** rng.random()
