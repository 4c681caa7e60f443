"""Trials and tasks that workers run, with their arguments; the device of a task in its process; and the protocol of workers."""

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from study.scheduling.director import Director
from study.spec.sections import ResourcesSpec
from study.spec.study_spec import StudySpec
from study.state.paths import TrialPaths
from trainables.devices import choose_device
from trainables.processes import share_threads
from trainables.records.record import TrialRecord
from trainables.training.trial_data import TrialData
from trainables.trial_settings import TrialSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One call of a function on a device of its own.

    Attributes:
        arguments: of the function, which also gets the data of the study as `data`.
        cpu: cores that the call holds.
        gpu: GPUs that the call holds.
    """

    arguments: tuple[Any, ...]
    cpu: float
    gpu: float


def make_task(spec: StudySpec, arm: str, *arguments: Any) -> Task:
    """Return a task that holds as much of a device as a trial of the arm does."""
    cpu, gpu = (spec.resources.of_arm(kind, arm) for kind in ("cpu", "gpu"))
    return Task(arguments=arguments, cpu=cpu, gpu=gpu)


_DEVICE: ContextVar[torch.device] = ContextVar("device of the task")


def run_task(function: Callable[..., Any], task: Task, device: str, data: TrialData) -> Any:
    """Return what the function returns for the task, which `find_device` gives the device that it holds.

    Args:
        function: of the task.
        task: with the part of a device that it holds.
        device: as `resources.device`.
        data: of the study.

    Raises:
        UserInputError: If the task holds a GPU but torch finds no CUDA device.
    """
    token = _DEVICE.set(choose_device(device, task.gpu))
    try:
        return function(*task.arguments, data=data)
    finally:
        _DEVICE.reset(token)


def find_device() -> torch.device:
    """Return the device of the task that this process runs; raise LookupError outside of a task."""
    return _DEVICE.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The settings of one run of trials, apart from its director.

    Attributes:
        settings: of the trials.
        max_concurrent: trials that run at once.
        splits_to_predict: splits whose predictions a trial stores at its end.
        on_change: called for the live view: about once a second, or in this process after each epoch, and at the end.
    """

    settings: TrialSettings
    max_concurrent: int
    splits_to_predict: Sequence[str]
    on_change: Callable[[], None]


class Workers(Protocol):
    """Runs trials and tasks on the data of one study."""

    def run_trials(self, director: Director, stage: Stage) -> None:
        """Run the director's trials until it is exhausted, or until an interrupt.

        Raises:
            StudyInterrupted: if a record could not be written. The study on disk is consistent and can be resumed.
        """

    def run_tasks(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Any]:
        """Return what the function returns for each task, in their order."""


MAX_CAUSE_LINES = 12


def shorten_cause(text: str) -> str:
    """Return the last lines of an error's text, without empty ones."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-MAX_CAUSE_LINES:])


def make_trial_arguments(
    record: TrialRecord, network: TrialRecord | None, resources: ResourcesSpec, splits: Sequence[str]
) -> dict[str, Any]:
    """Return the flat dict of `trainables.trial_worker.TrialWorker.setup`.

    Args:
        record: of the trial.
        network: another trial with the same network, see `MemoryBook.find_network`; None if there is none.
        resources: of the study.
        splits: whose predictions the trial stores at its end.
    """
    num_cpus = resources.of_arm("cpu", record.config.arm)
    return {
        "trial_id": record.trial_id,
        "folder": TrialPaths(stage=record.stage, trial_id=record.trial_id).folder,
        "network_folder": TrialPaths(stage=network.stage, trial_id=network.trial_id).folder if network else "",
        "config_json": record.config.canonical_json(),
        "num_cpus": num_cpus,
        "num_gpus": resources.of_arm("gpu", record.config.arm),
        "num_threads": share_threads(num_cpus, record.config.whole("processes")),
        "num_reported_epochs": len(record.epochs),
        "splits_to_predict": list(splits),
    }
