"""A worker's attempts: a later one trains what the checkpoints do not hold, and stores the same files."""

import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from tests.journeys.test_diverged_trial import RUNNING, PoisonedRun
from tests.trainables.training.test_loop import DATA, change
from trainables import trial_worker
from trainables.records.record import RECORD, EpochRecord, EpochReport, TrialRecord
from trainables.records.trial_files import CHECKPOINTS, LostTrialError, TrialFiles
from trainables.storage.store import Store
from trainables.trial_settings import TrialSettings
from trainables.trial_worker import TrialWorker
from trainables.tune_adapter import decode_report, encode_report

CONFIG = change(max_epochs=4)


def begin(
    root: Path,
    *,
    num_reported: int = 0,
    config: TrialConfig = CONFIG,
    seconds: float = 0.0,
    folder: str = "trial",
    network: str = "",
    num_gpus: float = 0.0,
    device: str = "cpu",
) -> TrialWorker:
    """Return a worker that has started the trial in `root`/`folder`, whose network may be that of another one."""
    TrialFiles(Store(root).child(folder)).store.write_text(RECORD, replace_record(config))
    worker = TrialWorker()
    settings = TrialSettings(study_uri=str(root), weights="none", device=device, space=(), checkpoint_seconds=seconds)
    arguments: dict[str, Any] = {
        "folder": folder,
        "network_folder": network,
        "config_json": config.canonical_json(),
        "num_cpus": 1.0,
        "num_gpus": num_gpus,
        "num_threads": 1,
        "num_reported_epochs": num_reported,
        "splits_to_predict": ["search", "confirm"],
    }
    worker.setup(arguments, data=DATA, settings=settings)
    return worker


def replace_record(config: TrialConfig) -> str:
    return RUNNING.updated(config=config, fingerprint=config.fingerprint).to_json()


def train(worker: TrialWorker, num_epochs: int = 4) -> list[EpochReport]:
    """Return as many reports, up to the trial's end."""
    reports: list[EpochReport] = []
    while len(reports) < num_epochs and not (reports and reports[-1].metrics.epoch == 4):
        reports.append(worker.report_epoch())
    worker.cleanup()
    return reports


def digests(reports: list[EpochReport]) -> dict[str, str]:
    return reports[-1].digests


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return digests(train(begin(tmp_path_factory.mktemp("undisturbed"))))


def test_a_report_is_the_same_after_it_crossed_to_another_process(tmp_path: Path) -> None:
    first, *_, last = train(begin(tmp_path))
    assert set(last.list_changes()) - set(first.list_changes()) == {"confirm_macro_f1", "digests", "predictions"}
    for report in (first, last):
        received = decode_report(encode_report(report))
        assert received == report
        assert received.list_changes() == report.list_changes()


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
    assert [report.metrics.epoch for report in again] == list(range(first_epoch, 5))
    assert digests(again) == undisturbed


def test_with_a_distance_between_checkpoints_the_trial_ends_the_same(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    reports = train(begin(tmp_path, seconds=1000.0), 3)
    assert len(TrialFiles(Store(tmp_path).child("trial")).store.list_folder(CHECKPOINTS)) == 1
    again = train(begin(tmp_path, num_reported=3, seconds=1000.0))
    assert [report.metrics.macro_f1 for report in again][:2] == [report.metrics.macro_f1 for report in reports][1:]
    assert digests(again) == undisturbed


def test_last_finite_epoch_does_not_depend_on_the_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(
        trial_worker, "make_run", lambda config, data, *, device, **_: PoisonedLate(config, data, device=device)
    )
    for seconds in (0.0, 1000.0):
        last = train(begin(tmp_path / str(seconds), seconds=seconds), 3)[-1]
        found.append((last.last_finite_epoch, last.digests))
    assert found[0] == found[1]
    assert found[0][0] == 2


class PoisonedLate(PoisonedRun):
    """A training run whose weights turn to NaN before its third epoch."""

    poisoned_from = 2


def test_a_trial_that_holds_a_gpu_does_not_compute_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserInputError, match="torch finds no CUDA device"):
        begin(tmp_path, num_gpus=1.0, device="auto")


def test_step_returns_before_its_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = TrialFiles.write_checkpoint

    def write_slowly(*arguments: Any) -> None:
        time.sleep(0.5)
        write(*arguments)

    monkeypatch.setattr(TrialFiles, "write_checkpoint", write_slowly)
    worker = begin(tmp_path)
    worker.report_epoch()
    files = TrialFiles(Store(tmp_path).child("trial"))
    assert files.read_checkpoint()[0] is None
    worker.cleanup()
    checkpoint, _ = files.read_checkpoint()
    assert checkpoint is not None
    assert checkpoint.epoch == 1


def test_process_that_is_told_to_exit_stores_its_state_whatever_the_distance(tmp_path: Path) -> None:
    worker = begin(tmp_path, seconds=1000.0)
    worker.report_epoch()
    worker._should_exit = True
    with pytest.raises(SystemExit):
        worker.report_epoch()
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
        "network_folder": "",
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
        worker.report_epoch()
    assert worker.reset_config(arguments)
    assert worker.report_epoch().metrics.epoch == 1
    worker.cleanup()


def test_an_attempt_that_ends_while_it_predicts_reports_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = begin(tmp_path)
    for _ in range(3):
        worker.report_epoch()
    write = TrialFiles.write_weights

    def write_after_another_attempt_has_begun(files: TrialFiles, *arguments: Any) -> dict[str, str]:
        record = TrialRecord.from_json(files.store.read_bytes(RECORD), where=RECORD)
        files.store.write_text(RECORD, record.updated(attempts=2).to_json())
        return write(files, *arguments)

    monkeypatch.setattr(TrialFiles, "write_weights", write_after_another_attempt_has_begun)
    with pytest.raises(LostTrialError, match="attempt 1 of trial 00000 is over"):
        worker.report_epoch()
    worker.cleanup()


def test_an_operation_without_a_deterministic_algorithm_is_in_the_notes_of_the_trial_that_computed_it(
    tmp_path: Path,
) -> None:
    """Of every trial of a process, though Python shows a warning of one place once."""
    for number in range(2):
        worker = begin(tmp_path / str(number))
        run_epoch = worker._run.run_epoch

        def warn(run_epoch: Any = run_epoch, **options: Any) -> Any:
            for operation in ("index_add_cuda_", "put_", "index_add_cuda_"):
                warnings.warn(f"{operation} does not have a deterministic implementation, but you set", stacklevel=1)
            warnings.warn("another", stacklevel=1)
            return run_epoch(**options)

        worker._run.run_epoch = warn
        with pytest.warns(UserWarning, match="another") as shown:
            first = worker.report_epoch()
        assert len(shown) == 1
        worker._run.run_epoch = run_epoch
        assert [note.partition(" has")[0] for note in first.notes] == ["index_add_cuda_", "put_"]
        assert worker.report_epoch().notes == first.notes
        worker.cleanup()


class RemoteStore(Store):
    """A folder that takes whole files, as an object store does."""

    is_local = False  # type: ignore[assignment]
    num_uploads = 0

    def write_bytes(self, name: str, data: bytes) -> None:
        Store(self.root).write_bytes(name, data)
        self.num_uploads += "tfevents" in name


@pytest.mark.parametrize(("seconds", "num_uploads"), [(60.0, 3), (0.0, 6)])
def test_events_are_uploaded_after_the_first_epoch_now_and_then_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, num_uploads: int
) -> None:
    """At the end: with the confusions of the last epoch, and once more when the file is closed."""
    monkeypatch.setattr(trial_worker, "EVENT_SECONDS", seconds)
    worker = begin(tmp_path)
    store = RemoteStore(tmp_path / "trial")
    worker._files.store = store
    assert len(train(worker)) == 4
    assert store.num_uploads == num_uploads
    (file,) = (tmp_path / "trial").glob("*tfevents*")
    last = [event.step for event in EventFileLoader(str(file)).Load() if event.summary.value]
    assert max(last) == 4


def test_a_head_is_fitted_on_the_network_of_a_finished_trial_or_after_a_training_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    refit = change(max_epochs=4, head_refit="balanced")
    plain = train(begin(tmp_path))
    files = TrialFiles(Store(tmp_path).child("trial"))
    done = RUNNING.updated(config=CONFIG, fingerprint=CONFIG.fingerprint, state="COMPLETE", digests=digests(plain))
    epochs = [
        EpochRecord(**dict(report.metrics), device_seconds=1.0, order=i, decision="continue")
        for i, report in enumerate(plain)
    ]
    files.store.write_text(RECORD, done.updated(epochs=tuple(epochs)).to_json())
    taken = train(begin(tmp_path, config=refit, folder="other", network="trial"))
    trained = train(begin(tmp_path, config=refit, folder="third"))
    assert digests(taken) == digests(trained)
    assert digests(taken) != digests(plain)
    assert [report.metrics.macro_f1 for report in taken] == [report.metrics.macro_f1 for report in plain]
    assert "the network is that of trial" in taken[-1].notes[0]
    assert not trained[-1].notes
    files.store.delete("best")
    again = train(begin(tmp_path, config=refit, folder="fourth", network="trial"))
    assert digests(again) == digests(trained)
    assert "could not be used, and was trained anew" in again[-1].notes[0]
