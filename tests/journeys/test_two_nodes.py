"""A cluster of a head and two workers with logical GPUs and a token, started with the commands of cluster.yaml.

The trials and the forensics compute on the workers, whatever happens to one of them.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from study.state.paths import AUDIT_PARTS, FINDINGS
from study.state.record_book import RecordBook
from tests.faults.nodes import LocalCluster, local_cluster
from tests.study.small_study import write_small_study
from trainables.records.record import TrialState
from trainables.storage.store import Store

pytestmark = [pytest.mark.ray_cluster, pytest.mark.timeout(400)]

BIN = Path(sys.executable).parent
STUDY: dict[str, Any] = {
    "data": {"num_images": 500},
    "train": {"image_size": 32},
    "search": {"num_trials": 6, "max_epochs": 2, "fixed": {"class_weighting": "none", "backbone": "resnet18"}},
    "analyze": {"num_panels": 2, "num_audit_images": 60},
    "resources": {"gpu": 1, "cpu": 1, "device": "cpu"},
}
# Every process with this on its path that computes a convolution leaves a file with its number. One image is not counted: the
# launch passes a black one through each network, to see whether it takes the size.
LOGGER = """
import builtins, os, sys
plain = builtins.__import__

def logged(name, *arguments, **options):
    module = plain(name, *arguments, **options)
    conv = sys.modules.get("torch.nn.modules.conv")
    if conv is not None and hasattr(conv, "Conv2d"):
        builtins.__import__ = plain
        forward = conv.Conv2d._conv_forward
        def note(self, *inputs):
            if not inputs[0].is_meta and len(inputs[0]) > 1:
                open(os.path.join(os.environ["FORWARD_LOG"], str(os.getpid())), "a").close()
            return forward(self, *inputs)
        conv.Conv2d._conv_forward = note
    return module

builtins.__import__ = logged
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("two_nodes")
    for name in ("log", "site", "storage"):
        (made / name).mkdir()
    (made / "site" / "sitecustomize.py").write_text(LOGGER)
    write_small_study(made / "spec.toml", "two-nodes", **STUDY)
    return made


@pytest.fixture(scope="module")
def nodes(folder: Path) -> Iterator[LocalCluster]:
    """A head and two workers, which hold one CPU and one logical GPU each."""
    with local_cluster(2, variables={"FORWARD_LOG": str(folder / "log")}, python_path=folder / "site") as started:
        yield started


def start(nodes: LocalCluster, *command: str | Path, **variables: str) -> subprocess.Popen[str]:
    """Start a command on the nodes."""
    address = () if "RAY_ADDRESS" in variables else ("--address", nodes.address)
    return subprocess.Popen(
        [BIN / "study", *map(str, command), *address],
        env={**os.environ, **nodes.environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module", autouse=True)
def intruder(nodes: LocalCluster, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A driver with a wrong token, which Ray lets wait for half a minute: that is beside the other tests."""
    with start(nodes, "launch", folder / "spec.toml", "--storage", folder / "none", RAY_AUTH_TOKEN="f" * 64) as started:
        yield started
        started.kill()


@pytest.fixture(scope="module")
def driver(nodes: LocalCluster, folder: Path) -> subprocess.Popen[str]:
    """The driver of a whole study, which has ended."""
    started = start(nodes, "run", folder / "spec.toml", "--storage", folder / "storage")
    output, _ = started.communicate(timeout=220)
    assert started.returncode == 0, output
    assert "3 node(s), 2 CPUs, 2 GPUs" in output
    return started


def read_forensics(study: Path) -> tuple[Any, Any]:
    findings = json.loads((study / FINDINGS).read_text())
    return findings["arms"], [panel["views"] for panel in findings["panels"]]


def test_trials_hold_gpus_and_both_nodes_work(nodes: LocalCluster, folder: Path, tmp_path: Path) -> None:
    """The address is in the environment, as inside of a Ray job."""
    short = ["--set", "data.num_images=200", "--set", "search.max_epochs=1"]
    started = start(nodes, "launch", folder / "spec.toml", "--storage", tmp_path, *short, RAY_ADDRESS=nodes.address)
    output, _ = started.communicate(timeout=200)
    assert started.returncode == 0, output
    records = RecordBook(Store(tmp_path / "two-nodes")).of_stage("search")
    assert "3 node(s), 2 CPUs, 2 GPUs" in output
    assert [r.state for r in records] == [TrialState.COMPLETE] * 6
    assert len({r.node for r in records}) == 2
    assert {r.config.arm for r in records} == {"bicubic", "bilinear"}


@pytest.mark.long_faults
def test_forensics_compute_on_the_nodes_and_nothing_in_the_driver(driver: subprocess.Popen[str], folder: Path) -> None:
    study = folder / "storage" / "two-nodes"
    logged = {int(file.name) for file in (folder / "log").iterdir()}
    assert len(logged) >= 2
    assert driver.pid not in logged
    arms, panels = read_forensics(study)
    assert all(arm["ring_audits"] and arm["cam_admission"] for arm in arms)
    assert len(panels) == 2
    assert not list((study / AUDIT_PARTS).iterdir())


def test_wrong_token_is_refused(intruder: subprocess.Popen[str], nodes: LocalCluster, folder: Path) -> None:
    output, _ = intruder.communicate(timeout=200)
    assert intruder.returncode == 2, output
    assert f"reached at {nodes.address}" in " ".join(output.split()), output
    assert not (folder / "none" / "two-nodes").exists()


@pytest.mark.long_faults
@pytest.mark.usefixtures("driver")
def test_node_that_is_lost_during_the_forensics_leaves_them_as_they_were(nodes: LocalCluster, folder: Path) -> None:
    copy = folder / "storage" / "copy"
    shutil.copytree(folder / "storage" / "two-nodes", copy)
    expected = read_forensics(copy)
    (copy / FINDINGS).unlink()
    analysis = start(nodes, "analyze", copy)
    until = time.monotonic() + 100
    while not any((copy / AUDIT_PARTS).iterdir()) and time.monotonic() < until:
        assert analysis.poll() is None, analysis.communicate()[0]
        time.sleep(0.05)
    nodes.drop_worker(nodes.workers[0])
    output, _ = analysis.communicate(timeout=200)
    assert analysis.returncode == 0, output
    assert read_forensics(copy) == expected
