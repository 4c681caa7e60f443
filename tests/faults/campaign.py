"""One small real study under fault: starting it, watching it, breaking it, and what the judge says in the end."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from search_spaces.errors import UserInputError
from study.state.paths import TrialPaths
from study.state.record_book import RecordBook
from tests.faults.judge import INSIDE, LOG, Line, count_trained, find_contradictions, read_log
from trainables.records.record import TrialRecord, TrialState
from trainables.records.store import Store, join_uri

ROOT = Path(__file__).resolve().parents[2]
EXIT_DONE, EXIT_STOPPED = 0, 3
LOG_NAME = "judge.log"
SPEC = """
name = "faulty"
[data]
source = "planted"
num_images = {num_images}
[model]
weights = "none"
[train]
image_size = 32
batch_size = 16
[search]
factor = "interpolation"
num_trials = {num_trials}
max_epochs = {max_epochs}
asha = {{ enabled = false }}
epoch_cost = {{ bicubic = 1.0, bilinear = 1.0 }}
fixed = {{ class_weighting = "none", backbone = "resnet18" }}
[confirm]
top_k = 1
looks = [2]
[analyze]
num_panels = 1
[resources]
retries = {retries}
timeout_seconds = {timeout_seconds}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One row of the table: what was injected, how often the study stood it, and what was lost.

    Attributes:
        fault: its number and name.
        injected, survived: how often.
        lost: finished results that were absent, changed or computed twice afterwards, one line each.
        seen: what else there is to say, with its figures.
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
        """Whether everything that was injected was survived and nothing was lost."""
        return self.injected > 0 and self.survived == self.injected and not self.lost


@dataclass(slots=True)
class Campaign:
    """A study in `folder`, driven by processes of this harness and judged by its log.

    Attributes:
        folder: an empty folder for spec, log and, unless `storage` says otherwise, the study.
        storage: storage root, a folder or a URI; `reading_storage` is another way to it, for this harness alone.
        address: of a running cluster; None starts Ray here.
        environment: more variables for the driver and what it starts.
        preset: name of a shipped spec, in the place of the small one.
        resumed_in: working folder of the drivers that resume; the first driver's where it is None.
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
    resumed_in: Path | None = None
    inside: str = ""
    finished_before: dict[str, str] = field(default_factory=dict)
    finished_at: dict[str, float] = field(default_factory=dict)
    driver: subprocess.Popen[str] | None = None

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

    def start(self, command: str = "launch") -> subprocess.Popen[str]:
        """Start a driver: "launch" or "run" a new study, "resume" its search, or "resume-whole"."""
        spec = self.folder / "spec.toml"
        spec.write_text(
            SPEC.format(
                num_images=self.num_images,
                num_trials=self.num_trials,
                max_epochs=self.max_epochs,
                retries=self.retries,
                timeout_seconds=self.timeout_seconds,
            )
        )
        arguments = [self.preset or str(spec)] if command in {"launch", "run"} else [self.root]
        if command in {"launch", "run"}:
            arguments += ["--storage", self.storage or str(self.folder)]
            arguments += [part for override in self.overrides for part in ("--set", override)]
        if command == "resume":
            arguments.append("--search-only")
        if self.address:
            arguments += ["--address", self.address]
        self.driver = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.driver", command.removesuffix("-whole"), *arguments],
            cwd=ROOT if command in {"launch", "run"} else self.resumed_in or ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                LOG: str(self.log),
                INSIDE: self.inside or "{}",
                **self.environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return self.driver

    def end(self, timeout_seconds: float = 900.0) -> tuple[int, str]:
        """Wait for the driver; return its exit status and what it printed."""
        assert self.driver is not None
        output, _ = self.driver.communicate(timeout=timeout_seconds)
        return self.driver.returncode, output

    def kill_driver(self) -> None:
        """kill -9 of the driver, then of what it leaves behind (a local Ray ends with its driver, after a while)."""
        assert self.driver is not None
        os.kill(self.driver.pid, signal.SIGKILL)
        self.driver.communicate()
        kill_session(self.driver.pid)

    def lines(self) -> list[Line]:
        """Return the judge's log."""
        return read_log(self.log)

    def wait_for(self, condition: Callable[[], bool], timeout_seconds: float = 180.0) -> bool:
        """Wait until the condition holds; False if the driver ended before. Raises AssertionError after the time."""
        assert self.driver is not None
        until = time.monotonic() + timeout_seconds
        while time.monotonic() < until:
            if condition():
                return True
            if self.driver.poll() is not None:
                return False
            time.sleep(0.05)
        raise AssertionError(f"nothing happened in {timeout_seconds:g} s")

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
        """Remember the finished records as they are now, and when they were first seen; `find_losses` compares."""
        for trial_id, record in self.records().items():
            if record.state.is_finished:
                self.finished_before[trial_id] = _content(record)
                self.finished_at.setdefault(trial_id, time.time())

    def running_pids(self) -> list[int]:
        """Return the processes that compute a trial now."""
        latest = {line.trial: line for line in self.lines()}
        finished = {f"trials/{i}" for i, r in self.records().items() if r.state.is_finished}
        return sorted({line.pid for t, line in latest.items() if t not in finished and is_alive(line.pid)})

    def find_losses(self, *, expected: int | None = None, again_per_start: int = 1) -> tuple[str, ...]:
        """Return what was lost: finished records gone or changed, epochs trained too often or otherwise, trials missing.

        A start of a trial that broke off has cost at most the epoch that it was in: `again_per_start` epochs, 0 where it was
        told before and could store its place.
        """
        records = self.records()
        lost = [f"trial {i} is gone" for i in self.finished_before if i not in records]
        lost += [
            f"trial {i} has changed"
            for i, text in self.finished_before.items()
            if i in records and _content(records[i]) != text
        ]
        lost += self._find_trained_again(again_per_start)
        lost += [f"{where} came out otherwise" for where in find_contradictions(self.lines())]
        by_epoch = {(x.trial, x.epoch): x.macro_f1 for x in self.lines() if x.event == "epoch"}
        for record in records.values():
            for epoch in record.epochs:
                told = by_epoch.get((f"trials/{record.trial_id}", epoch.epoch))
                if told is not None and epoch.macro_f1 is not None and told != epoch.macro_f1:
                    lost.append(f"trial {record.trial_id} epoch {epoch.epoch} is recorded otherwise than computed")
        if expected is not None:
            incomplete = [r for r in records.values() if r.state is not TrialState.COMPLETE]
            lost += [f"trial {r.trial_id} is {r.state}: {' '.join(r.reason.split())[-300:]}" for r in incomplete]
            if len(records) != expected:
                lost.append(f"there are {len(records)} trials, not {expected}")
        return tuple(lost)

    def _find_trained_again(self, again_per_start: int) -> list[str]:
        trained = Counter(trial for trial, _ in count_trained(self.lines()).elements())
        return [
            f"trial {r.trial_id} of {r.stage} trained {again} epochs again in {r.attempts} starts"
            for r in self.book()
            if (again := trained[TrialPaths(stage=r.stage, trial_id=r.trial_id).folder] - len(r.epochs))
            > again_per_start * (r.attempts - 1)
        ]


def kill_session(session: int) -> None:
    """kill -9 of every process of a session, and of their children that made sessions of their own."""
    for _ in range(3):
        for pid in _descendants(session):
            kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def kill(pid: int, number: signal.Signals) -> bool:
    """Send a signal; return whether the process was there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def is_alive(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """Return the descendants of a process that are alive."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, front = [], [pid]
    while front:
        front = [p for p, parent in parents.items() if parent in front]
        found += front
    return found


def _descendants(session: int) -> list[int]:
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session:
            members.append(int(path.parent.name))
    return [pid for member in members for pid in [*children(member), member]]


def _content(record: TrialRecord) -> str:
    return record.model_copy(update={"writer": ""}).model_dump_json()


def draw(seed: int, low: float, high: float) -> float:
    """Return a seeded time in seconds."""
    return random.Random(seed).uniform(low, high)
