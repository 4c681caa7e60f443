"""`TrialTrainable`: a worker of trials as a Ray Tune Trainable, whose reports cross processes as JSON; what it holds of a node.

No other module of this package imports Ray.

The study's files are authoritative; Tune's checkpoints are not used.
"""

# ruff: noqa: E402
# Before the other imports, because a worker of Ray imports this module first.
from trainables.processes import collect_garbage_rarely

collect_garbage_rarely()

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune

from trainables.records.record import EpochReport
from trainables.trial_settings import TrialSettings
from trainables.trial_worker import TrialWorker

REPORT = "report"
# Before the node's name in the last line of an error.
ON_NODE = "on node "
# Of a node's id in its name.
NUM_ID_DIGITS = 8


class TrialTrainable(TrialWorker, tune.Trainable):  # type: ignore[misc]
    """A worker of trials in an actor of Ray, which `reset_config` lets serve another trial."""

    def setup(self, config: dict[str, Any], data: Any = None, settings: Any = None) -> None:
        """Start an attempt as `TrialWorker.setup` does; an error names the node."""
        with self._naming_node():
            super().setup(config, data=data, settings=settings)

    def step(self) -> dict[str, str]:
        """Return the report of one epoch as a result of Tune; an error names the node."""
        with self._naming_node():
            return encode_report(self.report_epoch())

    @contextmanager
    def _naming_node(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            error.add_note(f"{ON_NODE}{self.node_name()}")
            raise

    def node_name(self) -> str:
        """Return host and Ray node of this process, such as ``gpu-7/3f2a90c1``; a host may run several nodes."""
        return f"{platform.node()}/{ray.get_runtime_context().get_node_id()[:NUM_ID_DIGITS]}"


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
    """Return the `num_cpus` and `num_gpus` of a trial's arguments as Tune requests them, on none of its `avoided_nodes`."""
    bundle = {"CPU": config["num_cpus"], "GPU": config["num_gpus"]}
    avoided = sorted(config.get("avoided_nodes", ()))
    where = {"bundle_label_selector": [{"ray.io/node-id": f"!in({','.join(avoided)})"}]} if avoided else {}
    return tune.PlacementGroupFactory([{k: v for k, v in bundle.items() if v}], **where)
