"""`--local`: a study in one process, without Ray; the same records, errors and retries as on a cluster."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from search_spaces.errors import UserInputError
from study.cluster import connection, process_workers
from study.cluster.connection import check_cluster, connect_cluster
from study.cluster.process_workers import ProcessWorkers
from study.cluster.tasks import Stage, Task, find_device, run_task
from study.inputs.provenance import package_versions
from study.open_study import load_study
from study.results.stored_findings import load_findings
from study.scheduling.search_director import SearchDirector
from study.state import paths
from study.state.record_book import MemoryBook, StudyInterrupted
from tests.study.command_line import run_cli
from tests.study.simulated import FIXED, make_report, make_spec
from tests.study.small_study import write_small_study
from trainables.records.record import EpochReport, TrialRecord, TrialState
from trainables.storage.store import StorageError, Store

STUDY = {"analyze": {"num_audit_images": 10}}
# Two commands. Ray cannot be imported, as on a machine that has none.
WITHOUT_RAY = """
import sys
sys.modules["ray"] = None
from study import cli
folder = sys.argv[1]
for words in (["run", f"{folder}/spec.toml", "--storage", folder, "--local"], ["reproduce", f"{folder}/alone"]):
    sys.argv[1:] = words
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            raise
"""


def test_a_study_needs_no_ray_from_its_spec_to_its_report_and_its_reproduction(tmp_path: Path) -> None:
    write_small_study(tmp_path / "spec.toml", "alone", **STUDY)
    command = [sys.executable, "-c", WITHOUT_RAY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "on this process: 1 node(s)" in done.stdout
    study = load_study(Store(tmp_path / "alone"))
    assert [r.state for r in study.book] == [TrialState.COMPLETE] * 6
    assert {arm.arm for arm in load_findings(study).arms} == {"bicubic", "bilinear"}
    assert study.store.exists(paths.REPORT_HTML)
    assert "MATCH" in done.stdout


def test_a_trial_of_two_processes_is_reproduced_bit_for_bit(tmp_path: Path) -> None:
    search = {"factor": None, "allocation": "pooled", "max_epochs": 2, "num_trials": 1}
    write_small_study(tmp_path / "spec.toml", "alone", train={"processes": 2}, search=search, resources={"cpu": 2})
    launched = run_cli("launch", tmp_path / "spec.toml", "--storage", tmp_path, "--local")
    assert launched.status == 0, launched
    (first,) = load_study(Store(tmp_path / "alone")).book.of_stage("search")
    assert (first.config.whole("processes"), first.num_threads, first.devices_per_trial) == (2, 1, 2.0)
    assert first.libraries == f"torch {torch.__version__}"
    reproduced = run_cli("reproduce", tmp_path / "alone", "--trial", first.trial_id)
    assert reproduced.status == 0, reproduced
    assert "MATCH" in reproduced.output
    assert not torch.distributed.is_initialized()


def test_a_machine_without_ray_has_a_passport(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = metadata.version

    def version(name: str) -> str:
        if name == "ray":
            raise metadata.PackageNotFoundError(name)
        return whole(name)

    monkeypatch.setattr(metadata, "version", version)
    versions = package_versions()
    assert versions["ray"] == ""
    assert versions["torch"]


def test_asha_without_ray_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name == "ray" or name.startswith("ray."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Exception, match=r'install ray\[tune\], or set search.pruning = "none"'):
        SearchDirector(MemoryBook(), make_spec(), FIXED)
    SearchDirector(MemoryBook(), make_spec(pruning="none"), FIXED)


def test_a_process_and_an_address_exclude_each_other_but_the_environment_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small_study(tmp_path / "spec.toml", "alone", **STUDY)
    refused = run_cli("run", tmp_path / "spec.toml", "--local", "--address", "10.0.0.1:6379")
    assert refused.status == 2
    assert "--local runs in this process, but --address names a cluster" in refused.errors
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    dry = run_cli("launch", tmp_path / "spec.toml", "--storage", tmp_path, "--local", "--dry-run", width=200)
    assert dry.status == 0, dry
    assert "1 trial at once on this process" in dry.output
    assert "twice the margin, with a chance of" in " ".join(dry.output.split())


def test_a_process_holds_one_trial_and_no_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "count_cuda_devices", lambda: 0)
    spec = make_spec()
    with_gpu = spec.model_copy(update={"resources": spec.resources.model_copy(update={"gpu": 1.0})})
    with connect_cluster(connection.THIS_PROCESS) as cluster:
        assert check_cluster(spec, cluster) == 1
        with pytest.raises(Exception, match="needs 1 CPUs and 1 GPUs on one node"):
            check_cluster(with_gpu, cluster)


class FakeWorker:
    """A worker that computes curves; its second trial fails as often as told, before its second epoch."""

    failures = 0
    error: Exception = RuntimeError("no luck")

    def prepare(self, *_: Any) -> None:
        """Take nothing."""

    def reset_config(self, arguments: dict[str, Any]) -> None:
        """Start a trial."""
        torch.set_num_threads(2 if torch.get_num_threads() == 1 else 1)
        self.arguments, self.epoch = arguments, 0

    def report_epoch(self) -> EpochReport:
        """Return one epoch, or fail."""
        self.epoch += 1
        if self.arguments["trial_id"] == "00001" and self.epoch == 2 and FakeWorker.failures > 0:
            FakeWorker.failures -= 1
            raise FakeWorker.error
        return make_report(self.epoch, 0.1 * self.epoch, 1.0)

    def cleanup(self) -> None:
        """Close nothing."""


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(process_workers, "_UndisturbedWorker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "failures", 0)
    monkeypatch.setattr(FakeWorker, "error", RuntimeError("no luck"))
    settings: Any = SimpleNamespace()
    return Stage(settings=settings, max_concurrent=1, splits_to_predict=("search",), on_change=lambda: None)


def run_search(stage: Stage) -> list[TrialRecord]:
    spec = make_spec(num_trials=3, pruning="none")
    book, data = MemoryBook(), SimpleNamespace()
    director = SearchDirector(book, spec, FIXED)
    ProcessWorkers(spec, data).run_trials(director, stage)  # type: ignore[arg-type]
    return list(book.of_stage("search"))


@pytest.mark.parametrize(("failures", "state"), [(2, TrialState.COMPLETE), (3, TrialState.FAILED)])
def test_a_trial_that_fails_is_retried_as_often_in_a_row_as_the_spec_allows(
    stage: Stage, failures: int, state: TrialState
) -> None:
    FakeWorker.failures = failures
    threads = torch.get_num_threads()
    records = run_search(stage)
    assert torch.get_num_threads() == threads
    assert [r.state for r in records] == [TrialState.COMPLETE, state, TrialState.COMPLETE]
    assert len(records[1].retry_causes) == failures
    assert records[1].retry_causes[0].endswith("RuntimeError: no luck")
    assert [e.epoch for e in records[1].epochs] == ([1] if state is TrialState.FAILED else [1, 2, 3, 4, 5, 6])


def test_a_full_disk_stops_the_study_which_says_how_to_go_on(stage: Stage) -> None:
    FakeWorker.failures, FakeWorker.error = 1, StorageError("no space left")
    with pytest.raises(StudyInterrupted, match=r"no space left; fix the storage, then continue with `study resume`"):
        run_search(stage)


def test_ctrl_c_leaves_the_rest_to_a_resume(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(SearchDirector, "on_report", interrupt)
    assert [r.state for r in run_search(stage)] == [TrialState.RUNNING]


def test_tasks_are_called_one_after_the_other_with_the_data() -> None:
    workers = ProcessWorkers(make_spec(), "data")  # type: ignore[arg-type]
    tasks = [Task(arguments=(number,), cpu=1, gpu=0) for number in range(3)]
    threads = torch.get_num_threads()

    def task(number: int, *, data: object) -> tuple[int, object]:
        torch.set_num_threads(threads + 1)
        return number, data

    assert list(workers.run_tasks(task, tasks)) == [(i, "data") for i in range(3)]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("device", "gpu", "found"), [("auto", 0, "cpu"), ("cpu", 1, "cpu"), ("auto", 1, "cuda")])
def test_a_task_computes_on_the_device_that_it_holds(
    monkeypatch: pytest.MonkeyPatch, device: str, gpu: float, found: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    spec = make_spec()
    spec = spec.model_copy(update={"resources": spec.resources.model_copy(update={"device": device})})
    workers = ProcessWorkers(spec, "data")  # type: ignore[arg-type]

    def task(*, data: object) -> str:  # noqa: ARG001
        return find_device().type

    assert next(workers.run_tasks(task, [Task(arguments=(), cpu=1, gpu=gpu)])) == found


def test_a_task_that_holds_a_gpu_does_not_compute_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    task = Task(arguments=(), cpu=1, gpu=1)
    with pytest.raises(UserInputError, match="finds no CUDA device"):
        run_task(repr, task, "auto", "data")  # type: ignore[arg-type]
    workers = ProcessWorkers(make_spec(), "data")  # type: ignore[arg-type]
    find: Any = lambda *, data: find_device()  # noqa: ARG005, E731
    assert next(workers.run_tasks(find, [task])) == torch.device("cpu"), "an analysis here needs no GPU"
