"""The device of a task, in the process that runs it."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch

from study.cluster.tasks import Task
from trainables.devices import choose_device
from trainables.training.trial_data import TrialData

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
