"""A process that starts slowly keeps its trial: another one that becomes free meanwhile takes a new trial."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from study.cluster.connection import connect_cluster
from study.cluster.tune_run import run_trials
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.study.simulated import FIXED, make_report, make_spec, make_stage
from trainables.tune_adapter import encode_report

# Enough for the first process until the second one is there, also on a busy machine.
NUM_TRIALS = 14


def make_trainable(folder: Path) -> type[tune.Trainable]:
    """Return a trainable of short trials; all processes but the first one start slowly. Made here: it pickles by value."""

    class SlowStart(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            (folder / f"process {os.getpid()}").touch()
            time.sleep(0.0 if config["trial_id"] == "00000" else 3.0)
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._epoch, self._trial_id = 0, new_config["trial_id"]
            return True

        def step(self) -> dict[str, str]:
            time.sleep(0.2)
            self._epoch += 1
            (folder / f"trial {self._trial_id} {os.getpid()}").touch()
            return encode_report(make_report(self._epoch, 0.5, 1.0))

    return SlowStart


@pytest.mark.ray_cluster
@pytest.mark.timeout(240)
def test_a_process_that_starts_slowly_is_not_replaced_by_one_that_is_free(tmp_path: Path) -> None:
    spec = make_spec(num_trials=NUM_TRIALS, asha={"enabled": False})
    spec = spec.model_copy(update={"resources": spec.resources.model_copy(update={"cpu": 0.5})})
    director = SearchDirector(MemoryBook(), spec, FIXED)
    with connect_cluster(None) as cluster:
        run_trials(
            director,
            make_stage(2),
            resources=spec.resources,
            scratch=cluster.scratch,
            trainable=make_trainable(tmp_path),
        )
    places = [path.name.split() for path in tmp_path.iterdir()]
    processes = {place[1] for place in places if place[0] == "process"}
    users = {place[2]: place[1] for place in places if place[0] == "trial"}
    assert len(processes) == 2, "every process that was started runs trials"
    assert set(users) == processes
