"""Workers on a Ray cluster: trials by Ray Tune, tasks by Ray."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError

from search_spaces.errors import UserInputError
from study.cluster.connection import Cluster
from study.cluster.tune_run import TuneRun, run_trials
from study.cluster.workers import Stage, Task
from study.scheduling.director import Director
from study.spec.study_spec import StudySpec
from trainables.training.loop import TrialData
from trainables.tune_adapter import make_trainable, share


class RayWorkers:
    """Workers of one study on a connected Ray cluster, as `study.cluster.workers.Workers`."""

    def __init__(self, cluster: Cluster, spec: StudySpec, data: TrialData) -> None:
        """Put the data into the cluster's object store."""
        self._cluster, self._spec = cluster, spec
        self._shared = share(data)

    def run_trials(self, director: Director, stage: Stage) -> None:
        """Run the director's trials in one Tune run."""
        run = TuneRun(
            spec=self._spec,
            cluster=self._cluster,
            max_concurrent=stage.max_concurrent,
            trainable=make_trainable(self._shared, stage.settings),
            splits_to_predict=stage.splits_to_predict,
            on_change=stage.on_change,
        )
        run_trials(director, run)

    def run_tasks(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Any]:
        """Start all tasks at once and return their results as they are asked for."""
        retries = self._spec.resources.retries
        started = [
            ray.remote(num_cpus=task.cpu, num_gpus=task.gpu, max_retries=retries)(function).remote(
                *task.arguments, data=self._shared
            )
            for task in tasks
        ]
        return map(_get, started)


def _get(result: ray.ObjectRef) -> Any:
    """Return the result of a task; what a user can act on is raised as in this process, without the task's traceback."""
    try:
        return ray.get(result)
    except RayTaskError as error:
        if isinstance(error.cause, UserInputError):
            raise error.cause from None
        raise
