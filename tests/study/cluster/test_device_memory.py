"""A packed trial that does not fit into the memory of its GPU tries once more alone on one, and then has failed."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.cluster_utils import Cluster
from ray.tune.experiment import Trial

from study.cluster.connection import connect_cluster
from study.cluster.tune_run import Asker, DirectedScheduler, run_trials
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.study.cluster.test_tune_run import make_spec, make_trainable
from tests.study.simulated import FIXED, make_stage
from trainables.devices import DeviceMemoryError
from trainables.records.record import TrialState


@pytest.mark.ray_cluster
@pytest.mark.long_faults
def test_a_trial_that_does_not_fit_tries_once_more_alone() -> None:
    """Trial 00000 needs a whole GPU from its second epoch on, and trial 00001 more than one."""

    def train(trial_id: str, epoch: int, held: float) -> float:
        if epoch >= 2 and (held < 1 or trial_id == "00001"):
            raise DeviceMemoryError(f"too large for {held:g} of a GPU")
        return 0.5

    resources = {"gpu": 0.5, "cpu": 0.5, "device": "cpu", "retries": 5}
    spec = make_spec(resources, num_trials=2, pruning="none")
    book = MemoryBook()
    head = {"num_cpus": 1, "num_gpus": 1, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        with connect_cluster(nodes.address) as cluster:
            director, trainable = SearchDirector(book, spec, FIXED), make_trainable(train)
            run_trials(director, make_stage(2), resources=spec.resources, scratch=cluster.scratch, trainable=trainable)
    finally:
        nodes.shutdown()
    fits, too_large = book.of_stage("search")
    assert [fits.state, too_large.state] == [TrialState.COMPLETE, TrialState.FAILED]
    assert fits.attempts == 2
    assert "too large for 0.5 of a GPU" in fits.retry_causes[0]
    # The attempt that is alone holds a whole GPU, which is counted: it trains from its start, since no checkpoint was kept.
    assert fits.epochs[0].device_seconds == 0.5
    assert fits.epochs[-1].device_seconds - fits.epochs[-2].device_seconds == 1.0
    assert "too large for 1 of a GPU" in too_large.reason
    assert len(too_large.retry_causes) == 2


def test_a_trial_without_a_retry_left_fails_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    director = SearchDirector(MemoryBook(), make_spec({}), FIXED)
    record = director.next_trial()
    assert record is not None
    scheduler = DirectedScheduler(Asker(director), make_spec({"retries": 0}).resources)

    def refuse(_: object) -> None:
        raise ValueError("Cannot update resources while Trial is running.")

    # As Tune has it where it does not retry: the trial is still "running".
    config = {"trial_id": record.trial_id, "num_gpus": 0.5, "num_cpus": 1}
    trial: Any = SimpleNamespace(status=Trial.RUNNING, config=config, update_resources=refuse, max_failures=0)
    monkeypatch.setattr(scheduler.watch, "take_cause", lambda _: f"{DeviceMemoryError.__name__}: too large")
    scheduler.on_trial_error(None, trial)
    assert config["num_gpus"] == 0.5
    assert "too large" in director.book.get("search", record.trial_id).retry_causes[0]
