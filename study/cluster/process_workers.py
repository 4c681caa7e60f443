"""Workers in this process: trials and tasks one after the other, without Ray, for a debugger, a notebook or a machine alone."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from study.cluster.tasks import Stage, Task, make_trial_arguments, run_task, shorten_cause
from study.scheduling.director import Director
from study.spec.study_spec import StudySpec
from study.state.record_book import StudyInterrupted, storage_interruption
from trainables.records.record import TrialRecord
from trainables.storage.store import StorageError
from trainables.training.trial_data import TrialData
from trainables.trial_worker import TrialWorker


class ProcessWorkers:
    """The one worker of a study that runs in this process, as `study.cluster.tasks.Workers`."""

    def __init__(self, spec: StudySpec, data: TrialData) -> None:
        """Keep the data."""
        self._spec, self._data = spec, data

    def run_trials(self, director: Director, stage: Stage) -> None:
        """Train the director's trials one after the other; Ctrl-C leaves the rest to `study resume`."""
        worker = _UndisturbedWorker()
        worker.prepare(self._data, stage.settings)
        with own_threads():
            try:
                while (record := director.next_trial()) is not None:
                    _run_trial(director, record, worker, stage, self._spec)
                director.book.wait()
            except KeyboardInterrupt:
                return
            except StorageError as error:
                raise storage_interruption(error) from None
            finally:
                worker.cleanup()
        stage.on_change()

    def run_tasks(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Any]:
        """Call the function for one task after the other, when its result is asked for.

        Where torch finds no CUDA device, models of a study that was trained on GPUs compute on the CPU.
        """
        device = self._spec.resources.device if torch.cuda.is_available() else "cpu"
        for task in tasks:
            with own_threads():
                result = run_task(function, task, device, self._data)
            yield result


@contextmanager
def own_threads() -> Iterator[None]:
    """Give the process its number of threads back, which a trial sets to its own."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _UndisturbedWorker(TrialWorker):
    """A worker that leaves the signals of the process to the command line."""

    def listen_for_notice(self) -> None:
        """Do not listen."""


def _run_trial(director: Director, record: TrialRecord, worker: TrialWorker, stage: Stage, spec: StudySpec) -> None:
    """Train one trial to its end; retry it after errors, as often in a row as `resources.retries` allows."""
    trial_id, failures = record.trial_id, 0
    network = director.book.find_network(record.config)
    arguments = make_trial_arguments(record, network, spec.resources, stage.splits_to_predict)
    furthest = len(record.epochs)
    while True:
        try:
            worker.reset_config(arguments)
            while True:
                report = worker.report_epoch()
                if report.metrics.epoch > furthest:
                    furthest, failures = report.metrics.epoch, 0
                goes_on = director.on_report(trial_id, report)
                stage.on_change()
                if not goes_on:
                    return
        except (StorageError, StudyInterrupted):
            raise
        except Exception as error:
            failures += 1
            director.on_error(trial_id, shorten_cause("".join(traceback.format_exception(error))))
        if director.problem or failures > spec.resources.retries:
            director.on_retries_exhausted(trial_id)
            return
