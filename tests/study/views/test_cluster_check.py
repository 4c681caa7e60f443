"""What `study check-cluster` finds on a node, and what it tells to do about it."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster as NodeCluster
from rich.console import Console

from study.cluster.connection import Cluster
from study.views import cluster_check
from study.views.cluster_check import NodeState, examine_node, list_node_problems, print_cluster_check, read_back
from tests.study.command_line import run_cli

VERSIONS = ("NVIDIA A10G", "torch 2.13.0, CUDA 13.0, driver 580.65.06", "3.11.9", "numpy 2.4.0")


def make_state(**changes: Any) -> NodeState:
    values = {"num_gpus": 1, "versions": VERSIONS, "shared_memory_bytes": 8 * 10**9, "problem": ""}
    return NodeState(**values | changes)


@pytest.mark.parametrize(
    ("changes", "facts", "words"),
    [
        ({}, {}, []),
        (
            {"num_gpus": 0, "versions": ("cpu",)},
            {},
            ["Ray counts 1 GPU(s), torch finds 0: install a driver that is new enough"],
        ),
        ({"versions": ("NVIDIA T4", *VERSIONS[1:])}, {}, ["unlike most nodes (NVIDIA T4): give all nodes one type"]),
        ({"versions": (*VERSIONS[:3], "numpy 2.3.0")}, {}, ["unlike most nodes (numpy 2.3.0)"]),
        ({}, {"clock_seconds": -90.0}, ["its clock is off by -90 s: start a time service"]),
        ({}, {"clock_seconds": 2.0}, []),
        ({"shared_memory_bytes": 64 * 10**6}, {}, ["/dev/shm has 64 MB: enlarge it"]),
        ({"problem": "s3://b/x: access denied"}, {"num_unread": 3}, ["cannot write to the storage: s3://b/x"]),
        ({}, {"num_unread": 3}, ["does not see 3 file(s) of other nodes: mount the same storage"]),
    ],
)
def test_each_problem_comes_with_what_to_do(changes: dict[str, Any], facts: dict[str, Any], words: list[str]) -> None:
    state = make_state(**changes)
    facts = {"num_gpus": 1.0, "clock_seconds": 0.0, "num_unread": 0, **facts}
    found = list(list_node_problems(state, [state, make_state(), make_state()], **facts))
    assert len(found) == len(words), found
    assert all(text.startswith(word) for text, word in zip(found, words, strict=True))


def test_a_head_without_gpus_is_compared_with_nodes_of_its_kind() -> None:
    head = make_state(num_gpus=0, versions=("cpu", "torch 2.13.0", *VERSIONS[2:]))
    nodes, facts = [head, make_state(), make_state()], {"clock_seconds": 0.0, "num_unread": 0}
    assert list(list_node_problems(head, nodes, num_gpus=0.0, **facts)) == []
    assert list(list_node_problems(nodes[1], nodes, num_gpus=1.0, **facts)) == []


def test_storage_is_written_and_read_and_an_error_is_said(tmp_path: Path) -> None:
    assert [examine_node(str(tmp_path), "check").problem for _ in range(2)] == ["", ""]
    assert read_back(str(tmp_path), "check")[0] == 2
    assert read_back(str(tmp_path / "another"), "check")[0] == 0
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in examine_node(str(tmp_path / "file"), "check").problem
    assert examine_node(None, "check").problem == ""
    assert read_back(None, "check")[0] == 0


def test_a_row_for_each_node_also_for_one_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connect(address: str) -> Iterator[Cluster]:
        yield Cluster(address=address, node_cpus=(8.0, 8.0), node_gpus=(0.0, 0.0), scratch="")

    def run(function: Any, *arguments: Any) -> dict[str, Any]:
        return {"one/11111111": function(*arguments), "two/22222222": OSError("ray::examine_node()\nthe node died")}

    monkeypatch.setattr(cluster_check, "connect_cluster", connect)
    monkeypatch.setattr(cluster_check, "run_on_nodes", run)
    text = io.StringIO()
    assert not print_cluster_check("10.0.0.1:6379", str(tmp_path), Console(file=text, width=200))
    lines = text.getvalue().splitlines()
    assert lines[0].split() == ["node", "GPUs", "device", "and", "libraries", "clock", "/dev/shm", "what", "to", "do"]
    assert lines[1].startswith("one/11111111")
    assert lines[1].rstrip().endswith("nothing") or "/dev/shm has" in lines[1]
    assert "two/22222222" in lines[2]
    assert "does not answer: the node died" in lines[2]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray_cluster
@pytest.mark.timeout(240)
def test_the_nodes_of_a_cluster_are_listed_with_the_storage_that_they_share(tmp_path: Path) -> None:
    """Two nodes of this machine, one of which counts a GPU that torch does not find."""
    nodes = NodeCluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=1, num_gpus=1)
        done = run_cli("check-cluster", nodes.address, "--storage", tmp_path, width=250)
    finally:
        nodes.shutdown()
    lines = done.output.splitlines()
    assert done.status == 1
    assert len(lines) == 3
    assert sum("Ray counts 1 GPU(s), torch finds 0" in line for line in lines) == 1
    assert not any("storage" in line for line in lines)
    assert list(tmp_path.iterdir()) == []
