"""The judge: a log of what every trial's process did, independent of the product's records and flushed to disk line by line.

`JudgedTrainable` is the product's trainable; it writes the log, and causes the faults that come from inside a process.
"""

import json
import math
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.records.trial_files import LostTrialError
from trainables.training.epoch_metrics import EpochMetrics
from trainables.tune_adapter import TrialTrainable

LOG = "STUDY_FAULT_LOG"
INSIDE = "STUDY_FAULT_INSIDE"  # JSON: trial's folder -> "nan@2" | "inf@1" | "oom@2", kind and epoch


class JudgedTrainable(TrialTrainable):
    """The product's trainable; logs every start, every epoch that it trained, and every end."""

    def _start(self, config: dict[str, Any]) -> None:
        super()._start(config)
        self._log("start", steps=self._run.checkpoint().num_steps)

    def _run_epoch(self) -> EpochMetrics:
        wanted = json.loads(os.environ.get(INSIDE, "{}")).get(self._folder, "")
        fault, _, epoch = wanted.partition("@")
        if epoch and int(epoch) != self._run.epoch + 1:
            fault = ""
        if fault == "oom":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (used + 1_000_000, resource.RLIM_INFINITY))
        try:
            metrics = super()._run_epoch()
        except LostTrialError:
            self._log("refused")
            raise
        finally:
            if fault == "oom":
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self._log("epoch", epoch=metrics.epoch, macro_f1=metrics.macro_f1, loss=metrics.train_loss)
        if fault in {"nan", "inf", "-inf"}:
            self._run.history = (*self._run.history[:-1], EpochMetrics(**{**dict(metrics), "macro_f1": float(fault)}))
            return self._run.history[-1]
        return metrics

    def _end(self) -> Any:
        if self._is_in_step:
            self._log("left", steps=self._run.checkpoint().num_steps)
        super()._end()

    def _log(self, event: str, **values: Any) -> None:
        line = {
            "event": event,
            "trial": self._folder,
            "attempt": self._attempt,
            "pid": os.getpid(),
            "time": time.time(),
        }
        handle = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(handle, (json.dumps({**line, **values}) + "\n").encode())
            os.fsync(handle)
        finally:
            os.close(handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the judge's log."""

    event: str
    trial: str
    attempt: int
    pid: int
    time: float
    epoch: int = 0
    steps: int = 0
    macro_f1: float = math.nan
    loss: float = math.nan


def read_log(path: Path) -> list[Line]:
    """Return the log's complete lines."""
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [Line(**json.loads(line)) for line in whole.splitlines()]


def find_contradictions(lines: list[Line]) -> list[str]:
    """Return the epochs that were trained more than once with results that differ in any bit."""
    seen: dict[tuple[str, int], tuple[float, float]] = {}
    wrong = []
    for line in lines:
        if line.event == "epoch":
            value = (line.macro_f1, line.loss)
            if seen.setdefault((line.trial, line.epoch), value) != value:
                wrong.append(f"{line.trial} epoch {line.epoch}")
    return wrong
