"""Trials that hang: a process that neither reports nor ends is killed, and its trial is retried like one whose process failed."""

import time
from collections.abc import Sequence

import ray
from ray.tune.experiment import Trial


class HangWatch:
    """Kills the processes of trials that have not reported for too long.

    The clock of a trial starts when its process is ready, and again at every report. Neither the wait for free devices nor
    the set-up of a new process counts: a node may take longer than the time-out to build its file of mapped images. Tune 2.60
    gives a trial its actor (`temporary_state.ray_actor`) once the set-up has ended and takes it away when the actor stops.

    Args:
        timeout_seconds: time without a report after which a process is killed.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._last_sign: dict[str, float] = {}
        self._killed: set[str] = set()

    def reset(self, trial: Trial) -> None:
        """Stop the clock of a trial that waits for a process."""
        self._last_sign.pop(trial.trial_id, None)

    def hear(self, trial: Trial) -> None:
        """Restart the clock of a trial that has reported."""
        self._last_sign[trial.trial_id] = time.monotonic()

    def take_cause(self, trial: Trial) -> str:
        """Return why the trial's process was killed, once; "" if this watch did not kill it."""
        if trial.trial_id not in self._killed:
            return ""
        self._killed.remove(trial.trial_id)
        return f"no report for {self._timeout_seconds:g} s (resources.timeout_seconds): its process was killed"

    def kill_hung(self, trials: Sequence[Trial]) -> None:
        """Kill the process of each trial whose clock has run out; to be called about once a second."""
        now = time.monotonic()
        ready = {t.trial_id: t.temporary_state.ray_actor for t in trials if t.temporary_state.ray_actor is not None}
        self._last_sign = {trial_id: self._last_sign.get(trial_id, now) for trial_id in ready}
        for trial_id, last_sign in self._last_sign.items():
            if now - last_sign > self._timeout_seconds and trial_id not in self._killed:
                self._killed.add(trial_id)
                ray.kill(ready[trial_id])
