"""R14: every port that a cluster listens on, asked without the token and with a wrong one."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from tests.faults.campaign import Outcome, children, is_alive
from tests.faults.nodes import LocalCluster, local_cluster

# One method of every gRPC service that a Ray process may offer. An empty message is a valid request of each.
METHODS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.NodeManagerService/GetSystemConfig",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.ObjectManagerService/Push",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.RayletDriver/ClusterInfo",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.rpc.LogService/ListLogs",
)
PATHS = (
    "/",
    "/api/version",
    "/api/jobs/",
    "/api/cluster_status",
    "/api/serve/applications/",
    "/logs",
    "/nodes",
    "/metrics",
)
HEADERS: dict[str, dict[str, str]] = {"no token": {}, "wrong token": {"authorization": "Bearer " + "f" * 64}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """One request and its answer.

    Attributes:
        place: address and port.
        answer: "refused", "unknown" (the port does not know the method or path), "no such protocol" or "accepted: ...".
    """

    process: str
    place: str
    header: str
    request: str
    answer: str


def knock_at_ports() -> Outcome:
    """R14: none of the cluster's ports does anything for one who has no token or a wrong one."""
    with local_cluster(1) as cluster, _actor_on(cluster) as driver:
        _wait_until_steady(cluster)
        ports = listening_ports(cluster, driver)
        knocks = [knock for place, process in sorted(ports.items()) for knock in knock_at(place, process)]
    accepted = [k for k in knocks if k.answer.startswith("accepted")]
    open_ports = {k.place for k in accepted}
    refused = {k.place for k in knocks if k.answer == "refused"}
    names = sorted(set(ports.values()))
    return Outcome(
        fault="R14 open ports",
        injected=len(ports),
        survived=len(ports) - len(open_ports),
        lost=tuple(f"{k.process} at {k.place}, {k.header}, {k.request}: {k.answer}" for k in accepted),
        seen=f"{len(knocks)} requests to {', '.join(names)}; {len(refused)} ports refused by token, the others know none of them",
    )


@contextmanager
def _actor_on(cluster: LocalCluster) -> Iterator[int]:
    """Hold an actor on the cluster, as a study holds its trials; yield the driver's process."""
    program = (
        "import ray, time\n"
        f"ray.init(address={cluster.address!r}, log_to_driver=False)\n"
        "@ray.remote(num_cpus=1)\n"
        "class Actor:\n"
        "    def answer(self): return 1\n"
        "actor = Actor.remote()\n"
        "print(ray.get(actor.answer.remote()), flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, **cluster.environment}
    driver = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline().strip() == "1", "no actor started"
        yield driver.pid
    finally:
        driver.kill()
        driver.communicate()


def listening_ports(cluster: LocalCluster, driver: int | None = None) -> dict[str, str]:
    """Return every address and TCP port that the cluster's processes, and a driver's, listen on, with the process's name."""
    inodes = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                inodes[fields[9]] = _address(fields[1])
    found = {}
    roots = [node.pid for node in (cluster.head, *cluster.workers)]
    for root in roots if driver is None else [*roots, driver]:
        for pid in (root, *children(root)):
            for handle in _handles(pid):
                if handle.startswith("socket:[") and handle[8:-1] in inodes:
                    found[inodes[handle[8:-1]]] = _name(pid)
    return found


def knock_at(place: str, process: str) -> list[Knock]:
    """Ask one port everything, without the token and with a wrong one."""
    knocks = []
    for header, values in HEADERS.items():
        metadata = tuple(values.items())
        with grpc.insecure_channel(place) as channel:
            for method in METHODS:
                answer = _ask_grpc(channel, method, metadata)
                knocks.append(Knock(process=process, place=place, header=header, request=method, answer=answer))
                if answer == "no such protocol":
                    break
        for path in PATHS:
            answer = _ask_http(place, path, values)
            knocks.append(Knock(process=process, place=place, header=header, request=path, answer=answer))
            if answer == "no such protocol":
                break
    return knocks


def _ask_grpc(channel: grpc.Channel, method: str, metadata: tuple[tuple[str, str], ...]) -> str:
    call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
    try:
        reply = call(b"", timeout=2.0, metadata=metadata)
    except grpc.RpcError as error:
        code = error.code()  # type: ignore[attr-defined]
        if code == grpc.StatusCode.UNAUTHENTICATED:
            return "refused"
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return "unknown"
        if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL}:
            return "no such protocol"
        return f"accepted: {code}"
    return f"accepted: {len(reply)} bytes"


def _ask_http(place: str, path: str, headers: dict[str, str]) -> str:
    link = http.client.HTTPConnection(place, timeout=2.0)
    try:
        link.request("GET", path, headers=headers)
        response = link.getresponse()
        body = response.read()
    except (TimeoutError, http.client.HTTPException, OSError):
        return "no such protocol"
    finally:
        link.close()
    if response.status in {401, 403}:
        return "refused"
    return "unknown" if response.status in {404, 405} else f"accepted: {response.status}, {body[:60]!r}"


def _wait_until_steady(cluster: LocalCluster, seconds: float = 20.0) -> None:
    """Wait until no further port has appeared for some seconds."""
    known: set[str] = set()
    since = time.monotonic()
    until = since + 60
    while time.monotonic() < until and time.monotonic() - since < seconds / 4:
        now = set(listening_ports(cluster))
        if now != known:
            known, since = now, time.monotonic()
        time.sleep(0.5)
    assert is_alive(cluster.head.pid)


def _address(entry: str) -> str:
    """Return the address of an entry of /proc/net/tcp, such as "0100007F:1F90"; loopback where it listens everywhere."""
    address, _, port = entry.rpartition(":")
    octets = bytes.fromhex(address[-8:])[::-1]
    return f"{'127.0.0.1' if not any(octets) else '.'.join(map(str, octets))}:{int(port, 16)}"


def _handles(pid: int) -> list[str]:
    try:
        return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _name(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ").split()
    chosen = next(
        (w for w in words if ("ray" in w and not w.endswith("python") and "/ray/" in w) or w.startswith("ray::")),
        words[0],
    )
    return Path(chosen).name
