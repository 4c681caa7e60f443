"""A cluster of a head and two workers with logical GPUs and a token, started with the commands of cluster.yaml."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.state.record_book import RecordBook
from tests.faults.nodes import local_cluster
from trainables.records.record import TrialState
from trainables.records.store import Store

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


def call(*command: str | Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """Address and environment of a head and two workers, which hold one CPU and one logical GPU each."""
    with local_cluster(2) as started:
        yield started.address, {**os.environ, **started.environment}


def test_trials_hold_gpus_and_both_nodes_work(cluster: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, environment = cluster
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC)
    done = call(BIN / "study", "launch", spec, "--storage", tmp_path, "--address", address, environment=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "3 node(s), 2 CPUs, 2 GPUs" in done.stdout
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
    # As inside of a Ray job, where Ray sets the address.
    inside = {**environment, "RAY_ADDRESS": address}
    done = call(BIN / "study", "launch", spec, "--storage", tmp_path, *overrides, environment=inside)
    assert "3 node(s)" in done.stdout, done.stderr + done.stdout
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
