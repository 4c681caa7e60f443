"""A trial that Tune drops although it has retries left is queued again and does not fail."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from study.cluster.tune_run import Asker, DirectedScheduler, DirectedSearcher
from study.scheduling.director import ConfirmationDirector, Director, want
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.study.simulated import FIXED, drive, learning_curve, make_report, make_spec
from trainables.records.record import TrialState, best_trials


def make_directors(kind: str) -> tuple[Director, MemoryBook]:
    book = MemoryBook()
    search = SearchDirector(book, make_spec(num_trials=2), FIXED)
    if kind == "search":
        return search, book
    drive(search)
    return ConfirmationDirector(book, want(best_trials(book.of_stage("search"), "resnet18")[0], (1, 2))), book


@pytest.mark.parametrize("kind", ["search", "confirmation"])
def test_dropped_trial_is_queued_again_and_completes(kind: str) -> None:
    director, book = make_directors(kind)
    asker, resources = Asker(director), make_spec().resources
    searcher, scheduler = DirectedSearcher(asker, resources, ("search",)), DirectedScheduler(asker, resources)
    configs = [searcher.suggest(name) for name in ("tune-a", "tune-b")]
    assert all(isinstance(config, dict) for config in configs)
    record_id = configs[0]["trial_id"]
    assert searcher.suggest("tune-c") is None
    scheduler.on_trial_error(None, make_trial("tune-a", Trial.PENDING, configs[0]))
    searcher.on_trial_complete("tune-a", error=True)
    record = book.get(kind, record_id)
    assert record.state is TrialState.RUNNING
    assert record.retry_causes == ()
    again: Any = searcher.suggest("tune-d")
    assert again["trial_id"] == record_id
    assert book.get(kind, record_id).attempts == record.attempts + 1
    for trial_id in (record_id, configs[1]["trial_id"]):
        for epoch in range(1, 7):
            director.on_report(trial_id, make_report(epoch, learning_curve(book.get(kind, trial_id), epoch), 1.0))
        assert book.get(kind, trial_id).state is TrialState.COMPLETE
    assert searcher.suggest("tune-e") is None
    searcher.on_trial_complete("tune-b")
    searcher.on_trial_complete("tune-d")
    assert searcher.suggest("tune-f") == Searcher.FINISHED


@pytest.mark.parametrize("kind", ["search", "confirmation"])
def test_trial_without_retries_left_fails(kind: str) -> None:
    director, book = make_directors(kind)
    asker, resources = Asker(director), make_spec().resources
    searcher, scheduler = DirectedSearcher(asker, resources, ("search",)), DirectedScheduler(asker, resources)
    config: Any = searcher.suggest("tune-a")
    scheduler.on_trial_error(None, make_trial("tune-a", Trial.RUNNING, config))
    searcher.on_trial_complete("tune-a", error=True)
    assert book.get(kind, config["trial_id"]).state is TrialState.FAILED


def make_trial(trial_id: str, status: str, config: object) -> Any:
    return SimpleNamespace(
        trial_id=trial_id, status=status, config=config, error_file=None, max_failures=2, num_failures=1
    )
