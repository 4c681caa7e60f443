"""Workers on a Ray cluster: trials by Ray Tune, tasks by Ray."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)

from search_spaces.errors import UserInputError, first_line
from study.cluster.tasks import Stage, Task, run_task
from study.cluster.tune_run import run_trials
from study.scheduling.director import Director
from study.spec.study_spec import StudySpec
from study.state.record_book import StudyInterrupted
from trainables.storage.store import StorageError
from trainables.training.trial_data import TrialData
from trainables.tune_adapter import make_trainable

# Errors of tasks whose process or node ended.
LOST = (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError)


class RayWorkers:
    """Workers of one study on a connected Ray cluster, as `study.cluster.tasks.Workers`."""

    def __init__(self, scratch: str, spec: StudySpec, data: TrialData) -> None:
        """Put the data into the cluster's object store, from which all processes of a node read it in place.

        Tune writes to `scratch`.
        """
        self._scratch, self._spec = scratch, spec
        self._shared = ray.put(data)

    def run_trials(self, director: Director, stage: Stage) -> None:
        """Run the director's trials in one Tune run."""
        trainable = make_trainable(self._shared, stage.settings)
        run_trials(director, stage, resources=self._spec.resources, scratch=self._scratch, trainable=trainable)

    def run_tasks(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Any]:
        """Start all tasks at once and return their results as they are asked for."""
        resources = self._spec.resources
        started = [
            ray.remote(num_cpus=task.cpu, num_gpus=task.gpu, max_retries=resources.retries)(run_task)
            .options(name=function.__name__)
            .remote(function, task, resources.device, self._shared)
            for task in tasks
        ]
        return map(_get, started)


def _get(result: ray.ObjectRef) -> Any:
    """Return the result of a task; what a user can act on is raised as in this process, without the task's traceback.

    Raises:
        StudyInterrupted: if the task was lost with its process or node more often than it is retried.
    """
    try:
        return ray.get(result)
    except RayTaskError as error:
        # Ray wraps what unpickling the data raised once more.
        cause = error.cause.client_exc if isinstance(error.cause, RaySystemError) else error.cause
        if isinstance(cause, UserInputError | StorageError):
            raise cause from None
        raise
    except LOST as error:
        raise StudyInterrupted(
            f"a task was lost more often than resources.retries allows ({first_line(error)}); run the command again, and it "
            "goes on with what is finished; if memory ran out, give each task more of a node (resources.cpu)"
        ) from None
