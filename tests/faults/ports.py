"""R14: requests without the token and with a wrong one to every port that a cluster listens on."""

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import grpc
import psutil

from tests.faults.campaign import Outcome
from tests.faults.nodes import LocalCluster, free_port, local_cluster
from tests.faults.process_tree import descendants, is_alive

NO_PROTOCOL = "no such protocol"
# One method of every gRPC service that a Ray process may offer. An empty message is a valid request of each.
METHODS = (
    "NodeInfoGcsService/GetAllNodeInfo", "JobInfoGcsService/GetAllJobInfo", "InternalKVGcsService/InternalKVKeys",
    "NodeManagerService/GetNodeStats", "NodeManagerService/GetSystemConfig", "ObjectManagerService/Pull",
    "ObjectManagerService/Push", "CoreWorkerService/GetCoreWorkerStats", "RayletDriver/ClusterInfo",
    "ReporterService/GetTraceback", "LogService/ListLogs",
)  # fmt: skip
PATHS = (
    "/", "/api/version", "/api/jobs/", "/api/cluster_status", "/api/serve/applications/", "/logs", "/nodes", "/metrics"
)  # fmt: skip
STATIC_PAGE = b"<!doctype html"
# A command for the job server, in a folder of the machine that must stay empty.
JOB = "touch {marker}"
MARKER = "a-job-ran"
# Ray starts its job server, and the agents that other machines' jobs talk to, where their packages are installed.
HAS_JOB_SERVER = find_spec("aiohttp") is not None
HEADERS: dict[str, dict[str, str]] = {"no token": {}, "wrong token": {"authorization": "Bearer " + "f" * 64}}


class Reply(NamedTuple):
    """A request to a port of a process, and its answer.

    The answer is "refused", "unknown" (the port does not know the method or path), "no such protocol", "static page" (that of
    the dashboard, which asks for the token) or "accepted: ...".
    """

    process: str
    place: str
    header: str
    request: str
    answer: str


def probe_ports() -> Outcome:
    """R14: none of the cluster's ports accepts a request without the token or with a wrong one.

    The job server's are among them where Ray's packages for it are installed (``abstudy[submit]``).
    """
    jobs_port = free_port() if HAS_JOB_SERVER else None
    with local_cluster(1, dashboard_port=jobs_port) as cluster, _actor_on(cluster) as driver:
        _wait_until_steady(cluster)
        ports = listening_ports(cluster, driver)
        assert jobs_port is None or f"127.0.0.1:{jobs_port}" in ports, "the job server does not listen"
        marker = cluster.scratch / MARKER
        replies = [reply for place, process in sorted(ports.items()) for reply in probe_port(place, process, marker)]
        if marker.exists():
            replies.append(
                Reply("job server", f"127.0.0.1:{jobs_port}", "either", "POST /api/jobs/", "accepted: the job ran")
            )
    accepted = [r for r in replies if r.answer.startswith("accepted")]
    refused = {r.place for r in replies if r.answer == "refused"}
    names = ", ".join(sorted(set(ports.values()))) + (
        " (with the job server)" if HAS_JOB_SERVER else " (no job server)"
    )
    return Outcome(
        fault="R14 open ports",
        injected=len(ports),
        survived=len(ports) - len({r.place for r in accepted}),
        lost=tuple(f"{r.process} at {r.place}, {r.header}, {r.request}: {r.answer}" for r in accepted),
        seen=f"{len(replies)} requests to {names}; {len(refused)} ports refused by token, the others know none of them",
    )


@contextmanager
def _actor_on(cluster: LocalCluster) -> Iterator[int]:
    """Hold an actor on the cluster, as a study holds its trials; yield the driver's process."""
    driver = cluster.start_program(
        "@ray.remote(num_cpus=1)\n"
        "class Actor:\n"
        "    def answer(self): return 1\n"
        "actor = Actor.remote()\n"
        "print('answered', ray.get(actor.answer.remote()), flush=True)\n"
        "time.sleep(600)\n"
    )
    try:
        assert driver.stdout is not None
        assert any(line.strip() == "answered 1" for line in driver.stdout), "no actor started"
        yield driver.pid
    finally:
        driver.kill()
        driver.communicate()


def listening_ports(cluster: LocalCluster, driver: int | None = None) -> dict[str, str]:
    """Return every "address:port" on which the cluster's processes, and a driver's, listen, with the process's name."""
    found = {}
    for root in [*(node.pid for node in (cluster.head, *cluster.workers)), *([] if driver is None else [driver])]:
        for process in [psutil.Process(root), *descendants(root)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                for link in process.net_connections("tcp"):
                    if link.status == psutil.CONN_LISTEN:
                        host = link.laddr.ip.removeprefix("::ffff:")
                        host = "127.0.0.1" if host in {"::", "::1", "0.0.0.0"} else host
                        found[f"{host}:{link.laddr.port}"] = _name(process)
    return found


def probe_port(place: str, process: str, marker: Path) -> list[Reply]:
    """Send every request to one port, without the token and with a wrong one; a job that is accepted makes the file `marker`."""
    replies = []
    jobs = (("POST", "/api/jobs/", json.dumps({"entrypoint": JOB.format(marker=marker)})),)
    asked = [*(("GET", path, "") for path in PATHS), *jobs]
    for header, values in HEADERS.items():
        with grpc.insecure_channel(place) as channel:
            call = partial(_call_grpc, channel, tuple(values.items()))
            for method in METHODS:
                replies.append(Reply(process, place, header, method, call(method)))
                if replies[-1].answer == NO_PROTOCOL:
                    break
        for verb, path, body in asked:
            answer = _ask_http(place, values, verb, path, body)
            replies.append(Reply(process, place, header, f"{verb} {path}", answer))
            if answer == NO_PROTOCOL:
                break
    return replies


def _call_grpc(channel: grpc.Channel, metadata: tuple[tuple[str, str], ...], method: str) -> str:
    call = channel.unary_unary(f"/ray.rpc.{method}", request_serializer=bytes, response_deserializer=bytes)
    try:
        reply = call(b"", timeout=2.0, metadata=metadata)
    except grpc.RpcError as error:
        code = error.code()  # type: ignore[attr-defined]
        if code == grpc.StatusCode.UNAUTHENTICATED:
            return "refused"
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return "unknown"
        if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL}:
            return NO_PROTOCOL
        return f"accepted: {code}"
    return f"accepted: {len(reply)} bytes"


def _ask_http(place: str, headers: dict[str, str], verb: str, path: str, body: str) -> str:
    link = http.client.HTTPConnection(place, timeout=2.0)
    try:
        link.request(verb, path, body or None, {**headers, "content-type": "application/json"} if body else headers)
        response = link.getresponse()
        content = response.read()
    except (TimeoutError, http.client.HTTPException, OSError):
        return NO_PROTOCOL
    finally:
        link.close()
    if response.status in {401, 403}:
        return "refused"
    if verb == "GET" and content.startswith(STATIC_PAGE):
        return "static page"
    return "unknown" if response.status in {404, 405} else f"accepted: {response.status}, {content[:60]!r}"


def _wait_until_steady(cluster: LocalCluster) -> None:
    """Wait until no further port has appeared for five seconds, a minute at most."""
    known: set[str] = set()
    since = time.monotonic()
    until = since + 60
    while time.monotonic() < until and time.monotonic() - since < 5:
        now = set(listening_ports(cluster))
        if now != known:
            known, since = now, time.monotonic()
        time.sleep(0.5)
    assert is_alive(cluster.head.pid)


def _name(process: psutil.Process) -> str:
    """Return the name of a Ray process: its title, or the program of Ray that it runs."""
    words = " ".join(process.cmdline()).split() or [process.name()]
    ray = (w for w in words if w.startswith("ray::") or ("/ray/" in w and not w.endswith("python")))
    return Path(next(ray, words[0])).name
