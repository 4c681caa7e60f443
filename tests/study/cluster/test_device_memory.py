"""A packed trial that does not fit into its GPU tries once more alone on one; one whose node fails goes on elsewhere."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.tune.experiment import Trial

from study.cluster import tune_run
from study.cluster.connection import connect_cluster
from study.cluster.tune_run import Asker, DirectedScheduler, run_trials
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.study.cluster.test_tune_run import make_spec, make_trainable
from tests.study.simulated import FIXED, make_stage
from trainables.devices import DeviceMemoryError
from trainables.records.record import TrialState
from trainables.tune_adapter import TrialTrainable, decode_report, encode_report


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


@pytest.mark.ray_cluster
@pytest.mark.timeout(240)
def test_a_node_whose_gpu_fails_every_start_is_left_out_and_the_study_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes of one logical GPU each; every process on the second one fails at once, and one failure excludes it."""
    monkeypatch.setattr(tune_run, "MAX_FAILED_TRIALS", 1)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 1, "include_dashboard": False})
    bad = nodes.add_node(num_cpus=4, num_gpus=1).node_id
    base = make_trainable(lambda *_: time.sleep(0.1) or 0.5)

    class OnNode(base):  # type: ignore[misc, valid-type]
        node_name, _naming_node = TrialTrainable.node_name, TrialTrainable._naming_node

        def setup(self, config: dict[str, Any]) -> None:
            with self._naming_node():
                if ray.get_runtime_context().get_node_id() == bad:
                    raise ValueError("CUDA error: the GPU has fallen off the bus")
                super().setup(config)

        def step(self) -> dict[str, str]:
            return encode_report(decode_report(super().step()).model_copy(update={"node": self.node_name()}))

    spec = make_spec({"gpu": 1.0, "cpu": 1.0, "device": "cpu", "retries": 1}, num_trials=5, pruning="none")
    book = MemoryBook()
    try:
        with connect_cluster(nodes.address) as cluster:
            director = SearchDirector(book, spec, FIXED)
            run_trials(director, make_stage(2), resources=spec.resources, scratch=cluster.scratch, trainable=OnNode)
    finally:
        nodes.shutdown()
    records = book.of_stage("search")
    assert [record.state for record in records] == [TrialState.COMPLETE] * 5
    causes = [cause for record in records for cause in record.retry_causes]
    # Another one may have begun to start there by then.
    assert 1 <= len(causes) <= 2
    assert all(f"/{bad[:8]})" in cause for cause in causes)
    assert not any(record.node.endswith(bad[:8]) for record in records)
