"""Stock Ray Tune (OptunaSearch, ASHAScheduler, `Tuner.restore`) under the same faults R4, R6 and R9."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.campaign import ROOT, Outcome, draw, kill_session

DRIVER = Path(__file__).with_name("stock_driver.py")


def kill_drivers(folder: Path, count: int) -> Outcome:
    """R4, stock: kill -9 of the driver, then `Tuner.restore`; what the trials' own log says of finished trials."""
    lost, survived, seen = [], 0, {"rerun": 0, "forgotten": 0}
    for number in range(count):
        place = folder / f"kill-{number}"
        place.mkdir()
        first = _start(place, "fit")
        _wait_for_lines(place / "log", 6)
        time.sleep(draw(number, 0.0, 16.0))
        _kill(first)
        before = _lines(place / "log")
        finished = {x["trial"] for x in before if x["event"] == "end"}
        second = _start(place, "restore")
        second.wait(280)
        after = _lines(place / "log")[len(before) :]
        rerun = {x["config"] for x in after if x["event"] == "epoch"} & {
            x["config"] for x in before if x["event"] == "end"
        }
        told = json.loads((place / "result.json").read_text()) if (place / "result.json").exists() else {"trials": []}
        forgotten = finished - set(told["trials"])
        seen["rerun"] += len(rerun)
        seen["forgotten"] += len(forgotten)
        survived += not rerun and not forgotten and bool(told["trials"])
        lost += [f"kill {number}: finished trial {t} is not in the results" for t in sorted(forgotten)]
        lost += [f"kill {number}: a finished trial was run again" for _ in rerun]
    return Outcome(
        fault="R4 driver killed, stock Ray Tune",
        injected=count,
        survived=survived,
        lost=tuple(lost),
        seen=f"{seen['forgotten']} finished trials missing from the results, {seen['rerun']} trained again",
        is_stock=True,
    )


def damage_state(folder: Path, count: int) -> Outcome:
    """R6, stock: the newest experiment state is cut off; what `Tuner.restore` makes of it."""
    place = folder / "whole"
    place.mkdir()
    _start(place, "fit-short").wait(280)
    told = json.loads((place / "result.json").read_text())
    (state,) = sorted(place.rglob("experiment_state-*.json"))[-1:]
    whole = state.read_bytes()
    chooser = random.Random(6)
    silent, refused, kept = 0, 0, 0
    for _ in range(count):
        state.write_bytes(whole[: chooser.randrange(1, len(whole))])
        (place / "result.json").unlink(missing_ok=True)
        code = _start(place, "restore-short").wait(280)
        result = json.loads((place / "result.json").read_text()) if (place / "result.json").exists() else None
        if result is None or code:
            refused += 1
        elif set(told["trials"]) <= set(result["trials"]):
            kept += 1
        else:
            silent += 1
        state.write_bytes(whole)
    return Outcome(
        fault="R6 experiment state cut off, stock Ray Tune",
        injected=count,
        survived=refused + kept,
        lost=tuple(["restored without the finished trials, exit status 0"] * silent),
        seen=f"{refused} refused, {kept} kept everything, {silent} began anew and said so in a log line only",
        is_stock=True,
    )


def spoil_metrics(folder: Path, count: int) -> Outcome:
    """R9, stock: NaN, inf, -inf as the metric at seeded epochs of four trials in five."""
    place = folder / "nan"
    place.mkdir()
    process = _start(place, "fit-nan", {"STOCK_SPOILED_SHARE": "0.8", "STOCK_TRIALS": str(round(count / 0.8))})
    try:
        process.wait(400)
        ended = True
    except subprocess.TimeoutExpired:
        _kill(process)
        ended = False
    lines = _lines(place / "log")
    spoiled = {x["trial"]: x["epoch"] for x in lines if x["event"] == "epoch" and x["spoiled"]}
    last = {x["trial"]: x["epoch"] for x in lines if x["event"] == "epoch"}
    stopped = sum(last[trial] == epoch for trial, epoch in spoiled.items())
    told = json.loads((place / "result.json").read_text()) if (place / "result.json").exists() else {}
    best = told.get("best")
    return Outcome(
        fault="R9 NaN, inf metric, stock Ray Tune",
        injected=len(spoiled),
        survived=told.get("failed", 0),
        lost=() if ended else ("the run did not end in 400 s",),
        seen=(
            f"{stopped} of {len(spoiled)} stopped there (a rung or the last epoch), {told.get('failed', 0)} failed, "
            f"the others went on; best result {best}"
        ),
        is_stock=True,
    )


def _start(place: Path, mode: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(DRIVER), mode, str(place)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", **(environment or {})},
        stdout=(place / "output").open("ab"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    kill_session(process.pid)


def _wait_for_lines(log: Path, number: int) -> None:
    until = time.monotonic() + 120
    while len(_lines(log)) < number:
        assert time.monotonic() < until, "stock Ray Tune did not start"
        time.sleep(0.1)


def _lines(log: Path) -> list[dict[str, object]]:
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text().rpartition("\n")[0].splitlines()]
