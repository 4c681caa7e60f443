"""`study check-cluster`: the devices, versions, clocks and storage of a cluster's nodes, and what to do about them."""

import platform
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console

from analysis.formats.text_sections import SectionTable
from search_spaces.errors import UserInputError
from study.cluster.connection import connect_cluster, run_on_nodes
from study.inputs.provenance import package_versions
from study.views.printing import build_table
from trainables.devices import count_cuda_devices, describe_libraries, device_name
from trainables.storage.store import StorageError, Store

# Object stores refuse requests of a clock that is wrong by minutes; logs are read by their times.
MAX_CLOCK_SECONDS = 5.0
# Docker's default is 64 MB, with which Ray keeps its objects on disk.
MIN_SHARED_MEMORY_BYTES = 1e9
NO_PROBLEM = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What a process finds on its node.

    Attributes:
        num_gpus: that torch can use.
        versions: of what a trial's results depend on: GPU, libraries and driver, Python, packages.
        shared_memory_bytes: size of /dev/shm.
        problem: why the storage could not be written; "" if it was.
    """

    num_gpus: int
    versions: tuple[str, ...]
    shared_memory_bytes: int
    problem: str


def examine_node(storage: str | None, folder: str) -> NodeState:
    """Return the state of the node that this process is on; write a file into a folder of the storage, if there is one."""
    num_gpus = count_cuda_devices()
    device = torch.device("cuda" if num_gpus else "cpu")
    packages = (f"{name} {version}" for name, version in package_versions().items())
    problem = ""
    try:
        if storage is not None:
            Store(storage).write_text(f"{folder}/{secrets.token_hex(8)}", platform.node())
    except (StorageError, UserInputError) as error:
        problem = str(error)
    return NodeState(
        num_gpus=num_gpus,
        versions=(device_name(device), describe_libraries(device), platform.python_version(), *packages),
        shared_memory_bytes=shutil.disk_usage("/dev/shm").total,
        problem=problem,
    )


def read_back(storage: str | None, folder: str) -> tuple[int, float]:
    """Return how many files of a folder of the storage this process can read, and its time in seconds since 1970."""
    if storage is None:
        return 0, time.time()
    store = Store(storage)
    return sum(bool(store.read_bytes(f"{folder}/{name}")) for name in store.list_folder(folder)), time.time()


def list_node_problems(
    state: NodeState, others: Sequence[NodeState], *, num_gpus: float, clock_seconds: float, num_unread: int
) -> Iterator[str]:
    """Yield what to do about a node.

    Args:
        state: of the node.
        others: of all nodes.
        num_gpus: that Ray counts on it.
        clock_seconds: by how much its clock is wrong at least, by that of this machine.
        num_unread: files that other nodes wrote to the storage and this one does not see.
    """
    if state.num_gpus < num_gpus:
        yield (
            f"Ray counts {num_gpus:g} GPU(s), torch finds {state.num_gpus}: install a driver that is new enough for torch, a "
            "CUDA build of torch, or NVIDIA's container toolkit"
        )
    alike = Counter(other.versions for other in others if bool(other.num_gpus) == bool(state.num_gpus))
    if unlike := set(state.versions) - set(alike.most_common(1)[0][0]):
        yield f"unlike most nodes ({', '.join(sorted(unlike))}): give all nodes one type of machine and one image"
    if abs(clock_seconds) > MAX_CLOCK_SECONDS:
        yield f"its clock is off by {clock_seconds:+.0f} s: start a time service (chrony)"
    if state.shared_memory_bytes < MIN_SHARED_MEMORY_BYTES:
        yield f"/dev/shm has {state.shared_memory_bytes / 1e6:.0f} MB: enlarge it (docker run --shm-size, or docs/kuberay.yaml)"
    if state.problem:
        yield f"cannot write to the storage: {state.problem}"
    elif num_unread:
        yield f"does not see {num_unread} file(s) of other nodes: mount the same storage on every node, or use a bucket"


def print_cluster_check(address: str, storage: str | None, console: Console) -> bool:
    """Print a row for each node of a running cluster; return whether nothing is to be done.

    Args:
        address: of the cluster.
        storage: root that all nodes write to and read from; None leaves it out.
        console: receives the table.
    """
    folder, rows = f"check-{secrets.token_hex(8)}", []
    with connect_cluster(address) as cluster:
        states = run_on_nodes(examine_node, storage, folder)
        before = time.time()
        answers, after = run_on_nodes(read_back, storage, folder), time.time()
        if storage is not None:
            Store(storage).delete(folder)
    found = [state for state in states.values() if isinstance(state, NodeState)]
    num_written = 0 if storage is None else sum(not state.problem for state in found)
    for (name, state), num_gpus in zip(states.items(), cluster.node_gpus, strict=True):
        if failed := [result for result in (state, answers[name]) if isinstance(result, Exception)]:
            rows.append((name, "", "", "", "", f"does not answer: {str(failed[0]).splitlines()[-1]}"))
            continue
        num_read, clock = answers[name]
        # An answer was given at some time between `before` and `after`.
        off = min(clock - before, 0.0) + max(clock - after, 0.0)
        facts = {"num_gpus": num_gpus, "clock_seconds": off, "num_unread": num_written - num_read}
        problems = "; ".join(list_node_problems(state, found, **facts)) or NO_PROBLEM
        gpus, memory = f"{state.num_gpus} of {num_gpus:g}", f"{state.shared_memory_bytes / 1e9:.1f} GB"
        rows.append((name, gpus, ", ".join(state.versions[:2]), f"{off:+.1f} s", memory, problems))
    columns = ("node", "GPUs", "device and libraries", "clock", "/dev/shm", "what to do")
    console.print(build_table(SectionTable(columns=columns, rows=tuple(rows), text=(2, 3, 6))))
    return all(row[-1] == NO_PROBLEM for row in rows)
