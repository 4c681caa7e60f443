"""Trials that hang are killed and retried; the set-up of a process and the wait for devices do not count."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune

from study.cluster.connection import connect_cluster
from study.cluster.tune_run import HangWatch, run_trials
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.study.simulated import FIXED, make_report, make_spec, make_stage
from trainables.records.record import TrialState
from trainables.tune_adapter import encode_report

TIMEOUT = 3.0


class SlowTrainable(tune.Trainable):  # type: ignore[misc]
    """Trains nothing. The first process of each trial is slow: trial 00000 in its set-up, trial 00001 in its second epoch."""

    def setup(self, config: dict[str, Any], marks: Path | None = None) -> None:
        assert marks is not None
        self._marks = marks
        self._epoch, self._config = config["num_reported_epochs"], config
        self._sleep_once("00000", at_epoch=0)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._epoch, self._config = new_config["num_reported_epochs"], new_config
        return True

    def step(self) -> dict[str, str]:
        self._epoch += 1
        self._sleep_once("00001", at_epoch=2)
        return encode_report(make_report(self._epoch, 0.5, 0.1))

    def _sleep_once(self, trial_id: str, at_epoch: int) -> None:
        mark = self._marks / trial_id
        if self._config["trial_id"] == trial_id and self._epoch == at_epoch and not mark.exists():
            mark.touch()
            time.sleep(4 * TIMEOUT)


@pytest.mark.ray_cluster
def test_slow_set_up_is_waited_for_and_a_trial_that_hangs_is_retried(tmp_path: Path) -> None:
    spec = make_spec(num_trials=2, asha={"enabled": False})
    spec = spec.model_copy(update={"resources": spec.resources.model_copy(update={"timeout_seconds": TIMEOUT})})
    book = MemoryBook()
    with connect_cluster(None) as cluster:
        trainable = tune.with_parameters(SlowTrainable, marks=tmp_path)
        director = SearchDirector(book, spec, FIXED)
        run_trials(director, make_stage(2), resources=spec.resources, scratch=cluster.scratch, trainable=trainable)
    slow, hung = book.of_stage("search")
    assert [slow.state, hung.state] == [TrialState.COMPLETE] * 2
    assert (slow.attempts, slow.retry_causes) == (1, ())
    assert hung.attempts == 2
    assert f"no report for {TIMEOUT:g} s" in hung.retry_causes[0]
    assert [e.epoch for e in hung.epochs] == [1, 2, 3, 4, 5, 6]


def test_clock_starts_when_the_process_is_ready_and_again_at_each_report(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []
    now = 0.0
    monkeypatch.setattr(ray, "kill", killed.append)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = HangWatch(10.0)
    trial: Any = SimpleNamespace(trial_id="a", temporary_state=SimpleNamespace(ray_actor=None))
    watch.kill_hung([trial])
    now = 100.0
    trial.temporary_state.ray_actor = "actor"
    watch.kill_hung([trial])
    now = 109.0
    watch.kill_hung([trial])
    watch.hear(trial)
    now = 118.0
    watch.kill_hung([trial])
    assert killed == []
    assert watch.take_cause(trial) == ""
    now = 120.0
    for _ in range(2):
        watch.kill_hung([trial])
    assert killed == ["actor"]
    assert "no report for 10 s" in watch.take_cause(trial)
    watch.reset(trial)
    trial.temporary_state.ray_actor = None
    now = 500.0
    watch.kill_hung([trial])
    trial.temporary_state.ray_actor = "next actor"
    watch.kill_hung([trial])
    assert killed == ["actor"]
