"""Stock Ray Tune (OptunaSearch, ASHAScheduler, `Tuner.restore`) under the same faults R4, R6 and R9."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults.campaign import ROOT, Outcome, draw
from tests.faults.process_tree import kill_session, wait_until

DRIVER = Path(__file__).with_name("stock_driver.py")


def kill_drivers(folder: Path, count: int) -> Outcome:
    """R4, stock: SIGKILL of the driver, then `Tuner.restore`; the trials' own log has the finished trials."""
    lost, survived, num_rerun, num_forgotten = [], 0, 0, 0
    for number in range(count):
        place = folder / f"kill-{number}"
        place.mkdir()
        first = _start(place, "fit")
        assert wait_until(lambda place=place: len(_lines(place)) >= 6, 120), "stock Ray Tune did not start"  # type: ignore[misc]
        time.sleep(draw(number, 0.0, 16.0))
        _kill(first)
        before = _lines(place)
        finished = [x for x in before if x["event"] == "end"]
        _start(place, "restore").wait(280)
        trained = {x["config"] for x in _lines(place)[len(before) :] if x["event"] == "epoch"}
        rerun = trained & {x["config"] for x in finished}
        trials = (_result(place) or {"trials": []})["trials"]
        forgotten = {x["trial"] for x in finished} - set(trials)
        num_rerun, num_forgotten = num_rerun + len(rerun), num_forgotten + len(forgotten)
        survived += not rerun and not forgotten and bool(trials)
        lost += [f"kill {number}: finished trial {t} is not in the results" for t in sorted(forgotten)]
        lost += [f"kill {number}: a finished trial was trained again" for _ in rerun]
    return Outcome(
        fault="R4 driver killed, stock Ray Tune",
        injected=count,
        survived=survived,
        lost=tuple(lost),
        seen=f"{num_forgotten} finished trials missing from the results, {num_rerun} trained again",
        is_stock=True,
    )


def damage_state(folder: Path, count: int) -> Outcome:
    """R6, stock: the newest experiment state is truncated, then restored by `Tuner.restore`."""
    place = folder / "whole"
    place.mkdir()
    _start(place, "fit-short").wait(280)
    trials = set(json.loads((place / "result.json").read_text())["trials"])
    (state,) = sorted(place.rglob("experiment_state-*.json"))[-1:]
    whole = state.read_bytes()
    chooser = random.Random(6)
    silent, refused, kept = 0, 0, 0
    for _ in range(count):
        state.write_bytes(whole[: chooser.randrange(1, len(whole))])
        (place / "result.json").unlink(missing_ok=True)
        code = _start(place, "restore-short").wait(280)
        result = _result(place)
        is_refused = result is None or code != 0
        is_kept = not is_refused and trials <= set((result or {})["trials"])
        refused, kept, silent = refused + is_refused, kept + is_kept, silent + (not is_refused and not is_kept)
        state.write_bytes(whole)
    return Outcome(
        fault="R6 experiment state cut off, stock Ray Tune",
        injected=count,
        survived=refused + kept,
        lost=("restored without the finished trials, exit status 0",) * silent,
        seen=f"{refused} refused, {kept} kept everything, {silent} began anew with no more than a line in the log",
        is_stock=True,
    )


def spoil_metrics(folder: Path, count: int) -> Outcome:
    """R9, stock: NaN, inf, -inf as the metric at seeded epochs of four trials in five."""
    place = folder / "nan"
    place.mkdir()
    process = _start(place, "fit-nan", {"STOCK_SPOILED_SHARE": "0.8", "STOCK_TRIALS": str(round(count / 0.8))})
    has_ended = bool(wait_until(lambda: process.poll() is not None, 400))
    _kill(process)
    epochs = [x for x in _lines(place) if x["event"] == "epoch"]
    spoiled = {x["trial"]: x["epoch"] for x in epochs if x["spoiled"]}
    last = {x["trial"]: x["epoch"] for x in epochs}
    stopped = sum(last[trial] == epoch for trial, epoch in spoiled.items())
    result = _result(place) or {}
    failed = result.get("failed", 0)
    return Outcome(
        fault="R9 NaN, inf metric, stock Ray Tune",
        injected=len(spoiled),
        survived=failed,
        lost=() if has_ended else ("the run did not end in 400 s",),
        seen=f"{stopped} of {len(spoiled)} stopped there (a rung or the last epoch), {failed} failed, the others continued; "
        f"best result {result.get('best')}",
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


def _result(place: Path) -> dict[str, Any] | None:
    file = place / "result.json"
    return json.loads(file.read_text()) if file.exists() else None


def _lines(place: Path) -> list[dict[str, Any]]:
    log = place / "log"
    text = log.read_text().rpartition("\n")[0] if log.exists() else ""
    return [json.loads(line) for line in text.splitlines()]
