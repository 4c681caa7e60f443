"""What must hold whatever happens, checked at every file that takes effect, after a power loss, and at the end of the study."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from search_spaces.config import list_folds, name_whole
from study.confirmation.candidates import is_crashed
from study.confirmation.plan import read_plan
from study.open_study import OpenStudy
from study.scheduling.search_director import SearchDirector
from study.state.budget_extensions import launched_spec, specs_over_time
from study.state.paths import PLAN, TEST_READS
from study.state.record_book import MemoryBook, RecordBook
from tests.simulation.scheduler import Scheduler, Task, Violation, current
from tests.simulation.storage_models import Disk, ObjectStore
from tests.simulation.training_model import expected_scores
from tests.study.replaying import replay_search
from trainables.records.record import RECORD, TrialRecord, TrialState
from trainables.records.trial_files import CHECKPOINTS, RESULTS

# Fields of a finished record that later writes may change: its test predictions come later, and weights may be dropped.
LATER = {"predictions", "digests", "last_finite_epoch", "weights_dropped", "writer", "confirm_macro_f1"}


def must(holds: object, message: str) -> None:
    """Raise Violation if something does not hold."""
    if holds:
        return
    violation, task = Violation(message), current()
    if task is not None:
        # The first one counts, whatever the thread does on its way out.
        task.scheduler.failure = task.scheduler.failure or violation
    raise violation


class Invariants:
    """Watches the storage of one study.

    Attributes:
        takeovers: time at which each token of the lease was taken.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.storage: Disk | ObjectStore
        self.takeovers: dict[int, float] = {}
        self._holders: dict[int, str] = {}
        self._records: dict[str, TrialRecord] = {}
        self._orders: dict[int, tuple[str, str]] = {}
        # When each attempt of a trial was over, by the trial's folder.
        self._over: dict[tuple[str, int], float] = {}
        self._plan: bytes = b""
        # Every content that each file has had, and which of them the last write that returned had.
        self._versions: dict[str, list[str]] = defaultdict(list)
        self._acknowledged: dict[str, int] = {}
        self.device_seconds: Counter[str] = Counter()

    def see(self, name: str, data: bytes | None) -> None:
        """Check a file that takes effect: written by the thread that calls, or deleted (None)."""
        if name.endswith(".partial") or name == "lease/lock":
            return
        task = current()
        self._versions[name].append("" if data is None else _digest(data))
        folder, _, base = name.rpartition("/")
        if name.startswith("lease/"):
            self._see_lease(name, data)
        elif task is not None and task.process.kind == "worker":
            self._see_worker(task, name, data)
        elif task is not None:
            self._see_driver(task, name)
            if base == RECORD and data is not None:
                self._see_record(folder, TrialRecord.from_json(data, where=name))
            elif name == PLAN:
                # A write whose answer was lost is made again.
                must(data and self._plan in (b"", data), "the plan was changed")
                self._plan = data or b""
        if f"/{RESULTS}/" in name:
            self._see_result(name, data)

    def acknowledge(self, name: str, data: bytes) -> None:
        """Note that a write has returned."""
        versions, digest = self._versions[name], _digest(data)
        must(digest in versions, f"the write of {name} returned, but nothing was written")
        self._acknowledged[name] = len(versions) - 1 - versions[::-1].index(digest)

    def check_disk(self) -> None:
        """Check that a power loss left what every write that returned has written, or something later."""
        found = self.storage.read_all()
        for name, number in self._acknowledged.items():
            later = set(self._versions[name][number:])
            digest = _digest(found[name]) if name in found else ""
            must(digest in later, f"after a power loss {name} is not what a write that returned has written")
        for name, versions in self._versions.items():
            versions.append(_digest(found[name]) if name in found else "")
        for folder in list(self._records):
            name = f"{folder}/{RECORD}"
            del self._records[folder]
            if name in found:
                self._records[folder] = TrialRecord.from_json(found[name], where=name)
        self._plan = found.get(PLAN, b"")
        for token in [token for token in self._holders if f"lease/{token:06d}" not in found]:
            del self._holders[token], self.takeovers[token]

    def check_read(self) -> None:
        """Check that the test split is read after the plan is written, and counted."""
        names = self.storage.list_names()
        must(PLAN in names, "the test split was read before the plan was written")
        must(
            any(name.startswith(f"{TEST_READS}/") for name in names), "the test split was read before that was counted"
        )

    def check_rebuilt(self, director: SearchDirector) -> None:
        """Check that a director which is rebuilt from the records equals the one that runs."""
        book = MemoryBook()
        for record in director.book:
            MemoryBook.save(book, record)
        again = SearchDirector(book, director._spec, director._fixed, full_trial_seconds=director._full_trial_seconds)
        must(again._order == director._order, f"the event counter is {director._order}, rebuilt {again._order}")
        for arm, sampler in director._samplers.items():
            live, rebuilt = ([_describe(trial) for trial in found.trials] for found in (sampler, again._samplers[arm]))
            must(len(live) == len(rebuilt), f"the sampler of {arm} has {len(live)} trials, rebuilt {len(rebuilt)}")
            for one, other in zip(live, rebuilt, strict=True):
                must(one == other, f"the sampler of {arm} has {one}, rebuilt {other}")

    def check_end(self, study: OpenStudy, open_files: Callable[[str], Any]) -> None:
        """Check a study that has ended."""
        book = RecordBook(study.store)
        for record in book:
            mine = study.book.get(record.stage, record.trial_id)
            must(record == mine, f"the record of {record.stage} {record.trial_id} is not the one in memory")
            self._check_trial(record, open_files)
        search = book.of_stage("search")
        replayed = replay_search(search, specs_over_time(study.store, launched_spec(study.store)))
        must(not replayed.difference, f"the replay differs: {replayed.difference}")
        self._check_plan(study, book)

    def _check_trial(self, record: TrialRecord, open_files: Callable[[str], Any]) -> None:
        where = f"{record.stage} {record.trial_id}"
        expected = expected_scores(record.config)
        scores = [epoch.macro_f1 for epoch in record.epochs]
        must(scores == expected[: len(scores)], f"{where} has the scores {scores}, undisturbed {expected}")
        must([epoch.epoch for epoch in record.epochs] == list(range(1, len(scores) + 1)), f"{where} lacks epochs")
        if record.state is TrialState.COMPLETE:
            must(len(scores) == len(expected), f"{where} is complete after {len(scores)} epochs")
        seconds = [epoch.device_seconds for epoch in record.epochs]
        must(seconds == sorted(seconds), f"the device-seconds of {where} fall")
        spent = self.device_seconds[record.fingerprint]
        must(
            record.device_seconds <= spent + 1e-6,
            f"{where} has {record.device_seconds} device-seconds of {spent} spent",
        )
        files = open_files(_folder_of(record))
        for path, digest in record.digests.items():
            must(
                hashlib.sha256(files.store.read_bytes(path)).hexdigest() == digest, f"{path} of {where} is another file"
            )

    def _check_plan(self, study: OpenStudy, book: RecordBook) -> None:
        spec, confirmation = study.spec, book.of_stage("confirmation")
        plan = read_plan(study.store)
        must(plan is not None and not plan.is_changed, "there is no plan")
        assert plan is not None
        counts = Counter(record.fingerprint for record in confirmation)
        must(max(counts.values()) == 1, "a configuration was confirmed twice with one seed")
        must(set(plan.chosen) <= {arm.name for arm in spec.arms()}, "the plan names other arms")
        reads = len(study.store.list_folder(TEST_READS))
        must(1 <= reads <= len(plan.looks), f"{reads} reads of the test split are counted for {len(plan.looks)} looks")
        folds = list_folds(spec.confirm.folds)
        for trial_id in plan.chosen.values():
            source = book.get("search", trial_id)
            own = book.with_configuration_of(source, "confirmation")
            done = {(r.config.seed, r.config.fold) for r in own if not is_crashed(r) and "test" in r.predictions}
            lost = {r.config.seed for r in own if is_crashed(r)}
            for seed in set(plan.seeds[: plan.looks[0]]) - lost:
                must(
                    {(seed, fold) for fold in folds} <= done, f"trial {trial_id} lacks test predictions of seed {seed}"
                )
            if spec.confirm.folds:
                wholes = [r for r in own if r.config.fold == name_whole(spec.confirm.folds)]
                must(len(wholes) == 1, f"trial {trial_id} has {len(wholes)} models of all images")

    def _see_lease(self, name: str, data: bytes | None) -> None:
        must(data is not None, f"{name} was deleted")
        token, holder = int(name.partition("/")[2]), json.loads(data or b"")["holder"]
        if token not in self._holders:
            last = max(self.takeovers, default=0)  # a power loss may have left the last one alone
            must(token == last + 1, f"token {token} was taken after {last}")
            self.takeovers[token] = self._scheduler.now
            self._holders[token] = holder
        must(holder in ("", self._holders[token]), f"two drivers hold token {token}")

    def _see_driver(self, task: Task, name: str) -> None:
        """One effective writer per token: no driver writes once another has taken the study."""
        token, checked = int(task.notes.get("token", 0)), task.notes.get("checked", -1.0)
        must(token, f"{name} was written without a lease")
        # A driver whose renewals were late takes the next token itself.
        later = [
            time
            for other, time in self.takeovers.items()
            if other > token and self._holders[other] != self._holders[token]
        ]
        if not later:
            return
        lost = min(later)
        must(
            checked <= lost, f"{name} was written with token {token}, whose loss at {lost:.1f} s the check did not see"
        )
        # Without locks, a driver that was suspended after the check writes once more, and its last request may be late.
        is_excused = isinstance(self.storage, ObjectStore) and (
            task.process.last_pause > checked or not task.process.is_alive or lost - checked < 0.5
        )
        must(is_excused, f"{name} was written with token {token}, lost at {lost:.1f} s, checked at {checked:.1f} s")

    def _see_record(self, folder: str, record: TrialRecord) -> None:
        before = self._records.get(folder)
        now = self._scheduler.now
        if before is not None:
            # The attempt after the last retry is counted and then not started.
            least = before.attempts - (record.state is TrialState.FAILED)
            must(record.attempts >= least, f"the attempts of {folder} fell from {before.attempts} to {record.attempts}")
            for attempt in range(before.attempts, record.attempts):
                self._over.setdefault((folder, attempt), now)
            if before.state.is_finished and not is_crashed(before):
                changed = {name for name, value in dict(before).items() if getattr(record, name) != value} - LATER
                must(not changed, f"{folder} had ended, but {sorted(changed)} changed")
            earlier, later = ([e.order for e in found.epochs] for found in (before, record))
            # After a driver that stopped in the middle of a group of reports, the next one takes back those after a missing one.
            is_cut = not record.state.is_finished and isinstance(self.storage, ObjectStore)
            least_kept = min(len(later), len(earlier)) if is_cut else len(earlier)
            must(later[:least_kept] == earlier[:least_kept], f"epochs of {folder} changed from {earlier} to {later}")
        if record.state.is_finished:
            self._over.setdefault((folder, record.attempts), now)
        else:
            self._over.pop((folder, record.attempts), None)
        self._check_orders(folder, record)
        self._records[folder] = record

    def _check_orders(self, folder: str, record: TrialRecord) -> None:
        events = [("suggested", record.suggested_order), *((f"epoch {e.epoch}", e.order) for e in record.epochs)]
        if record.ended_order is not None:
            events.append((f"end {record.attempts}", record.ended_order))
        recorded = {event[1]: (folder, event[0]) for event in events}
        must(len(recorded) == len(events), f"{folder} has one order twice: {events}")
        for other, found in self._records.items():
            if other == folder:
                continue
            taken = {found.suggested_order, found.ended_order, *(epoch.order for epoch in found.epochs)}
            must(not taken & recorded.keys(), f"{folder} and {other} share the orders {taken & recorded.keys()}")

    def _see_worker(self, task: Task, name: str, data: bytes | None) -> None:
        parts = name.split("/")
        must(len(parts) > 2 and parts[2] in (CHECKPOINTS, RESULTS), f"a worker wrote {name}")
        if data is None:
            return
        folder = "/".join(parts[:2])
        attempt = int(parts[3]) if parts[2] == RESULTS else int(parts[3].partition(".")[0].rpartition("-")[2])
        over, trained = self._over.get((folder, attempt)), task.notes.get("trained", self._scheduler.now)
        must(
            over is None or over >= trained,
            f"attempt {attempt} was over at {over} s, but {name} of {trained} s was written",
        )

    def _see_result(self, name: str, data: bytes | None) -> None:
        """The files of best/ that a record names stay as they are."""
        folder = "/".join(name.split("/")[:2])
        record = self._records.get(folder)
        path = name.removeprefix(f"{folder}/")
        if record is None or path not in record.digests:
            return
        must(data is not None, f"{name} was deleted, but the record names it")
        must(
            hashlib.sha256(data or b"").hexdigest() == record.digests[path],
            f"{name} was replaced, but the record names it",
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _folder_of(record: TrialRecord) -> str:
    return f"{ {'search': 'trials', 'confirmation': 'confirmation'}[record.stage] }/{record.trial_id}"


def _describe(trial: Any) -> tuple[Any, ...]:
    return (trial.state.name, trial.params, trial.values, trial.intermediate_values, dict(trial.system_attrs))
