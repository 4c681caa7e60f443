"""Faults of processes: a trial killed, hung, out of memory, told to end, reporting what is no number; a driver killed."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

from study.state.paths import FINDINGS, SPEC
from tests.faults.campaign import EXIT_DONE, Campaign, Outcome, draw, is_alive, kill
from trainables.records.record import TrialState
from trainables.records.store import Store

# Of findings.json: what the clock and the machine say, what follows from it alone (a tuning curve's points), and what holds it.
MEASURED = frozenset({
    "checksum", "created", "passport", "study", "warnings", "device_seconds", "peak_memory_bytes", "train_images_per_second",
    "predict_images_per_second", "points_per_device_hour", "cost_ratio", "saved_device_seconds", "saved_fraction", "share",
    "points", "basis",
})  # fmt: skip


def kill_trials(folder: Path, count: int) -> Outcome:
    """R1: kill -9 of a trial's process at seeded times."""
    campaign = Campaign(folder, num_trials=max(6, count // 2), max_epochs=5, retries=10)
    campaign.start()
    struck = _strike(campaign, count, signal.SIGKILL, gap=(1.0, 3.0))
    status, output = campaign.end()
    records = campaign.records()
    lost = campaign.find_losses(expected=campaign.num_trials)
    survived = count if status == EXIT_DONE else 0
    retries = sum(r.attempts - 1 for r in records.values())
    return Outcome(
        fault="R1 trial process killed",
        injected=struck,
        survived=min(struck, survived),
        lost=(*lost, *describe_end(status, output)),
        seen=f"{retries} retries recorded; at most one epoch trained again per kill",
    )


def tell_trials_to_end(folder: Path, count: int, grace_seconds: float = 10.0) -> Outcome:
    """R11: SIGTERM to a trial's process, then kill -9 after the grace; it must have stored a checkpoint and left."""
    campaign = Campaign(folder, num_trials=max(6, count // 2), max_epochs=5, num_images=1000, retries=10)
    campaign.start()
    struck, late, longest = 0, 0, 0.0
    while struck < count and campaign.wait_for(lambda: bool(campaign.running_pids())):
        time.sleep(draw(struck, 0.5, 2.5))
        pids = campaign.running_pids()
        if not pids:
            continue
        pid = random.Random(struck).choice(pids)
        told = time.time()
        if not kill(pid, signal.SIGTERM):
            continue
        struck += 1
        while time.time() < told + grace_seconds and is_alive(pid):
            time.sleep(0.02)
        longest = max(longest, time.time() - told)
        late += is_alive(pid) and kill(pid, signal.SIGKILL)
    status, output = campaign.end()
    # An epoch that was left is gone on with: none is ever trained twice.
    lost = campaign.find_losses(again_per_start=0, expected=campaign.num_trials)
    left = sum(line.event == "left" for line in campaign.lines())
    return Outcome(
        fault="R11 preemption notice",
        injected=struck,
        survived=struck - late if status == EXIT_DONE else 0,
        lost=(*lost, *describe_end(status, output)),
        seen=f"{left} left with a checkpoint, the slowest in {longest:.1f} s of {grace_seconds:g}; no step was trained twice",
    )


def kill_drivers(folder: Path, count: int) -> Outcome:
    """R4: kill -9 of the driver at seeded times, `study resume` each time.

    Two kills of three come after trials have begun to train, the third at any time of the start.
    """
    campaign = Campaign(folder, num_trials=max(6, 3 * count), max_epochs=3)
    campaign.start()
    struck, known, refused = 0, 0, []
    while struck < count:
        alive = campaign.wait_for(
            lambda known=known, struck=struck: len(campaign.lines()) > known or (struck % 3 == 2)  # type: ignore[misc]
        )
        time.sleep(draw(struck, 0.0, 12.0))
        campaign.note_finished()
        if not alive or campaign.driver is None or campaign.driver.poll() is not None:
            break
        campaign.kill_driver()
        campaign.note_finished()
        struck, known = struck + 1, len(campaign.lines())
        campaign.start("resume")
    status, output = campaign.end()
    refused += describe_end(status, output)
    return Outcome(
        fault="R4 driver killed",
        injected=struck,
        survived=struck if status == EXIT_DONE else 0,
        lost=(
            *campaign.find_losses(expected=campaign.num_trials),
            *find_restarted(campaign),
            *refused,
        ),
        seen=f"{len(campaign.finished_before)} trials had finished before a kill; none was run again",
    )


def kill_whole_studies(folder: Path, count: int, preset: str = "") -> Outcome:
    """R4 to the report: kill -9 of the driver at seeded times from launch to report; the findings are those of one undisturbed.

    One trial at a time, so that the order of arrival is fixed, and a fixed cost per epoch, so that the arms' order is. Without a
    `preset` the harness's own small study.
    """
    (folder / "undisturbed").mkdir(parents=True)
    (folder / "killed").mkdir()
    overrides: tuple[str, ...] = ("resources.max_concurrent=1",)
    if preset:
        overrides += ("search.epoch_cost={resnet18=1.0, resnet50=2.5}",)
    undisturbed = Campaign(folder / "undisturbed", preset=preset, overrides=overrides, num_trials=4)
    started = time.monotonic()
    undisturbed.start("run")
    status, output = undisturbed.end(1800)
    whole = time.monotonic() - started
    killed = Campaign(folder / "killed", preset=preset, overrides=overrides, num_trials=4)
    killed.start("run")
    struck = 0
    ends = [describe_end(status, output)]
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
    status, output = killed.end(1800)
    ends.append(describe_end(status, output))
    differences = find_differences(undisturbed.root, killed.root)
    lost = killed.find_losses()
    return Outcome(
        fault="R4 driver killed from launch to report" + (f" ({preset})" if preset else ""),
        injected=struck,
        survived=struck if not differences else 0,
        lost=(*lost, *differences, *find_restarted(killed), *(line for end in ends for line in end)),
        seen="findings.json as that of an undisturbed study, but for measured times, rates and memory",
    )


def find_differences(first: str, second: str) -> tuple[str, ...]:
    """Return where two studies' findings differ, leaving out what was measured of the machine rather than found."""
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
    num_trials = count + 6
    struck = chooser.sample(range(num_trials), count)
    inside = {f"trials/{i:05d}": f"{chooser.choice(['nan', 'inf', '-inf'])}@{chooser.randint(1, 3)}" for i in struck}
    campaign = Campaign(
        folder, num_trials=num_trials, inside=json.dumps(inside), overrides=("resources.max_failed_fraction=1.0",)
    )
    campaign.start()
    status, output = campaign.end(600)
    records = campaign.records()
    survived = sum(
        records[i].state is TrialState.FAILED
        and records[i].diverged
        and records[i].epochs[-1].epoch == int(wanted.partition("@")[2])
        and "was not a finite number" in records[i].reason
        for i, wanted in ((name.rpartition("/")[2], wanted) for name, wanted in inside.items())
        if i in records
    )
    sound = sum(r.state is TrialState.COMPLETE for r in records.values())
    lost = campaign.find_losses(again_per_start=0)
    return Outcome(
        fault="R9 NaN, inf metric",
        injected=count,
        survived=survived,
        lost=(*lost, *describe_end(status, output)),
        seen=f"each failed at that report; the other {sound} of {num_trials - count} trials completed",
    )


def exhaust_memory(folder: Path, count: int) -> Outcome:
    """R10: no memory is left for a trial (RLIMIT_AS): it fails with that reason, the study completes."""
    num_trials = count + 4
    inside = {f"trials/{i:05d}": "oom@2" for i in range(1, count + 1)}
    campaign = Campaign(
        folder,
        num_trials=num_trials,
        retries=0,
        inside=json.dumps(inside),
        overrides=("resources.max_failed_fraction=1.0",),
    )
    campaign.start()
    status, output = campaign.end(600)
    records = campaign.records()
    failed = [r for r in records.values() if r.state is TrialState.FAILED]
    survived = sum("memory" in r.reason.lower() and len(r.epochs) == 1 for r in failed)
    sound = sum(r.state is TrialState.COMPLETE for r in records.values())
    return Outcome(
        fault="R10 out of memory",
        injected=count,
        survived=survived,
        lost=(*campaign.find_losses(again_per_start=0), *describe_end(status, output)),
        seen=f"each failed with that reason; the other {sound} of {num_trials - count} trials completed",
    )


def hang_trials(folder: Path, count: int, timeout_seconds: float = 30.0) -> Outcome:
    """R10: a trial's process stops (SIGSTOP): it is ended after resources.timeout_seconds, and the trial is started again."""
    campaign = Campaign(folder, num_trials=max(6, count), max_epochs=4, retries=10, timeout_seconds=timeout_seconds)
    campaign.start()
    struck = _strike(campaign, count, signal.SIGSTOP, gap=(1.0, 4.0))
    status, output = campaign.end(600)
    causes = [cause for r in campaign.records().values() for cause in r.retry_causes]
    timed_out = sum("no report for" in cause for cause in causes)
    return Outcome(
        fault="R10 hang",
        injected=struck,
        survived=min(struck, timed_out) if status == EXIT_DONE else 0,
        lost=(*campaign.find_losses(expected=campaign.num_trials), *describe_end(status, output)),
        seen=f"{timed_out} processes ended after {timeout_seconds:g} s without a report",
    )


def _strike(campaign: Campaign, count: int, number: signal.Signals, gap: tuple[float, float]) -> int:
    """Send a signal to a running trial's process, `count` times; return how often there was one."""
    struck = 0
    stopped: set[int] = set()
    while struck < count and campaign.wait_for(lambda: bool(set(campaign.running_pids()) - stopped)):
        time.sleep(draw(struck, *gap))
        pids = sorted(set(campaign.running_pids()) - stopped)
        if pids and kill(pid := random.Random(struck).choice(pids), number):
            struck += 1
            stopped.add(pid)
    return struck


def find_restarted(campaign: Campaign) -> tuple[str, ...]:
    """Return trials that were started again after their record had been seen finished.

    A trial that has trained its last epoch when the driver dies, but whose record is not finished, starts once more to finish it.
    """
    seen = {f"trials/{trial_id}": at for trial_id, at in campaign.finished_at.items()}
    return tuple(
        f"{line.trial} was started again after it had finished"
        for line in campaign.lines()
        if line.event == "start" and line.time > seen.get(line.trial, float("inf"))
    )


def describe_end(status: int, output: str) -> tuple[str, ...]:
    """Return what a driver said that did not end well, or that showed a traceback."""
    if status != EXIT_DONE:
        return (f"the driver ended with {status}: {' '.join(output.split())[-300:]}",)
    return ("the driver showed a traceback",) if "Traceback" in output else ()
