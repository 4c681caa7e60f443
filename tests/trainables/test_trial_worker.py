"""A worker's attempts: a later one trains what the checkpoints do not hold, and stores the same files."""

import time
from pathlib import Path
from typing import Any

import pytest

from search_spaces.config import TrialConfig
from tests.trainables.test_diverged_trial import RUNNING, PoisonedRun
from tests.trainables.training.test_loop import DATA, change
from trainables import trial_worker
from trainables.records.record import RECORD, TrialRecord
from trainables.records.trial_files import CHECKPOINTS, LostTrialError, TrialFiles
from trainables.storage.store import Store
from trainables.trial_settings import TrialSettings
from trainables.trial_worker import TrialWorker

CONFIG = change(max_epochs=4)


def begin(root: Path, *, num_reported: int = 0, config: TrialConfig = CONFIG, seconds: float = 0.0) -> TrialWorker:
    """Return a worker that has started the trial in `root`/trial."""
    TrialFiles(Store(root).child("trial")).store.write_text(RECORD, replace_record(config))
    worker = TrialWorker()
    settings = TrialSettings(study_uri=str(root), weights="none", device="cpu", space=(), checkpoint_seconds=seconds)
    arguments: dict[str, Any] = {
        "folder": "trial",
        "config_json": config.canonical_json(),
        "num_cpus": 1.0,
        "num_gpus": 0.0,
        "num_threads": 1,
        "num_reported_epochs": num_reported,
        "splits_to_predict": ["search", "confirm"],
    }
    worker.setup(arguments, data=DATA, settings=settings)
    return worker


def replace_record(config: TrialConfig) -> str:
    return RUNNING.updated(config=config, fingerprint=config.fingerprint).to_json()


def train(worker: TrialWorker, num_epochs: int = 4) -> list[dict[str, Any]]:
    """Return the results of as many steps, up to the trial's end."""
    results = []
    while len(results) < num_epochs and not (results and results[-1]["epoch"] == 4):
        results.append(worker.step())
    worker.cleanup()
    return results


def digests(results: list[dict[str, Any]]) -> dict[str, str]:
    return dict(results[-1]["report"]["details"]["digests"])


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, str]:
    return digests(train(begin(tmp_path / "undisturbed")))


@pytest.mark.parametrize(("num_kept", "first_epoch"), [(0, 1), (1, 3), (2, 4)])
def test_attempt_whose_checkpoints_lag_behind_its_reports_ends_as_the_undisturbed_one(
    tmp_path: Path, undisturbed: dict[str, str], num_kept: int, first_epoch: int
) -> None:
    """Three epochs were reported when the process was killed; of the checkpoints of the second and third, few are left."""
    train(begin(tmp_path), 3)
    files = TrialFiles(Store(tmp_path).child("trial"))
    for name in files.store.list_folder(CHECKPOINTS)[num_kept:]:
        files.store.delete(f"{CHECKPOINTS}/{name}")
    again = train(begin(tmp_path, num_reported=3))
    assert [result["epoch"] for result in again] == list(range(first_epoch, 5))
    assert digests(again) == undisturbed


def test_with_a_distance_between_checkpoints_the_trial_ends_the_same(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    results = train(begin(tmp_path, seconds=1000.0), 3)
    assert len(TrialFiles(Store(tmp_path).child("trial")).store.list_folder(CHECKPOINTS)) == 1
    again = train(begin(tmp_path, num_reported=3, seconds=1000.0))
    assert [result["macro_f1"] for result in again][:2] == [result["macro_f1"] for result in results][1:]
    assert digests(again) == undisturbed


def test_last_finite_epoch_does_not_depend_on_the_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(
        trial_worker, "make_run", lambda config, data, *, device, **_: PoisonedLate(config, data, device=device)
    )
    for seconds in (0.0, 1000.0):
        results = train(begin(tmp_path / str(seconds), seconds=seconds), 3)
        details = results[-1]["report"]["details"]
        found.append((details["last_finite_epoch"], dict(details["digests"])))
    assert found[0] == found[1]
    assert found[0][0] == 2


class PoisonedLate(PoisonedRun):
    """A training run whose weights turn to NaN before its third epoch."""

    poisoned_from = 2


def test_step_returns_before_its_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = TrialFiles.write_checkpoint

    def write_slowly(*arguments: Any) -> None:
        time.sleep(0.5)
        write(*arguments)

    monkeypatch.setattr(TrialFiles, "write_checkpoint", write_slowly)
    worker = begin(tmp_path)
    worker.step()
    files = TrialFiles(Store(tmp_path).child("trial"))
    assert files.read_checkpoint()[0] is None
    worker.cleanup()
    checkpoint, _ = files.read_checkpoint()
    assert checkpoint is not None
    assert checkpoint.epoch == 1


def test_process_that_is_told_to_exit_stores_its_state_whatever_the_distance(tmp_path: Path) -> None:
    worker = begin(tmp_path, seconds=1000.0)
    worker.step()
    worker._should_exit = True
    with pytest.raises(SystemExit):
        worker.step()
    checkpoint, _ = TrialFiles(Store(tmp_path).child("trial")).read_checkpoint()
    assert checkpoint is not None
    assert checkpoint.partial is not None or checkpoint.epoch == 2


def test_a_start_that_fails_in_a_process_that_serves_another_trial_is_an_error_of_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune takes an error of `reset_config` for a trial that it dropped, and starts it again without counting."""
    worker = begin(tmp_path)
    arguments = {
        "folder": "trial",
        "config_json": CONFIG.canonical_json(),
        "num_cpus": 1.0,
        "num_gpus": 0.0,
        "num_threads": 1,
        "num_reported_epochs": 0,
        "splits_to_predict": ["search"],
    }
    with monkeypatch.context() as patch:
        patch.setattr(trial_worker, "make_run", lambda *_, **__: (_ for _ in ()).throw(ValueError("no such width")))
        assert worker.reset_config(arguments)
    with pytest.raises(ValueError, match="no such width"):
        worker.step()
    assert worker.reset_config(arguments)
    assert worker.step()["epoch"] == 1
    worker.cleanup()


def test_an_attempt_that_ends_while_it_predicts_reports_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = begin(tmp_path)
    for _ in range(3):
        worker.step()
    write = TrialFiles.write_weights

    def write_after_another_attempt_has_begun(files: TrialFiles, *arguments: Any) -> dict[str, str]:
        record = TrialRecord.from_json(files.store.read_bytes(RECORD), where=RECORD)
        files.store.write_text(RECORD, record.updated(attempts=2).to_json())
        return write(files, *arguments)

    monkeypatch.setattr(TrialFiles, "write_weights", write_after_another_attempt_has_begun)
    with pytest.raises(LostTrialError, match="attempt 1 of trial 00000 is over"):
        worker.step()
    worker.cleanup()
