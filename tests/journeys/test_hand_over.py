"""A search on Ray with faulty trials: each ends at the faulty report, and nothing waits for it."""

import math
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune

from study.cluster.connection import connect_cluster
from study.cluster.tune_run import run_trials
from study.scheduling.search_director import SearchDirector
from study.state.record_book import RecordBook
from study.views.replaying import replay_search
from tests.study.simulated import FIXED, make_report, make_spec, make_stage
from trainables.records.record import TrialState, best_trials
from trainables.storage.store import Store
from trainables.tune_adapter import encode_report

pytestmark = [pytest.mark.ray_cluster, pytest.mark.timeout(240)]

FAULTS: dict[str, float | None] = {"00001": math.nan, "00002": math.inf, "00004": None}
CRASHES, EXHAUSTS = "00005", "00007"
NUM_TRIALS = 12


def make_trainable() -> type[tune.Trainable]:
    """Return a trainable whose curve rises by trial; five trials go wrong at epoch 2. Made here so that it pickles by value."""

    def exhaust_memory() -> None:
        """Leave the process no room for another tensor, then ask for one."""
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 1_000_000, limits[1]))
        try:
            torch.zeros(100_000_000)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)

    class Faulty(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._trial_id, self._epoch = new_config["trial_id"], 0
            return True

        def step(self) -> dict[str, str]:
            self._epoch += 1
            value: float | None = 0.3 + 0.01 * int(self._trial_id) + 0.05 * self._epoch
            if self._epoch == 2 and self._trial_id == CRASHES:
                raise ValueError("the image is not an image")
            if self._epoch == 2 and self._trial_id == EXHAUSTS:
                exhaust_memory()
            if self._epoch == 2 and self._trial_id in FAULTS:
                value = FAULTS[self._trial_id]
            return encode_report(make_report(self._epoch, value, 1.0))

    return Faulty


def test_injected_faults_end_five_trials_and_the_study_ends_normally(tmp_path: Path) -> None:
    spec = make_spec(num_trials=NUM_TRIALS)
    spec = spec.model_copy(update={"resources": spec.resources.model_copy(update={"retries": 0, "cpu": 0.5})})
    book = RecordBook(Store(tmp_path))
    director = SearchDirector(book, spec, FIXED)
    with connect_cluster(None) as cluster:
        run_trials(
            director, make_stage(3), resources=spec.resources, scratch=cluster.scratch, trainable=make_trainable()
        )
    records = book.of_stage("search")
    assert director.is_exhausted
    assert len(records) == NUM_TRIALS
    failed = {r.trial_id: r for r in records if r.state is TrialState.FAILED}
    assert set(failed) == {*FAULTS, CRASHES, EXHAUSTS}
    for trial_id in FAULTS:
        assert failed[trial_id].reason == "macro_f1 was not a finite number at epoch 2"
        assert len(failed[trial_id].epochs) == 2
    assert "ValueError: the image is not an image" in failed[CRASHES].reason
    assert len(failed[CRASHES].epochs) == 1
    assert "memory" in failed[EXHAUSTS].reason
    for arm in ("resnet18", "resnet50"):
        assert not {r.trial_id for r in best_trials(records, arm)} & set(failed)
        states = [t.state for t in director._samplers[arm].trials]
        assert all(state.is_finished() for state in states)
        assert len(states) == sum(r.config.arm == arm for r in records)
    replay = replay_search(records, {0: spec})
    assert (replay.num_suggestions, replay.difference) == (NUM_TRIALS, "")
