"""A search and its trainings as bare loops run at the same time, each on a core of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch

from benchmarks.performance import paired_study, study_ratios
from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
needs_two_cores = pytest.mark.skipif(len(CORES) < 2, reason="P1-long needs Linux and two cores")


@pytest.fixture
def _two_threads() -> Iterator[None]:
    """Let this process compute with two threads, and with the images of the search loaded, as before the second pair."""
    before = torch.get_num_threads()
    study_ratios.load_data(300)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@needs_two_cores
@pytest.mark.usefixtures("_two_threads")
def test_a_small_pair_trains_the_same_configurations_on_the_other_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray, which the search has in the benchmark."""
    trained, start = [], subprocess.run

    def train(config: TrialConfig, num_images: int) -> list[float]:
        trained.append((config, os.sched_getaffinity(0)))
        seconds = study_ratios.train_one(config, num_images)
        assert torch.get_num_threads() == 1
        return seconds

    monkeypatch.setattr(subprocess, "run", lambda command, **options: start([*command, "--local"], **options))
    monkeypatch.setattr(paired_study, "train_one", train)
    monkeypatch.setattr(study_ratios, "SPEC", study_ratios.SPEC.replace("max_epochs = 5", "max_epochs = 1"))
    found = paired_study.run_pair(CORES[1], CORES[0], num_images=300, num_trials=2)
    assert [config for config, _ in trained] == [record.config for record in found.records]
    assert {core for _, cores in trained for core in cores} == {CORES[0]}
    assert len(found.epochs) == len(found.bare_epochs) == 2
    assert found.study > sum(found.epochs)
    assert found.bare >= sum(found.bare_epochs) > 0
    # What the pair set, it has set back.
    assert (sorted(os.sched_getaffinity(0)), torch.get_num_threads()) == (CORES, 2)


@needs_two_cores
def test_the_searchs_processes_stay_on_their_core(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def launch(_: int, __: str, overrides: tuple[str, ...]) -> float:
        assert overrides == ("search.num_trials=2", "resources.max_concurrent=1")
        command = "import os; print(sorted(os.sched_getaffinity(0)))"
        seen.append(subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True).stdout)
        return 1.0

    monkeypatch.setattr(paired_study, "launch_search", launch)
    monkeypatch.setattr(paired_study, "follow_search", lambda *_: iter(()))
    monkeypatch.setattr(paired_study, "read_search", lambda _: [])
    paired_study.run_pair(CORES[1], CORES[0], num_images=600, num_trials=2)
    assert seen == [f"[{CORES[1]}]\n"]


@needs_two_cores
def test_both_cores_have_the_search_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    records = [SimpleNamespace(epochs=[SimpleNamespace(train_seconds=4.0, part_seconds=())], device_seconds=950.0)]

    def run_pair(study: int, bare: int, num_images: int, num_trials: int) -> paired_study.PairedTimes:
        asked.append((study, bare, num_images, num_trials))
        seconds = 1000.0 if len(asked) == 1 else 1040.0
        return paired_study.PairedTimes(study=seconds, bare=1000.0, bare_epochs=(3.0,), records=records)

    monkeypatch.setattr(paired_study, "run_pair", run_pair)
    (ratio,) = paired_study.measure_long_study()
    assert asked == [(CORES[0], CORES[1], 25_000, 7), (CORES[1], CORES[0], 25_000, 7)]
    assert ratio.values == (1.0, 1.04)
    assert (ratio.median, ratio.verdict) == (pytest.approx(1.02), "met")
    assert "study 1000 s, bare loops 1000 s; an epoch took 4.00 s in the study, 3.00 s in bare loops" in ratio.note
    assert "Outside of trials (Ray, processes, the last trials) 50 s" in ratio.note


def test_one_core_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    with pytest.raises(UserInputError, match="this process may use one; measure P1 here"):
        paired_study.choose_cores()


def test_a_search_that_fails_or_ends_early_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    failed, search = Future[float](), Future[float]()
    failed.set_exception(subprocess.CalledProcessError(2, "study"))
    monkeypatch.setattr(paired_study, "read_search", lambda _: [])
    with pytest.raises(subprocess.CalledProcessError):
        list(paired_study.follow_search("nowhere", failed, 2))
    search.set_result(1.0)
    monkeypatch.setattr(paired_study, "read_search", lambda _: [SimpleNamespace(trial_id="0")])
    with pytest.raises(RuntimeError, match="ended after 1 of 2 trials"):
        list(paired_study.follow_search("nowhere", search, 2))
