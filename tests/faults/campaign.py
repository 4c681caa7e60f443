"""One small real study under fault: it is started, observed and broken here, and judged by its log."""

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from search_spaces.errors import UserInputError
from study.state.paths import TrialPaths
from study.state.record_book import RecordBook
from tests.faults.judge import INSIDE, LOG, Line, find_contradictions, read_log
from tests.faults.process_tree import is_alive, kill_session, wait_until
from trainables.records.record import TrialRecord, TrialState
from trainables.records.trial_files import WEIGHTS, find_file
from trainables.storage.store import Store, join_uri

ROOT = Path(__file__).resolve().parents[2]
EXIT_DONE, EXIT_STOPPED = 0, 3
LOG_NAME = "judge.log"
# What `Campaign.start` starts by another name than that of the command, with its option.
COMMANDS = {"resume": ("resume", "--search-only"), "resume-whole": ("resume",), "resubmit": ("submit", "--resume")}
SPEC = """
name = "faulty"
data = {{ source = "planted", num_images = {num_images} }}
model = {{ weights = "none" }}
train = {{ image_size = 32, batch_size = 16 }}
search.factor = "interpolation"
search.num_trials = {num_trials}
search.max_epochs = {max_epochs}
search.pruning = "none"
search.epoch_cost = {{ bicubic = 1.0, bilinear = 1.0 }}
search.fixed = {{ class_weighting = "none", backbone = "resnet18" }}
confirm = {{ top_k = 1, looks = [2] }}
analyze = {{ num_panels = 1 }}
resources = {{ retries = {retries}, timeout_seconds = {timeout_seconds} }}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One row of the table.

    Attributes:
        fault: number and name.
        injected, survived: number of faults.
        lost: finished results that were absent, changed or computed twice afterwards, one line each.
        seen: further observations, with their figures.
        is_stock: whether this is stock Ray Tune's row.
    """

    fault: str
    injected: int
    survived: int
    lost: tuple[str, ...] = ()
    seen: str = ""
    is_stock: bool = False

    @property
    def is_met(self) -> bool:
        """Whether every fault was survived and nothing was lost."""
        return self.injected > 0 and self.survived == self.injected and not self.lost


@dataclass(slots=True)
class Campaign:
    """A study in `folder`, driven by processes of this harness and judged by its log.

    Attributes:
        folder: an empty folder for spec, log and, unless `storage` says otherwise, the study.
        storage: storage root, a folder or a URI.
        reading_storage: another URI of the same storage, by which this harness reads it.
        address: of a running cluster; None starts Ray on this machine.
        environment: more variables for the driver and the processes that it starts.
        preset: name of a shipped spec that replaces the small one, or of a round.
        parent: root of the study of a round.
        resumed_in: working folder of the drivers that resume; None is that of the first driver.
    """

    folder: Path
    storage: str = ""
    reading_storage: str = ""
    address: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    num_trials: int = 6
    max_epochs: int = 3
    num_images: int = 500
    retries: int = 2
    timeout_seconds: float = 600.0
    overrides: tuple[str, ...] = ()
    preset: str = ""
    parent: str = ""
    resumed_in: Path | None = None
    inside: str = ""
    finished_before: dict[str, TrialRecord] = field(default_factory=dict)
    finished_at: dict[str, float] = field(default_factory=dict)
    driver: subprocess.Popen[bytes] | None = None
    output: Path | None = None
    ended: tuple[int, str] = (-1, "")

    @property
    def log(self) -> Path:
        """The judge's log."""
        return self.folder / LOG_NAME

    @property
    def root(self) -> str:
        """The study's root."""
        return join_uri(self.storage or str(self.folder), self.preset or "faulty")

    @property
    def reading_root(self) -> str:
        """The study's root as this harness reads it."""
        return join_uri(self.reading_storage, "faulty") if self.reading_storage else self.root

    def start(self, command: str = "launch") -> subprocess.Popen[bytes]:
        """Start a driver: "launch", "run" or "submit" a new study, "resume" its search, "resume-whole", or "resubmit".

        "intervene" begins a round of interventions with `overrides` as its options; its study is `parent`.

        Its output goes to a file: a driver would wait for ever for somebody to read a full pipe, and Ray prints 4 kB for each
        node that is lost.
        """
        spec, is_new = self.folder / "spec.toml", command in {"launch", "run", "submit"}
        settings = ("num_images", "num_trials", "max_epochs", "retries", "timeout_seconds")
        spec.write_text(SPEC.format(**{name: getattr(self, name) for name in settings}))
        arguments = [self.root]
        if is_new:
            arguments = [self.preset or str(spec), "--storage", self.storage or str(self.folder)]
            arguments += [part for override in self.overrides for part in ("--set", override)]
        if command == "intervene":
            arguments = [self.parent, *self.overrides]
        verb, *options = COMMANDS.get(command, (command,))
        arguments += options
        arguments += ["--address", self.address] if self.address else []
        harness = {"PYTHONPATH": str(ROOT), LOG: str(self.log), INSIDE: self.inside or "{}"}
        with tempfile.NamedTemporaryFile(prefix="abstudy-driver-", delete=False) as output:
            self.output = Path(output.name)
            self.driver = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.driver", verb, *arguments],
                cwd=ROOT if is_new else self.resumed_in or ROOT,
                env={**os.environ, **harness, **self.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.driver

    def end(self, timeout_seconds: float = 900.0) -> tuple[int, str]:
        """Wait for the driver; return its exit status and its output, which `outcome` judges.

        Raises:
            subprocess.TimeoutExpired: If no process has written to the log for so long; a search that goes on is waited for.
        """
        assert self.driver is not None
        assert self.output is not None
        status, known = None, len(self.lines())
        while status is None:
            try:
                status = self.driver.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                before, known = known, len(self.lines())
                if known == before:
                    raise
        self.ended = status, self.output.read_text(errors="replace")
        self.output.unlink()
        return self.ended

    def kill_driver(self) -> None:
        """Send SIGKILL to the driver, then to the processes it leaves behind (a local Ray outlives its driver for a while)."""
        assert self.driver is not None
        os.kill(self.driver.pid, signal.SIGKILL)
        self.driver.wait()
        kill_session(self.driver.pid)
        if self.output is not None:
            self.output.unlink(missing_ok=True)

    def lines(self) -> list[Line]:
        """Return the judge's log."""
        return read_log(self.log)

    def epoch_seconds(self) -> list[float]:
        """Return the seconds of every epoch that a process trained so far, its first ones included."""
        seconds, last = [], dict[int, float]()
        for line in self.lines():
            if line.event == "epoch" and line.pid in last:
                seconds.append(line.time - last[line.pid])
            last[line.pid] = line.time
        return seconds

    def wait_for(self, condition: Callable[[], bool], timeout_seconds: float = 180.0) -> bool:
        """Wait until the condition holds; return False if the driver ended first, raise AssertionError after the time-out."""
        driver = self.driver
        assert driver is not None
        found = wait_until(lambda: "holds" if condition() else driver.poll() is not None and "ended", timeout_seconds)
        assert found, f"the condition did not hold within {timeout_seconds:g} s"
        return found == "holds"

    def book(self) -> list[TrialRecord]:
        """Return the records of both stages; empty while there is no study."""
        try:
            return list(RecordBook(Store(self.reading_root)))
        except UserInputError:
            return []

    def records(self) -> dict[str, TrialRecord]:
        """Return the records of the search by trial; empty while there is no study."""
        return {r.trial_id: r for r in self.book() if r.stage == "search"}

    def note_finished(self) -> None:
        """Keep the finished records as they are now, and the time at which they were first seen, for `find_losses`."""
        for trial_id, record in self.records().items():
            if record.state.is_finished:
                self.finished_before[trial_id] = record
                self.finished_at.setdefault(trial_id, time.time())

    def running_pids(self) -> list[int]:
        """Return the processes that compute a trial now."""
        latest = {line.trial: line for line in self.lines()}
        finished = {f"trials/{i}" for i, r in self.records().items() if r.state.is_finished}
        return sorted({line.pid for t, line in latest.items() if t not in finished and is_alive(line.pid)})

    def strike(self, count: int, gap: tuple[float, float], fault: Callable[[int], bool]) -> int:
        """Apply `fault` to the processes of running trials, to each once, at seeded times until it has struck `count` times.

        A fault comes within `gap` seconds after a trial was seen running, or within as many epochs where an epoch takes longer
        than a second: where no epoch ended between two faults, the study would rightly give up. It is called with the process
        and returns whether it has struck. Returned is how often it has: fewer than `count` times if the study ends before.
        """
        struck: set[int] = set()
        self.wait_for(lambda: bool(self.epoch_seconds()), 240)
        while len(struck) < count and self.wait_for(lambda: bool(set(self.running_pids()) - struck), 240):
            time.sleep(draw(len(struck), *gap) * max(1.0, statistics.median(self.epoch_seconds() or [0.0])))
            pids = sorted(set(self.running_pids()) - struck)
            if pids and fault(pid := random.Random(len(struck)).choice(pids)):
                struck.add(pid)
        return len(struck)

    def outcome(
        self,
        fault: str,
        injected: int,
        seen: str,
        *,
        survived: int | None = None,
        lost: Iterable[str] = (),
        all_complete: bool = True,
        again_per_attempt: int = 1,
    ) -> Outcome:
        """Return the row of the ended study; all faults were survived if it ended normally, unless `survived` says otherwise.

        `lost` is added to the losses that `find_losses` and `find_restarted` find and to the driver's failure, if it failed.
        """
        if survived is None:
            survived = injected if self.ended[0] == EXIT_DONE else 0
        expected = self.num_trials if all_complete else None
        losses = self.find_losses(expected=expected, again_per_attempt=again_per_attempt)
        losses += (*self.find_restarted(), *describe_failure(*self.ended), *lost)
        return Outcome(fault=fault, injected=injected, survived=survived, lost=losses, seen=seen)

    def find_restarted(self) -> tuple[str, ...]:
        """Return the trials that were started again after their record had been seen finished.

        A trial that has trained its last epoch when the driver dies, but whose record is not finished, starts once more to
        finish it.
        """
        finished = {f"trials/{trial_id}": at for trial_id, at in self.finished_at.items()}
        return tuple(
            f"{line.trial} was started again after it had finished"
            for line in self.lines()
            if line.event == "start" and line.time > finished.get(line.trial, float("inf"))
        )

    def find_losses(self, *, expected: int | None = None, again_per_attempt: int = 1) -> tuple[str, ...]:
        """Return the losses: finished records gone or changed, epochs trained too often or differently, trials missing.

        An interrupted attempt may cost the epoch that it was in: `again_per_attempt` epochs, 0 where it was notified before
        and could store a checkpoint.
        """
        records = self.records()
        lost = [f"trial {i} is gone" for i in self.finished_before if i not in records]
        lost += [
            f"trial {i} has changed"
            for i, record in self.finished_before.items()
            if i in records and has_changed(record, records[i])
        ]
        lost += self._find_trained_again(again_per_attempt)
        lost += [f"{where} had another result when it was trained again" for where in find_contradictions(self.lines())]
        by_epoch = {(x.trial, x.epoch): x.macro_f1 for x in self.lines() if x.event == "epoch"}
        for record in records.values():
            for epoch in record.epochs:
                logged = by_epoch.get((f"trials/{record.trial_id}", epoch.epoch))
                if logged is not None and epoch.macro_f1 is not None and logged != epoch.macro_f1:
                    lost.append(f"trial {record.trial_id} epoch {epoch.epoch}: recorded otherwise than computed")
        if expected is not None:
            incomplete = [r for r in records.values() if r.state is not TrialState.COMPLETE]
            lost += [f"trial {r.trial_id} is {r.state}: {' '.join(r.reason.split())[-300:]}" for r in incomplete]
            if len(records) != expected:
                lost.append(f"there are {len(records)} trials, not {expected}")
        return tuple(lost)

    def _find_trained_again(self, again_per_attempt: int) -> list[str]:
        trained = Counter(line.trial for line in self.lines() if line.event == "epoch")
        return [
            f"trial {r.trial_id} of {r.stage} trained {again} epochs again in {r.attempts} attempts"
            for r in self.book()
            if (again := trained[TrialPaths(stage=r.stage, trial_id=r.trial_id).folder] - len(r.epochs))
            > again_per_attempt * (r.attempts - 1)
        ]


def has_changed(before: TrialRecord, now: TrialRecord) -> bool:
    """Return whether a finished trial has another result; its weights may go when it cannot be chosen any more."""
    ignored: dict[str, object] = {"writer": ""}
    if now.weights_dropped and not before.weights_dropped:
        weights = find_file(WEIGHTS, before.digests)
        before = before.model_copy(update={"digests": {k: v for k, v in before.digests.items() if k != weights}})
        ignored["weights_dropped"] = True
    return before.model_copy(update=ignored) != now.model_copy(update=ignored)


def describe_failure(status: int, output: str) -> tuple[str, ...]:
    """Return one line for a driver that failed or printed a traceback, none for another."""
    if status != EXIT_DONE:
        return (f"the driver ended with {status}: {' '.join(output.split())[-300:]}",)
    return ("the driver printed a traceback",) if "Traceback" in output else ()


def draw(seed: int, low: float, high: float) -> float:
    """Return a seeded time in seconds."""
    return random.Random(seed).uniform(low, high)
