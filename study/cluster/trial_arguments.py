"""The arguments with which a worker trains a trial."""

from collections.abc import Sequence
from typing import Any

from study.spec.sections import ResourcesSpec
from study.state.paths import TrialPaths
from trainables.processes import share_threads
from trainables.records.record import TrialRecord


def make_trial_arguments(record: TrialRecord, resources: ResourcesSpec, splits: Sequence[str]) -> dict[str, Any]:
    """Return the flat dict of `trainables.trial_worker.TrialWorker.setup`.

    Args:
        record: of the trial.
        resources: of the study.
        splits: whose predictions the trial stores at its end.
    """
    num_cpus = resources.of_arm("cpu", record.config.arm)
    return {
        "trial_id": record.trial_id,
        "folder": TrialPaths(stage=record.stage, trial_id=record.trial_id).folder,
        "config_json": record.config.canonical_json(),
        "num_cpus": num_cpus,
        "num_gpus": resources.of_arm("gpu", record.config.arm),
        "num_threads": share_threads(num_cpus, record.config.whole("processes")),
        "num_reported_epochs": len(record.epochs),
        "splits_to_predict": list(splits),
    }
