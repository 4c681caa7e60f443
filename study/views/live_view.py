"""The live view of a running study: a table in a terminal, plain lines elsewhere; and the time that a stage still takes."""

import heapq
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from analysis.formats.numbers import format_seconds
from analysis.formats.text_sections import SectionTable
from search_spaces.errors import UserInputError, count_noun, first_line
from study.confirmation.candidates import count_ranking_trials
from study.confirmation.plan import confirmation_seeds, read_plan
from study.open_study import OpenStudy, has_finished_search, read_passport
from study.spec.study_spec import StudySpec
from study.state.paths import COMPARISON_CSV, FINDINGS, Stage
from study.state.record_book import MemoryBook
from study.views.printing import build_table
from trainables.records.record import TrialRecord, TrialState, best_trials


def compute_remaining_seconds(study: OpenStudy, stage: Stage) -> float | None:
    """Return the wall seconds until the end of a stage, without pauses; None while no epoch has been measured.

    Waiting trials are assigned to the slots that become free first, each with the expected cost of a trial of its arm.
    """
    records = study.book.of_stage(stage)
    if has_finished_search(study) if stage == "search" else has_finished_confirmation(study):
        return 0.0
    arms = [arm.name for arm in study.spec.arms()]
    measured = {arm: [r for r in study.book if r.config.arm == arm and r.epochs] for arm in arms}
    costs = {a: sum(r.device_seconds for r in m) / sum(len(r.epochs) for r in m) for a, m in measured.items() if m}
    if not costs:
        return None
    # Device-seconds of an epoch, and of a whole trial. An arm without an epoch gets the mean of the others.
    epoch_costs = {arm: costs.get(arm, fmean(costs.values())) for arm in arms}
    trial_costs = {arm: epoch_costs[arm] * _expected_epochs(arm, records, study, stage) for arm in arms}
    left = {r.trial_id: r.config.whole("max_epochs") - len(r.epochs) for r in records}
    running = [(r.config.arm, r.trial_id) for r in records if not r.state.is_finished]
    started = [(arm, min(trial_costs[arm], epoch_costs[arm] * left[trial_id])) for arm, trial_id in running]
    num_devices = float(read_passport(study.store)["num_devices"])
    if stage == "search" and study.spec.search.device_seconds is not None:
        unspent = study.spec.search.device_seconds - sum(r.device_seconds for r in records)
        return max(unspent, sum(cost for _, cost in started)) / num_devices
    held = {arm: study.spec.resources.count_devices(arm) for arm in arms}
    slots = [cost / held[arm] for arm, cost in started]
    slots += [0.0] * (max(1, int(num_devices / max(held.values()) + 1e-9)) - len(slots))
    heapq.heapify(slots)
    for arm in _waiting_arms(study, stage, started, trial_costs):
        heapq.heapreplace(slots, slots[0] + trial_costs[arm] / held[arm])
    return max(slots)


def has_finished_confirmation(study: OpenStudy) -> bool:
    """Return whether the A/B table has been written and no trial of the plan was started since.

    A table of a part may come earlier, and a driver that died may have left a trial that nobody wants any more.
    """
    running = [record for record in study.book.of_stage("confirmation") if not record.state.is_finished]
    plan = read_plan(study.store) if running else None
    if plan is None and running:
        return False
    sources = [] if plan is None else [study.book.get("search", trial_id) for trial_id in plan.chosen.values()]
    wanted = {source.config.configuration_fingerprint for source in sources}
    if any(record.config.configuration_fingerprint in wanted for record in running):
        return False
    return study.store.exists(COMPARISON_CSV) or study.store.exists(FINDINGS)


def count_confirmation_trials(study: OpenStudy) -> dict[str, int]:
    """Return the trials of each arm that the confirmation runs: rankings of its candidates, and all seeds.

    Of a finished confirmation, they are those that it has run: rows that an early look decided need no more.
    """
    if has_finished_confirmation(study):
        counts = Counter(record.config.arm for record in study.book.of_stage("confirmation"))
        return {arm.name: counts[arm.name] for arm in study.spec.arms()}
    return plan_confirmation_trials(study.spec, study.book)


def plan_confirmation_trials(spec: StudySpec, book: MemoryBook) -> dict[str, int]:
    """Return the trials of each arm that a confirmation runs if no early look decides; before the search ends, an estimate."""
    num_seeds, folds = len(confirmation_seeds(spec)), spec.confirm.folds
    # With folds, the last one trains on all images.
    num_trials = num_seeds * folds + 1 if folds else num_seeds
    return {arm.name: num_trials + count_ranking_trials(book, spec, arm.name) for arm in spec.arms()}


def _expected_epochs(arm: str, records: Sequence[TrialRecord], study: OpenStudy, stage: Stage) -> float:
    """Return the epochs that a new trial is expected to run: in the search, those of the arm per trial that has ended.

    The epochs of running trials count, because the trials that end first are those that ASHA stops.
    """
    own = [r for r in records if r.config.arm == arm]
    num_ended = sum(r.state.is_finished for r in own)
    full = next(study.spec.max_epochs(found) for found in study.spec.arms() if found.name == arm)
    if stage != "search" or not num_ended:
        return full
    return min(full, sum(len(r.epochs) for r in own) / num_ended)


def _waiting_arms(
    study: OpenStudy, stage: Stage, started: Sequence[tuple[str, float]], trial_costs: Mapping[str, float]
) -> list[str]:
    """Return the arm of each trial that has not started; the search gives every arm equal device-seconds."""
    records = study.book.of_stage(stage)
    if stage != "search" or study.spec.has_given_arms:
        planned = dict.fromkeys(trial_costs, 1) if stage == "search" else count_confirmation_trials(study)
        started_of = Counter(r.config.arm for r in records)
        return [arm for arm in trial_costs for _ in range(planned[arm] - started_of[arm])]
    committed = {arm: sum(r.device_seconds for r in records if r.config.arm == arm) for arm in trial_costs}
    for arm, cost in started:
        committed[arm] += cost
    waiting = []
    for _ in range((study.spec.num_trials or 0) - len(records)):
        waiting.append(min(committed, key=lambda arm: committed[arm] + trial_costs[arm] / 2))
        committed[waiting[-1]] += trial_costs[waiting[-1]]
    return waiting


PLAIN_INTERVAL_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmProgress:
    """One arm of a stage: its trials by state, its device-seconds and their share, its best score so far."""

    arm: str
    num_running: int
    num_complete: int
    num_pruned: int
    num_failed: int
    device_seconds: float
    share: float
    best_macro_f1: float | None
    best_trial_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProgress:
    """One stage of a study.

    Attributes:
        num_planned: number of trials; None if the budget is in device-seconds.
        budget_device_seconds: budget of the search in device-seconds; None if it is a number of trials.
        fraction_done: share of the trials, or of the device-seconds, that is finished.
        elapsed_seconds: since the first trial started, pauses between a stop and a resume included.
        eta_seconds: until the end of the stage; None while no epoch has been measured.
        idle_fraction: share of the devices' time that no trial has reported; None while no trial has finished.
    """

    stage: Stage
    num_planned: int | None
    budget_device_seconds: float | None
    num_finished: int
    fraction_done: float
    elapsed_seconds: float
    eta_seconds: float | None
    idle_fraction: float | None
    arms: tuple[ArmProgress, ...]


def compute_progress(study: OpenStudy, stage: Stage) -> StageProgress:
    """Return the progress of a stage, computed from the study's records."""
    records = study.book.of_stage(stage)
    arms = [arm.name for arm in study.spec.arms()]
    finished = [r for r in records if r.state.is_finished]
    search = study.spec.search
    num_planned = study.spec.num_trials if stage == "search" else sum(count_confirmation_trials(study).values())
    budget = search.device_seconds if stage == "search" else None
    elapsed = _elapsed_seconds(records)
    total = sum(r.device_seconds for r in records)
    if num_planned is not None:
        num_planned = max(num_planned, len(records))
        done = len(finished) / num_planned
    else:
        assert budget is not None
        done = 1.0 if has_finished_search(study) else min(1.0, total / budget)
    available = elapsed * float(read_passport(study.store)["num_devices"])
    return StageProgress(
        stage=stage,
        num_planned=num_planned,
        budget_device_seconds=budget,
        fraction_done=done,
        num_finished=len(finished),
        elapsed_seconds=elapsed,
        eta_seconds=compute_remaining_seconds(study, stage),
        idle_fraction=min(1.0, max(0.0, 1 - total / available)) if finished and available else None,
        arms=tuple(_arm_progress(arm, [r for r in records if r.config.arm == arm], total) for arm in arms),
    )


def tabulate_progress(progress: StageProgress) -> SectionTable:
    """Return the table of a stage's arms."""
    columns = ("arm", "running", "complete", "pruned", "failed", "device time", "share", "best macro-F1")
    rows = []
    for arm in progress.arms:
        best = "-" if arm.best_macro_f1 is None else f"{arm.best_macro_f1:.4f} ({arm.best_trial_id})"
        counts = (arm.num_running, arm.num_complete, arm.num_pruned, arm.num_failed)
        rows.append((arm.arm, *map(str, counts), format_seconds(arm.device_seconds), f"{arm.share:.0%}", best))
    return SectionTable(columns=columns, rows=tuple(rows))


def describe_progress(progress: StageProgress) -> str:
    """Return one line with the stage, its trials, the elapsed time and the ETA."""
    eta = "unknown" if progress.eta_seconds is None else format_seconds(progress.eta_seconds)
    idle = "" if progress.idle_fraction is None else f", {progress.idle_fraction:.0%} idle"
    spent = sum(arm.device_seconds for arm in progress.arms)
    trials = (
        f"{progress.num_finished} of {count_noun(progress.num_planned, 'trial')}"
        if progress.num_planned is not None
        else f"{count_noun(progress.num_finished, 'trial')}, {spent:.0f} of {progress.budget_device_seconds:.0f} device-seconds"
    )
    return f"{progress.stage}: {trials}, {format_seconds(progress.elapsed_seconds)} elapsed, ETA {eta}{idle}"


class LiveView:
    """Context manager that shows a running study, entered for each stage; `update` is called about once a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._last_plain = 0.0

    def __enter__(self) -> "LiveView":
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, study: OpenStudy, stage: str) -> None:
        """Show the progress of a stage: a table in a terminal, else one line per `PLAIN_INTERVAL_SECONDS`.

        What cannot be read this time is said, and the study goes on.
        """
        if stage not in ("search", "confirmation"):
            does = "measuring the baselines" if stage == "baselines" else f"reading the {stage} split"
            self._console.print(f"{study.name}: {does}")
            return
        is_due = time.monotonic() - self._last_plain > PLAIN_INTERVAL_SECONDS
        if self._live is None and not is_due:
            return
        try:
            progress = compute_progress(study, "search" if stage == "search" else "confirmation")
        except (UserInputError, OSError) as error:
            if is_due:
                self._last_plain = time.monotonic()
                self._console.print(
                    f"{stage}: its progress cannot be shown now ({first_line(error)}); it goes on", soft_wrap=True
                )
            return
        if self._live is not None:
            bar = ProgressBar(total=1.0, completed=progress.fraction_done, width=60)
            title = Text(f"{study.name}  {describe_progress(progress)}", style="bold")
            # Padded, since a bar alone does not end its line.
            table = build_table(tabulate_progress(progress))
            self._live.update(Group(title, Padding(bar, (0, 0)), table), refresh=True)
        else:
            self._last_plain = time.monotonic()
            best = ", ".join(
                f"{a.arm} {a.share:.0%} best {a.best_macro_f1:.4f}"
                for a in progress.arms
                if a.best_macro_f1 is not None
            )
            self._console.print(f"{describe_progress(progress)}{'; ' + best if best else ''}", soft_wrap=True)


def _arm_progress(arm: str, records: Sequence[TrialRecord], total_seconds: float) -> ArmProgress:
    states = [r.state for r in records]
    spent = sum(r.device_seconds for r in records)
    # A trial of a fold trains on the search split, too: its score there says nothing.
    best = next(iter(best_trials([r for r in records if not r.config.fold], arm)), None)
    return ArmProgress(
        arm=arm,
        num_running=states.count(TrialState.RUNNING),
        num_complete=states.count(TrialState.COMPLETE),
        num_pruned=states.count(TrialState.PRUNED),
        num_failed=states.count(TrialState.FAILED),
        device_seconds=spent,
        share=spent / total_seconds if total_seconds else 0.0,
        best_macro_f1=best.last_macro_f1 if best else None,
        best_trial_id=best.trial_id if best else "",
    )


def _elapsed_seconds(records: Sequence[TrialRecord]) -> float:
    starts = [datetime.fromisoformat(r.started) for r in records if r.started]
    if not starts:
        return 0.0
    running = any(not r.state.is_finished for r in records)
    ends = [datetime.fromisoformat(r.ended) for r in records if r.ended]
    last = datetime.now(starts[0].tzinfo) if running or not ends else max(ends)
    return max(0.0, (last - min(starts)).total_seconds())
