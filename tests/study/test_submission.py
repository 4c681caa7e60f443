"""`study submit`: what the job gets, what the user sees, and one real job on a head of this machine."""

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study import submission
from study.open_study import load_study
from study.results.stored_findings import load_findings
from study.spec.reading import parse_spec
from tests.faults.nodes import LocalCluster, free_port, local_cluster
from tests.study.command_line import Outcome, run_cli
from tests.study.small_study import write_small_study
from trainables.storage.store import Store

BIN = Path(sys.executable).parent
# The tests' environment has Ray without the client of its job server, whose agents open ports without a token (R14).
HAS_CLIENT = pytest.mark.skipif(find_spec("aiohttp") is None, reason="needs abstudy[submit]")
ADDRESS = ("--address", "http://head:8265")


class FakeServer:
    """A job server that runs nothing and keeps what it was sent."""

    def __init__(self, state: str = "SUCCEEDED") -> None:
        self.entrypoint, self.files, self._state = "", dict[str, str](), state

    def submit_job(self, *, entrypoint: str, runtime_env: dict[str, Any]) -> str:
        self.entrypoint = entrypoint
        folder = Path(runtime_env["working_dir"])
        self.files = {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}
        return "raysubmit_1"

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        yield f"output of {job_id}\n"
        if self._state == "STOPPED":
            raise KeyboardInterrupt
        if self._state == "LOST":
            raise RuntimeError("WebSocket connection closed unexpectedly\nwith close code 1006")

    def get_job_status(self, job_id: str) -> SimpleNamespace:
        assert job_id == "raysubmit_1"
        return SimpleNamespace(value=self._state)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_small_study(tmp_path / "mine.toml", "submitted", data={"num_images": 200}, train={"image_size": 32})


def submit(monkeypatch: pytest.MonkeyPatch, server: FakeServer, *arguments: str | Path) -> Outcome:
    monkeypatch.setattr(submission, "connect_job_server", lambda address: server if address == ADDRESS[1] else None)
    return run_cli("submit", *arguments, *ADDRESS)


def test_job_runs_the_spec_with_its_overrides_and_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spec: Path
) -> None:
    (tmp_path / "code" / "__pycache__").mkdir(parents=True)
    (tmp_path / "code" / "loop.py").write_text("x = 1")
    (tmp_path / "code" / "__pycache__" / "loop.pyc").write_text("")
    server = FakeServer()
    changes = ("--set", "search.num_trials=4", "--name", "other name".replace(" ", "-"))
    outcome = submit(
        monkeypatch, server, spec, "--storage", "s3://bucket/my studies", *changes, "--with", tmp_path / "code"
    )
    assert outcome.status == 0, outcome.errors
    assert server.entrypoint == "study run spec.toml --storage 's3://bucket/my studies' --address auto"
    assert set(server.files) == {"spec.toml", "code/loop.py"}
    sent = parse_spec(server.files["spec.toml"], "spec.toml")
    assert (sent.name, sent.search.num_trials) == ("other-name", 4)
    assert "output of raysubmit_1" in outcome.output
    assert "runs: study run spec.toml --storage 's3://bucket/my studies' --address auto" in outcome.output
    assert "study status 's3://bucket/my studies/other-name'" in outcome.output


def test_failed_job_says_how_to_go_on_and_resume_goes_on(monkeypatch: pytest.MonkeyPatch, spec: Path) -> None:
    outcome = submit(monkeypatch, FakeServer("FAILED"), spec, "--storage", "s3://bucket/studies")
    assert outcome.status == 1
    assert f"study submit s3://bucket/studies/submitted --resume --address {ADDRESS[1]}" in outcome.output
    server = FakeServer()
    resumed = submit(monkeypatch, server, "s3://bucket/studies/submitted", "--resume", "--detach", "--trust-code")
    assert resumed.status == 0, resumed.errors
    assert server.entrypoint == "study resume s3://bucket/studies/submitted --address auto --trust-code"
    assert server.files == {}
    assert "output of" not in resumed.output


def test_a_secret_in_the_storage_s_uri_reaches_neither_job_nor_output(
    monkeypatch: pytest.MonkeyPatch, spec: Path
) -> None:
    server = FakeServer()
    outcome = submit(monkeypatch, server, spec, "--storage", "s3://key:TOP@bucket/studies")
    assert outcome.status == 2
    assert "--storage: the storage's URI must not hold credentials" in outcome.errors
    assert "TOP" not in outcome.errors + outcome.output


def test_interrupt_leaves_the_job_running(monkeypatch: pytest.MonkeyPatch, spec: Path) -> None:
    outcome = submit(monkeypatch, FakeServer("STOPPED"), spec, "--storage", "/mnt/studies")
    assert outcome.status == 0
    assert f"ray job logs raysubmit_1 --follow --address {ADDRESS[1]}" in outcome.output


@pytest.mark.parametrize(
    ("state", "told"),
    [("LOST", "the job was lost (WebSocket connection closed unexpectedly), and"), ("RUNNING", "the job is RUNNING")],
)
def test_a_lost_connection_says_that_the_job_goes_on(
    monkeypatch: pytest.MonkeyPatch, spec: Path, state: str, told: str
) -> None:
    outcome = submit(monkeypatch, FakeServer(state), spec, "--storage", "/mnt/studies")
    assert outcome.status == 3
    assert told in outcome.errors
    assert f"ray job logs raysubmit_1 --follow --address {ADDRESS[1]}" in outcome.errors
    assert "--resume" not in outcome.output + outcome.errors


def test_the_folder_itself_can_go_with_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spec: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "loop.py").write_text("x = 1")
    monkeypatch.chdir(tmp_path / "code")
    server = FakeServer()
    outcome = submit(monkeypatch, server, spec, "--storage", "/mnt/studies", "--with", ".")
    assert outcome.status == 0, outcome.errors
    assert set(server.files) == {"spec.toml", "code/loop.py"}


def test_everything_that_is_wrong_is_in_one_message(spec: Path) -> None:
    refused = run_cli("submit", spec, "--storage", "studies", "--address", "head:8265", "--with", "nowhere.py")
    assert refused.status == 2
    for part in ("http://HEAD:8265, but got head:8265", "but got studies", "nowhere.py does not exist"):
        assert part in refused.errors
    wrong = run_cli("submit", spec, *ADDRESS, "--storage", "/mnt/x", "--resume", "--set", "seed=1")
    assert "remove --name and --set" in wrong.errors
    invalid = run_cli("submit", spec, *ADDRESS, "--storage", "/mnt/x", "--set", "search.num_trial=1")
    assert invalid.status == 2
    assert "num_trials" in invalid.errors


def test_client_that_is_not_installed_says_what_to_do(monkeypatch: pytest.MonkeyPatch, spec: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    missing = run_cli("submit", spec, "--storage", "/mnt/x", *ADDRESS)
    assert missing.status == 2
    assert "pip install 'abstudy[submit]'" in missing.errors


@HAS_CLIENT
def test_server_that_is_not_there_says_what_to_do(spec: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    refused = run_cli("submit", spec, "--storage", "/mnt/x", "--address", nobody)
    assert refused.status == 2
    assert "no job server answers" in refused.errors
    assert "ray dashboard cluster.yaml" in refused.errors


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[LocalCluster, str]]:
    port = free_port()
    path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    # One node alone: nodes of one machine share the folder of jobs, and one would delete it while the other needs it.
    with local_cluster(0, dashboard_port=port, variables=path, head_cpus=1) as started:
        yield started, f"http://127.0.0.1:{port}"


@HAS_CLIENT
@pytest.mark.long_faults
@pytest.mark.ray_cluster
@pytest.mark.timeout(400)
def test_study_runs_as_a_job_to_its_report(cluster: tuple[LocalCluster, str], tmp_path: Path, spec: Path) -> None:
    nodes, address = cluster
    environment = {**nodes.environment, "PATH": f"{BIN}:/usr/bin:/bin"}
    command = [BIN / "study", "submit", spec, "--storage", tmp_path / "studies", "--address", address]
    until = time.monotonic() + 60
    while True:
        done = subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        # The job server starts some seconds after the head.
        if "no job server answers" not in done.stderr or time.monotonic() > until:
            break
        time.sleep(2)
    assert done.returncode == 0, done.stderr + done.stdout
    study = load_study(Store(tmp_path / "studies" / "submitted"))
    assert {arm.arm for arm in load_findings(study).arms} == {"bicubic", "bilinear"}
    assert "report.html" in done.stdout
