"""Trials that hang: a process that neither reports nor ends is ended, and its trial is started again as after any break."""

import time
from typing import Any

import ray
from ray.tune.experiment import Trial


class HangWatch:
    """Knows when each trial of a Tune run gave its last sign: that its process was started, or a report.

    The clock runs from the moment at which the process exists (the wait for free devices does not count). Ray 2.60 has no
    public way from a trial to its process: `_trial_to_actor` and `_live_actors_to_ray_actors_resources` of its controller
    are read, which the tests hold against the installed Ray.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._controller: Any = None
        self._last_sign: dict[str, float] = {}
        self._ended: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its scheduler; nothing of this one is kept."""
        return {}

    def add(self, controller: Any, trial: Trial) -> None:
        """Take in a trial that was added to the run, or will be started again."""
        self._controller = controller
        self._last_sign.pop(trial.trial_id, None)

    def hear(self, trial: Trial) -> None:
        """Note a report."""
        self._last_sign[trial.trial_id] = time.monotonic()

    def take_verdict(self, trial: Trial) -> str:
        """Return why the trial's process was ended, once; "" if this watch did not end it."""
        if trial.trial_id not in self._ended:
            return ""
        self._ended.remove(trial.trial_id)
        return f"no report for {self._timeout_seconds:g} s (resources.timeout_seconds): its process was ended"

    def look(self) -> None:
        """End the processes of trials that gave no sign for too long."""
        if self._controller is None:
            return
        now = time.monotonic()
        running = {}
        for trial, tracked in self._controller._trial_to_actor.items():
            held = self._controller._actor_manager._live_actors_to_ray_actors_resources.get(tracked)
            if held is None:
                continue
            running[trial.trial_id] = self._last_sign.get(trial.trial_id, now)
            if now - running[trial.trial_id] > self._timeout_seconds and trial.trial_id not in self._ended:
                self._ended.add(trial.trial_id)
                ray.kill(held[0])
        self._last_sign = running
