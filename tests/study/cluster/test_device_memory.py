"""A packed trial that does not fit into the memory of its GPU tries once more alone on one, and then has failed."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray.cluster_utils import Cluster
from ray.tune.experiment import Trial

from study.cluster.connection import connect_cluster
from study.cluster.tune_run import Asker, DirectedScheduler, run_trials
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.study.simulated import FIXED, make_report, make_spec, make_stage
from trainables.devices import DeviceMemoryError
from trainables.records.record import TrialState
from trainables.tune_adapter import encode_report


class LargeTrainable(tune.Trainable):  # type: ignore[misc]
    """Trains nothing. Trial 00000 needs a whole GPU from its second epoch on, and trial 00001 more than one."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._epoch, self._config = new_config["num_reported_epochs"], new_config
        return True

    def step(self) -> dict[str, str]:
        self._epoch += 1
        held = self._config["num_gpus"]
        if self._epoch >= 2 and (held < 1 or self._config["trial_id"] == "00001"):
            raise DeviceMemoryError(f"too large for {held:g} of a GPU")
        return encode_report(make_report(self._epoch, 0.5, held))


@pytest.mark.ray_cluster
@pytest.mark.long_faults
def test_a_trial_that_does_not_fit_tries_once_more_alone() -> None:
    spec = make_spec(num_trials=2, asha={"enabled": False})
    resources = {"gpu": 0.5, "cpu": 0.5, "device": "cpu", "retries": 5}
    spec = spec.model_copy(update={"resources": spec.resources.model_copy(update=resources)})
    book = MemoryBook()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False})
    try:
        with connect_cluster(nodes.address) as cluster:
            director = SearchDirector(book, spec, FIXED)
            run_trials(
                director, make_stage(2), resources=spec.resources, scratch=cluster.scratch, trainable=LargeTrainable
            )
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
    spec = make_spec()
    director = SearchDirector(MemoryBook(), spec, FIXED)
    record = director.next_trial()
    assert record is not None
    scheduler = DirectedScheduler(Asker(director), spec.resources.model_copy(update={"retries": 0}))

    def refuse(_: object) -> None:
        raise ValueError("Cannot update resources while Trial is running.")

    # As Tune has it where it does not retry: the trial is still "running".
    config = {"trial_id": record.trial_id, "num_gpus": 0.5, "num_cpus": 1}
    trial: Any = SimpleNamespace(status=Trial.RUNNING, config=config, update_resources=refuse, max_failures=0)
    monkeypatch.setattr(scheduler.watch, "take_cause", lambda _: f"{DeviceMemoryError.__name__}: too large")
    scheduler.on_trial_error(None, trial)
    assert config["num_gpus"] == 0.5
    assert "too large" in director.book.get("search", record.trial_id).retry_causes[0]
