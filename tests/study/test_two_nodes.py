"""A cluster of two raylets with logical GPUs, started as a person would, with token authentication on."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.records import RecordBook
from trainables.record import TrialState
from trainables.store import Store

pytestmark = [pytest.mark.ray_cluster, pytest.mark.timeout(240)]

BIN = Path(sys.executable).parent
SPEC = """
name = "two-nodes"
[data]
source = "planted"
num_images = 500
[model]
weights = "none"
[train]
image_size = 32
batch_size = 32
[search]
num_trials = 6
max_epochs = 2
asha = { enabled = false }
fixed = { class_weighting = "none", backbone = "resnet18" }
factor = "interpolation"
[resources]
gpu = 1
cpu = 1
device = "cpu"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def call(*command: str | Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Address and environment of a head and a worker, each with one CPU and one logical GPU."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    scratch = tmp_path_factory.mktemp("r")
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "RAY_USAGE_STATS_ENABLED": "0",
        "HOME": str(scratch),
    }
    node = ("--num-cpus=1", "--num-gpus=1", "--object-store-memory=200000000", "--disable-usage-stats")
    short = Path(f"/tmp/abstudy-test-{port}")
    head = call(
        BIN / "ray",
        "start",
        "--head",
        "--node-ip-address=127.0.0.1",
        f"--port={port}",
        "--include-dashboard=false",
        f"--temp-dir={short}",
        *node,
        environment=environment,
    )
    assert head.returncode == 0, head.stderr + head.stdout
    try:
        worker = call(
            BIN / "ray", "start", f"--address={address}", "--node-ip-address=127.0.0.1", *node, environment=environment
        )
        assert worker.returncode == 0, worker.stderr + worker.stdout
        yield address, environment
    finally:
        for pattern in (f"{short}/", f"gcs-address={address}"):
            subprocess.run(["pkill", "-9", "-f", pattern], check=False)
        subprocess.run(["rm", "-rf", str(short)], check=False)


def test_trials_hold_gpus_and_both_nodes_work(cluster: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, environment = cluster
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC)
    done = call(BIN / "study", "launch", spec, "--storage", tmp_path, "--address", address, environment=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "2 node(s), 2 CPUs, 2 GPUs" in done.stdout
    records = RecordBook(Store(tmp_path / "two-nodes")).of_stage("search")
    assert [r.state for r in records] == [TrialState.COMPLETE] * 6
    assert len({r.node for r in records}) == 2
    assert {r.config.arm for r in records} == {"bicubic", "bilinear"}


def test_gpu_without_cuda_fails_with_its_reason_instead_of_computing_elsewhere(
    cluster: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine's GPUs are real")
    address, environment = cluster
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC)
    overrides = ["--set", "resources.device=auto", "--set", "resources.retries=0", "--set", "search.num_trials=2"]
    call(
        BIN / "study", "launch", spec, "--storage", tmp_path, "--address", address, *overrides, environment=environment
    )
    records = RecordBook(Store(tmp_path / "two-nodes")).of_stage("search")
    assert [r.state for r in records] == [TrialState.FAILED] * 2
    assert all("torch finds no CUDA device" in r.reason for r in records)


def test_wrong_token_is_refused(cluster: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, environment = cluster
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC)
    wrong = {**environment, "RAY_AUTH_TOKEN": "f" * 64}
    refused = call(BIN / "study", "launch", spec, "--storage", tmp_path, "--address", address, environment=wrong)
    assert refused.returncode == 2, refused.stderr + refused.stdout
    assert not (tmp_path / "two-nodes").exists()
