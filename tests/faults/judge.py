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

from trainables.records.trial_files import LostTrialError, TrialFiles
from trainables.storage.store import Store
from trainables.training.checkpoint import Checkpoint
from trainables.training.epoch_metrics import EpochMetrics
from trainables.tune_adapter import TrialTrainable

LOG = "STUDY_FAULT_LOG"
# JSON: trial's folder -> "nan@2" | "inf@1" | "oom@2", kind and epoch, or "hang@2": the set-ups of so many attempts do not end.
INSIDE = "STUDY_FAULT_INSIDE"


class JudgedTrainable(TrialTrainable):
    """The product's trainable; logs every start, every epoch that it trained, every checkpoint, and every end."""

    def setup(self, config: dict[str, Any], data: Any = None, settings: Any = None) -> None:
        """Set up, or hang."""
        self._folder, (fault, _, number) = config["folder"], _find_fault(config["folder"])
        self._attempt = TrialFiles(Store(settings.study_uri).child(self._folder)).read_num_attempts()
        if fault == "hang" and self._attempt <= int(number):
            self._log("hang")
            time.sleep(3600)
        super().setup(config, data=data, settings=settings)

    def _start(self, config: dict[str, Any]) -> None:
        super()._start(config)
        self._log("start", steps=self._run.checkpoint().num_steps)
        check, write = self._files.check_attempt, self._files.write_checkpoint

        def check_and_log(attempt: int) -> None:
            try:
                check(attempt)
            except LostTrialError:
                self._log("refused")
                raise

        def write_and_log(checkpoint: Checkpoint, attempt: int) -> None:
            write(checkpoint, attempt)
            self._log("stored", steps=checkpoint.num_steps)

        self._files.check_attempt, self._files.write_checkpoint = check_and_log, write_and_log  # type: ignore[method-assign]

    def _run_epoch(self) -> EpochMetrics:
        fault, _, epoch = _find_fault(self._folder)
        if epoch and int(epoch) != self._run.epoch + 1:
            fault = ""
        if fault == "oom":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (used + 1_000_000, resource.RLIM_INFINITY))
        try:
            metrics = super()._run_epoch()
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


def _find_fault(folder: str) -> tuple[str, str, str]:
    """Return the kind of a trial's fault, "@", and its epoch or number."""
    wanted: str = json.loads(os.environ.get(INSIDE, "{}")).get(folder, "")
    return wanted.partition("@")


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
