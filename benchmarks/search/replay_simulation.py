"""Event simulation of whole searches on simulated curves.

Workers share one simulated clock; each holds one trial, and the report that is due first arrives first. A side starts a trial
whenever a worker is free and its ledger has enough device-seconds left.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.search.curve_surrogate import CurveSurrogate
from benchmarks.search.replay_curves import FloatArray, Hyperparameters
from trainables.seeds import numpy_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A trial that a side starts."""

    trial_id: str
    hyperparameters: Hyperparameters


class Side(Protocol):
    """A search, as the event loop calls it."""

    def next_trial(self) -> Started | None:
        """Return the trial to start now, or None if there is none."""

    def on_report(self, trial_id: str, epoch: int, macro_f1: float, device_seconds: float) -> bool:
        """Report one epoch; return whether the trial continues."""

    def choose(self) -> Hyperparameters | None:
        """Return the configuration that the finished study chooses; None if it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished simulated study.

    Attributes:
        chosen: the configuration.
        device_seconds: spent, by arm.
        num_trials: started.
        num_peak_running: the most trials that ran at one time.
        idle_seconds: of all workers together, until the last trial ended.
    """

    chosen: Hyperparameters | None
    device_seconds: Mapping[str, float]
    num_trials: int
    num_peak_running: int
    idle_seconds: float


@dataclass(slots=True)
class _Clock:
    """The running trials of one simulated study: a heap of (time of the next report, order of starting, trial)."""

    landscape: CurveSurrogate
    seed: int
    now: float = 0.0
    num_started: int = 0
    num_peak_running: int = 0
    spent: dict[str, float] = field(default_factory=dict)
    queue: list[tuple[float, int, int, Started, FloatArray]] = field(default_factory=list)

    def start(self, trial: Started) -> None:
        """Put a trial on a free worker; its noise depends on the study's seed and its number only."""
        generator = numpy_generator(self.seed, "replay noise", self.num_started)
        self._push(self.num_started, 1, trial, self.landscape.draw_curve(trial.hyperparameters, generator))
        self.num_started += 1
        self.num_peak_running = max(self.num_peak_running, len(self.queue))

    def step(self, side: Side) -> None:
        """Advance the clock to the next report."""
        self.now, order, epoch, trial, curve = heapq.heappop(self.queue)
        seconds = self._cost(trial, epoch)
        self.spent[str(trial.hyperparameters[self.landscape.factor])] += seconds
        if side.on_report(trial.trial_id, epoch, float(curve[epoch - 1]), seconds):
            self._push(order, epoch + 1, trial, curve)

    def _push(self, order: int, epoch: int, trial: Started, curve: FloatArray) -> None:
        heapq.heappush(self.queue, (self.now + self._cost(trial, epoch), order, epoch, trial, curve))

    def _cost(self, trial: Started, epoch: int) -> float:
        """Return the device-seconds of a trial's epoch."""
        arm = str(trial.hyperparameters[self.landscape.factor])
        return float(self.landscape.seconds(arm)[epoch - 1])


def simulate(side: Side, landscape: CurveSurrogate, *, num_workers: int, seed: int) -> Outcome:
    """Run a search to its end on `num_workers` simulated workers."""
    clock = _Clock(landscape, seed, spent=dict.fromkeys(landscape.arms, 0.0))
    while True:
        while len(clock.queue) < num_workers and (trial := side.next_trial()) is not None:
            clock.start(trial)
        if not clock.queue:
            break
        clock.step(side)
    return Outcome(
        chosen=side.choose(),
        device_seconds=clock.spent,
        num_trials=clock.num_started,
        num_peak_running=clock.num_peak_running,
        idle_seconds=num_workers * clock.now - sum(clock.spent.values()),
    )
