"""`TrialTrainable`: a worker of trials as a Ray Tune Trainable, whose reports cross processes as JSON; what it holds of a node.

No other module of this package imports Ray.

The study's files are authoritative; Tune's checkpoints are not used.
"""

# ruff: noqa: E402
# Before the other imports, because a worker of Ray imports this module first.
from trainables.processes import collect_garbage_rarely

collect_garbage_rarely()

import platform
from typing import Any

import ray
from ray import tune

from trainables.records.record import EpochReport
from trainables.trial_settings import TrialSettings
from trainables.trial_worker import TrialWorker

REPORT = "report"


class TrialTrainable(TrialWorker, tune.Trainable):  # type: ignore[misc]
    """A worker of trials in an actor of Ray, which `reset_config` lets serve another trial."""

    def step(self) -> dict[str, str]:
        """Return the report of one epoch as a result of Tune."""
        return encode_report(self.report_epoch())

    def node_name(self) -> str:
        """Return host and Ray node of this process, such as ``gpu-7/3f2a90c1``; a host may run several nodes."""
        return f"{platform.node()}/{ray.get_runtime_context().get_node_id()[:8]}"


def encode_report(report: EpochReport) -> dict[str, str]:
    """Return a report as a result of Tune: its JSON under one key."""
    return {REPORT: report.model_dump_json(exclude_unset=True)}


def decode_report(result: dict[str, Any]) -> EpochReport:
    """Return the report in a result of Tune, from `encode_report`."""
    return EpochReport.model_validate_json(result[REPORT])


def make_trainable(shared: Any, settings: TrialSettings) -> Any:
    """Return the Trainable for `TrialData` in the object store, given its reference."""
    return tune.with_parameters(TrialTrainable, data=shared, settings=settings)


def request_resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """Return the `num_cpus` and `num_gpus` of a trial's arguments as Tune requests them."""
    bundle = {"CPU": config["num_cpus"], "GPU": config["num_gpus"]}
    return tune.PlacementGroupFactory([{k: v for k, v in bundle.items() if v}])
