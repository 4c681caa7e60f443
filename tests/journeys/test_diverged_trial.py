"""A confirmation trial that diverges stores the weights of its last finite epoch, with which it predicts the test split."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from study.cluster.tasks import Task, run_task
from study.confirmation import trained_models
from study.state.paths import TrialPaths
from tests.built_values import record_of
from tests.trainables.training.test_checkpoint import DIVERGED, METRICS, make_checkpoint
from tests.trainables.training.test_loop import CONFIG, CPU, DATA, change
from trainables.records.record import RECORD, TrialRecord, TrialState
from trainables.records.trial_files import RESULTS, WEIGHTS, CheckpointWriter, TrialFiles
from trainables.storage.store import Store
from trainables.training.epoch_metrics import EpochMetrics, Stopwatch
from trainables.training.loop import TrainingRun
from trainables.trial_worker import TrialWorker

RUNNING = record_of(CONFIG, stage="confirmation", state=TrialState.RUNNING)


class PoisonedRun(TrainingRun):
    """A training run whose weights turn to NaN before its second epoch."""

    poisoned_from = 1

    def run_epoch(self, **options: Any) -> EpochMetrics:
        if self.epoch == self.poisoned_from:
            torch.nn.init.constant_(self.model.fc.weight, torch.nan)  # type: ignore[arg-type, union-attr]
        return super().run_epoch(**options)


def make_worker(folder: Path, splits: tuple[str, ...], run: Any) -> TrialWorker:
    """Return a worker with a run that diverges."""
    files = TrialFiles(Store(folder))
    files.store.write_text(RECORD, RUNNING.to_json())
    worker = TrialWorker.__new__(TrialWorker)
    worker._data, worker._run = DATA, run
    worker._trial_config, worker._num_gpus = CONFIG, 0.0
    worker._files, worker._attempt, worker._writer = files, 1, CheckpointWriter(files, 1)
    worker._splits_to_predict = splits
    worker._num_reported, worker._num_devices, worker._notes = 0, 1.0, ()
    worker._events, worker._should_exit = None, False
    worker._counted_until = worker._idle_since = time.perf_counter()
    return worker


def restored_run(*history: EpochMetrics) -> Any:
    """Return a run that was restored from a checkpoint with these epochs, which it reports without training."""
    stopwatch = Stopwatch(CPU, enabled=False)
    return SimpleNamespace(
        history=history, is_finished=False, stopwatch=stopwatch, device=CPU, num_parameters=1, images_on=""
    )


@pytest.fixture
def no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrialWorker, "_write_events", lambda *_: None)
    monkeypatch.setattr(trained_models, "prepare_to_train", lambda _: None)


def predict(root: Path, record: TrialRecord) -> Any:
    task = Task(arguments=(str(root), record, 1), cpu=1, gpu=0)
    return run_task(trained_models.predict_test_split, task, "cpu", DATA)


@pytest.mark.usefixtures("no_events")
@pytest.mark.parametrize("config", [CONFIG, change(ema_decay=0.9)])
def test_the_last_finite_epoch_predicts_the_test_split(tmp_path: Path, config: TrialConfig) -> None:
    folder = tmp_path / TrialPaths(stage="confirmation", trial_id="00000").folder
    worker = make_worker(folder, ("search", "confirm"), PoisonedRun(config, DATA, device=CPU))
    first = worker.report_epoch()
    expected = worker._run.predict("test")
    last = worker.report_epoch()
    assert (first.metrics.macro_f1 is not None, last.metrics.macro_f1) == (True, None)
    assert "last_finite_epoch" not in first.list_changes()
    assert last.last_finite_epoch == 1
    record = RUNNING.updated(config=config, diverged=True, state=TrialState.FAILED, digests=last.digests)
    predictions, is_by_model = predict(tmp_path, record)
    assert is_by_model
    np.testing.assert_array_equal(predictions.logits, expected.logits)


@pytest.mark.usefixtures("no_events")
def test_without_a_finite_epoch_labels_are_drawn_from_the_trials_own_seed(tmp_path: Path) -> None:
    worker = make_worker(tmp_path, ("search", "confirm"), restored_run(DIVERGED))
    worker._files.write_checkpoint(replace(make_checkpoint(), history=(DIVERGED,)), 1)
    report = worker.report_epoch()
    assert report.last_finite_epoch == 0
    assert not report.digests
    record = RUNNING.updated(diverged=True, state=TrialState.FAILED)
    predictions, is_by_model = predict(tmp_path, record)
    again, _ = predict(tmp_path, record)
    assert not is_by_model
    np.testing.assert_array_equal(predictions.predicted, again.predicted)
    drawn = [
        trained_models.draw_logits(record.updated(config=CONFIG.with_seed(seed)), 3000, 3).argmax(axis=1)
        for seed in (1, 2)
    ]
    assert not np.array_equal(*drawn)
    assert np.bincount(drawn[0]) == pytest.approx([1000] * 3, abs=100)


@pytest.mark.usefixtures("no_events")
def test_a_search_trial_that_diverges_stores_no_weights(tmp_path: Path) -> None:
    worker = make_worker(tmp_path, ("search",), restored_run(DIVERGED))
    worker._files.write_checkpoint(replace(make_checkpoint(), history=(METRICS,)), 1)
    assert "last_finite_epoch" not in worker.report_epoch().list_changes()
    assert not worker._files.store.exists(RESULTS)


@pytest.mark.usefixtures("no_events")
@pytest.mark.parametrize("diverged", [True, False])
def test_stored_weights_whose_logits_are_not_finite_are_no_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diverged: bool
) -> None:
    logits = np.full((len(DATA.splits.test), 3), np.nan, dtype=np.float32)
    monkeypatch.setattr(trained_models, "load_classifier", lambda *_: lambda *_: logits)
    record = RUNNING.updated(diverged=diverged, state=TrialState.FAILED, digests={f"{RESULTS}/0001/{WEIGHTS}": "x"})
    if not diverged:
        with pytest.raises(UserInputError, match="finite"):
            predict(tmp_path, record)
        return
    predictions, is_by_model = predict(tmp_path, record)
    assert not is_by_model
    assert np.isfinite(predictions.logits).all()
