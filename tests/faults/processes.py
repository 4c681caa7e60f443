"""Faults of processes: trials killed, stopped, out of memory, told to end or reporting NaN; drivers killed."""

import io
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from study.open_study import load_study
from study.state.paths import FINDINGS, LEASES, SPEC
from study.views.status import status_json
from tests.faults.campaign import EXIT_DONE, Campaign, Outcome, describe_failure, draw
from tests.faults.process_tree import is_alive, kill, wait_until
from tests.study.replaying import replay_study
from trainables.records.record import TrialState
from trainables.storage.store import Store

# Fields of findings.json that are measured on the machine or follow from measurements alone (points of a curve), hold them, or
# name the place of a study.
MEASURED = frozenset({
    "checksum", "created", "passport", "study", "warnings", "device_seconds", "peak_memory_bytes", "train_images_per_second",
    "predict_images_per_second", "points_per_device_hour", "cost_ratio", "saved_device_seconds", "saved_fraction", "share",
    "points", "basis", "parent",
})  # fmt: skip
ROUND_OPTIONS = ("--only", "weighted_loss", "--seeds", "2")
IN_ORDER = ("resources.max_concurrent=1",)


def kill_trials(folder: Path, count: int) -> Outcome:
    """R1: SIGKILL of a trial's process at seeded times."""
    campaign = Campaign(folder, num_trials=max(6, count // 2), max_epochs=5, retries=10)
    campaign.start()
    struck = campaign.strike(count, (1.0, 3.0), lambda pid: kill(pid, signal.SIGKILL))
    campaign.end()
    retries = sum(r.attempts - 1 for r in campaign.records().values())
    seen = f"{retries} retries recorded; at most one epoch trained again per kill"
    return campaign.outcome("R1 trial process killed", struck, seen)


def tell_trials_to_end(folder: Path, count: int, grace_seconds: float = 10.0) -> Outcome:
    """R11: SIGTERM to a trial's process, then SIGKILL after the grace; it must have stored a checkpoint and ended."""
    campaign = Campaign(folder, num_trials=max(6, count // 2), max_epochs=5, num_images=1000, retries=10)
    campaign.start()
    late, longest = 0, 0.0

    def tell_to_end(pid: int) -> bool:
        nonlocal late, longest
        began = time.monotonic()
        if not kill(pid, signal.SIGTERM):
            return False
        wait_until(lambda: not is_alive(pid), grace_seconds, every_seconds=0.02)
        longest = max(longest, time.monotonic() - began)
        late += is_alive(pid) and kill(pid, signal.SIGKILL)
        return True

    struck = campaign.strike(count, (0.5, 2.5), tell_to_end)
    status, _ = campaign.end()
    left = sum(line.event == "left" for line in campaign.lines())
    return campaign.outcome(
        "R11 preemption notice",
        struck,
        f"{left} left with a checkpoint, the slowest in {longest:.1f} s of {grace_seconds:g}; no step was trained twice",
        survived=struck - late if status == EXIT_DONE else 0,
        again_per_attempt=0,  # An interrupted epoch is continued: none is ever trained twice.
    )


def kill_drivers(folder: Path, count: int) -> Outcome:
    """R4: SIGKILL of the driver at seeded times, `study resume` each time; every decision of the ended search replays.

    Two kills of three come within 45 s after trials have begun to train, so that many trials finish in between and the Gaussian
    process is fitted between kills; the third comes at any time after the start.
    """
    # The first kill comes up to 45 s after the start, in which twenty trials may end: a sample needs more than that.
    campaign = Campaign(folder, num_trials=max(60, 6 * count), max_epochs=3)
    campaign.start()
    struck, known = 0, 0
    while struck < count:
        is_running = campaign.wait_for(
            lambda known=known, struck=struck: len(campaign.lines()) > known or (struck % 3 == 2)  # type: ignore[misc]
        )
        time.sleep(draw(struck, 0.0, 12.0 if struck % 3 == 2 else 45.0))
        campaign.note_finished()
        if not is_running or campaign.driver is None or campaign.driver.poll() is not None:
            break
        campaign.kill_driver()
        campaign.note_finished()
        struck, known = struck + 1, len(campaign.lines())
        campaign.start("resume")
    campaign.end()
    seen = (
        f"{len(campaign.finished_before)} trials had finished before a kill; none was started again; the search replays"
    )
    return campaign.outcome("R4 driver killed", struck, seen, lost=find_other_decisions(campaign.root))


def find_other_decisions(root: str) -> tuple[str, ...]:
    """Return what a replay prints of the study at `root` if a decision differs, else nothing."""
    printed = io.StringIO()
    if replay_study(Store(root), Console(file=printed)):
        return ()
    return (f"replay: {' '.join(printed.getvalue().split())}",)


def kill_whole_studies(folder: Path, count: int, preset: str = "") -> Outcome:
    """R4 to the report: SIGKILL of the driver at seeded times from launch to report; an undisturbed study has the same findings.

    One trial at a time, so that the order of reports is fixed, and a fixed cost per epoch, which both specs have, so that the
    arms' order is. Without a `preset`, the harness's own small study runs.
    """
    for name in ("undisturbed", "killed"):
        (folder / name).mkdir(parents=True)
    undisturbed, killed = (
        Campaign(folder / name, preset=preset, overrides=IN_ORDER, num_trials=4) for name in ("undisturbed", "killed")
    )
    fault = "R4 driver killed from launch to report" + (f" ({preset})" if preset else "")
    return _kill_and_compare(undisturbed, killed, count, "run", fault)


def kill_rounds(folder: Path, count: int) -> Outcome:
    """R18: SIGKILL of the driver at seeded times in a round of interventions; an undisturbed round has the same findings."""
    (folder / "parent").mkdir()
    parent = Campaign(folder / "parent", overrides=IN_ORDER, num_trials=4)
    parent.start("run")
    failure = describe_failure(*parent.end(1800))
    assert not failure, failure
    rounds = []
    for name in ("undisturbed", "killed"):
        root = shutil.copytree(parent.root, folder / name / "faulty")
        rounds.append(Campaign(folder / name, parent=str(root), preset="faulty-intervene-1", overrides=ROUND_OPTIONS))
    undisturbed, killed = rounds
    return _kill_and_compare(undisturbed, killed, count, "intervene", "R18 driver killed in a round of interventions")


def _kill_and_compare(undisturbed: Campaign, killed: Campaign, count: int, command: str, fault: str) -> Outcome:
    started = time.monotonic()
    undisturbed.start(command)
    failure = describe_failure(*undisturbed.end(1800))
    whole = time.monotonic() - started
    killed.start(command)
    struck = 0
    while struck < count:
        killed.wait_for(lambda: Store(killed.root).exists(SPEC))
        time.sleep(draw(struck, 4.0, 4.0 + 2 * whole / (count + 1)))
        assert killed.driver is not None
        if killed.driver.poll() is not None:
            break
        killed.kill_driver()
        killed.note_finished()
        struck += 1
        killed.start("resume-whole")
    killed.end(1800)
    differences = find_differences(undisturbed.root, killed.root)
    return killed.outcome(
        fault,
        struck,
        "findings.json equals that of an undisturbed study, except for measured times, rates and memory",
        survived=0 if differences else struck,
        lost=(*failure, *differences),
        all_complete=False,
    )


def hang_up(folder: Path, count: int) -> Outcome:
    """R18: SIGHUP to the driver's whole group, as of a closed terminal: it must end with 129 and give up the study at once."""
    campaign = Campaign(folder, num_trials=max(6, 3 * count), max_epochs=4)
    campaign.start()
    released = 0

    def close_terminal(_: int) -> bool:
        nonlocal released
        assert campaign.driver is not None
        os.killpg(campaign.driver.pid, signal.SIGHUP)
        status, output = campaign.end(120)
        campaign.note_finished()
        study = load_study(Store(campaign.root))
        last = max(name for name in study.store.list_folder(LEASES) if name.isdecimal())
        is_free = not json.loads(study.store.read_text(f"{LEASES}/{last}"))["holder"]
        says_so = status_json(study)["driver"] is None
        left = not wait_until(lambda: not campaign.running_pids(), 20)
        released += status == 128 + signal.SIGHUP and is_free and says_so and not left and "Traceback" not in output
        campaign.start("resume")
        return True

    struck = campaign.strike(count, (0.5, 4.0), close_terminal)
    status, _ = campaign.end()
    seen = f"{released} times exit status 129, the lease released, no driver in `study status`, no trial's process left"
    return campaign.outcome("R18 SIGHUP", struck, seen, survived=released if status == EXIT_DONE else 0)


def hang_set_ups(folder: Path, count: int, timeout_seconds: float = 20.0) -> Outcome:
    """R18: the set-up of a trial's process does not end: it is ended after four times resources.timeout_seconds, and retried."""
    inside = {"trials/00000": f"hang@{count - count // 2}", "trials/00001": f"hang@{count // 2}"}
    campaign = Campaign(folder, retries=10, timeout_seconds=timeout_seconds, inside=json.dumps(inside))
    campaign.start()
    campaign.end(600)
    hung = sum(line.event == "hang" for line in campaign.lines())
    causes = [cause for r in campaign.records().values() for cause in r.retry_causes]
    ended = sum("no end of its set-up for" in cause for cause in causes)
    seen = f"processes ended {4 * timeout_seconds:g} s after the begin of their set-up: {ended}"
    seen += f"; trials that a process that became free took over before: {hung - ended}" if hung > ended else ""
    return campaign.outcome("R18 hang in set-up", hung, seen)


def find_differences(first: str, second: str) -> tuple[str, ...]:
    """Return the fields in which the findings of the studies at two roots differ, measurements of the machine left out."""
    missing = [f"{root} has no findings" for root in (first, second) if not Store(root).exists(FINDINGS)]
    if missing:
        return tuple(missing)
    one, other = (_without_measurements(json.loads(Store(root).read_text(FINDINGS))) for root in (first, second))
    return tuple(f"findings differ in {name}" for name in sorted(one) if one[name] != other.get(name))


def _without_measurements(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in MEASURED}
        if "observed" in kept:
            # Device-seconds beside scores.
            kept["observed"] = [score for _, score in kept["observed"]]
        return {k: _without_measurements(v) for k, v in kept.items()}
    return [_without_measurements(v) for v in value] if isinstance(value, list) else value


def spoil_metrics(folder: Path, count: int) -> Outcome:
    """R9: NaN, inf, -inf as macro-F1 at seeded epochs: the trial ends at that report, and is never best."""
    chooser = random.Random(9)
    struck = [f"{i:05d}" for i in chooser.sample(range(count + 6), count)]
    faults = {i: f"{chooser.choice(['nan', 'inf', '-inf'])}@{chooser.randint(1, 3)}" for i in struck}
    campaign, num_sound = _run_spoiled(folder, count + 6, faults, retries=2)
    survived = sum(
        record.state is TrialState.FAILED
        and record.diverged
        and record.epochs[-1].epoch == int(faults[i].partition("@")[2])
        and "was not a finite number" in record.reason
        for i, record in campaign.records().items()
        if i in faults
    )
    seen = f"each failed at that report; the other {num_sound} of 6 trials completed"
    return campaign.outcome(
        "R9 NaN, inf metric", count, seen, survived=survived, all_complete=False, again_per_attempt=0
    )


def exhaust_memory(folder: Path, count: int) -> Outcome:
    """R10: no memory is left for a trial (RLIMIT_AS): it fails with that reason, the study completes."""
    faults = {f"{i:05d}": "oom@2" for i in range(1, count + 1)}
    campaign, num_sound = _run_spoiled(folder, count + 4, faults, retries=0)
    failed = [r for r in campaign.records().values() if r.state is TrialState.FAILED]
    survived = sum("memory" in r.reason.lower() and len(r.epochs) == 1 for r in failed)
    seen = f"each failed with that reason; the other {num_sound} of 4 trials completed"
    return campaign.outcome(
        "R10 out of memory", count, seen, survived=survived, all_complete=False, again_per_attempt=0
    )


def _run_spoiled(folder: Path, num_trials: int, faults: dict[str, str], retries: int) -> tuple[Campaign, int]:
    """Run a study whose trials have the faults of `JudgedTrainable`; return it and the number of completed trials."""
    inside = json.dumps({f"trials/{i}": fault for i, fault in faults.items()})
    overrides = ("resources.max_failed_fraction=1.0",)
    campaign = Campaign(folder, num_trials=num_trials, retries=retries, inside=inside, overrides=overrides)
    campaign.start()
    campaign.end(600)
    return campaign, sum(r.state is TrialState.COMPLETE for r in campaign.records().values())


def hang_trials(folder: Path, count: int, timeout_seconds: float = 30.0) -> Outcome:
    """R10: a trial's process is stopped (SIGSTOP): it is ended after resources.timeout_seconds, and the trial is retried."""
    campaign = Campaign(folder, num_trials=max(6, count), max_epochs=4, retries=10, timeout_seconds=timeout_seconds)
    campaign.start()
    struck = campaign.strike(count, (1.0, 4.0), lambda pid: kill(pid, signal.SIGSTOP))
    status, _ = campaign.end(600)
    causes = [cause for r in campaign.records().values() for cause in r.retry_causes]
    timed_out = sum("no report for" in cause for cause in causes)
    seen = f"{timed_out} processes ended after {timeout_seconds:g} s without a report"
    return campaign.outcome("R10 hang", struck, seen, survived=min(struck, timed_out) if status == EXIT_DONE else 0)
