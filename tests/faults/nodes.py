"""Faults of nodes: several raylets on this machine, started by the commands of cluster.yaml, and what kills parts of them."""

import os
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.faults.campaign import (
    EXIT_DONE,
    LOG_NAME,
    ROOT,
    Campaign,
    Outcome,
    children,
    draw,
    is_alive,
    kill,
    kill_session,
)
from tests.faults.judge import LOG
from tests.faults.processes import describe_end, find_restarted

BIN = Path(sys.executable).parent


@dataclass(slots=True)
class LocalCluster:
    """A head that runs no trial and workers that hold one CPU and one logical GPU each.

    Attributes:
        address: of the head.
        environment: the token's variables, for drivers.
        head, workers: processes of ``ray start --block``, each with its node's processes below it.
    """

    address: str
    environment: dict[str, str]
    scratch: Path
    head: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add_worker(self) -> subprocess.Popen[bytes]:
        """Start a worker as cluster.yaml does; its CPU and GPU are logical."""
        command = start_command("worker", head_ip="127.0.0.1")
        options = ["--node-ip-address=127.0.0.1", f"--address={self.address}", "--num-cpus=1", "--num-gpus=1"]
        worker = _run_node([*command, *options, "--object-manager-port=0"], self.environment)
        self.workers.append(worker)
        return worker

    def wait_for_workers(self, number: int) -> None:
        """Wait until the head knows of this many workers; raise AssertionError after two minutes."""
        program = (
            "import ray, sys, time\n"
            f"ray.init(address={self.address!r}, log_to_driver=False)\n"
            "until = time.monotonic() + 120\n"
            f"while sum(n['Alive'] and n['Resources'].get('CPU', 0) > 0 for n in ray.nodes()) < {number}:\n"
            "    assert time.monotonic() < until, 'the workers did not come'\n"
            "    time.sleep(0.2)\n"
        )
        environment = {**os.environ, **self.environment}
        waited = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
        )
        assert waited.returncode == 0, waited.stderr

    def drop_worker(self, worker: subprocess.Popen[bytes]) -> None:
        """kill -9 of everything that the node runs."""
        _kill_node(worker)
        self.workers.remove(worker)

    def raylet(self, worker: subprocess.Popen[bytes]) -> int:
        """Return the process of a node's raylet."""
        return next(pid for pid in children(worker.pid) if _command(pid).endswith("/raylet"))

    def gcs(self) -> int:
        """Return the process of the head's control store."""
        return next(pid for pid in children(self.head.pid) if _command(pid).endswith("/gcs_server"))

    def worker_of(self, pid: int) -> subprocess.Popen[bytes] | None:
        """Return the node on which a process runs."""
        return next((worker for worker in self.workers if pid in children(worker.pid)), None)


def start_command(node: str, *, head_ip: str) -> list[str]:
    """Return the words of cluster.yaml's ``ray start`` for "head" or "worker", without what only its launcher has.

    Its ``ray stop`` is left out: it would end every Ray of this machine.
    """
    commands = yaml.safe_load((ROOT / "cluster.yaml").read_text())[f"{node}_start_ray_commands"]
    (command,) = [c for c in commands if "ray start" in c]
    words = shlex.split(command.replace("$RAY_HEAD_IP", head_ip))
    return [word for word in words if not word.startswith("--autoscaling-config")]


@contextmanager
def local_cluster(num_workers: int, folder: Path | None = None) -> Iterator[LocalCluster]:
    """Start a cluster with a token of its own; end it with everything that it started.

    The trials of a campaign in `folder` write their log there: they inherit the nodes' environment, not the driver's.
    """
    # Ray's sockets have paths of at most 107 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="abf-", dir="/tmp"))
    port = free_port()
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
        "PYTHONPATH": str(ROOT),
        "HOME": str(scratch),
    }
    if folder is not None:
        environment[LOG] = str(folder / LOG_NAME)
    address = f"127.0.0.1:{port}"
    options = [
        "--node-ip-address=127.0.0.1",
        f"--port={port}",
        "--object-manager-port=0",
        f"--temp-dir={scratch / 'ray'}",
    ]
    limits = ["--num-cpus=0", "--num-gpus=0", "--object-store-memory=150000000"]
    head = _run_node([*start_command("head", head_ip="127.0.0.1"), *options, *limits], environment)
    cluster = LocalCluster(address=address, environment=environment, scratch=scratch, head=head)
    try:
        _wait_for_port(port, head)
        for number in range(num_workers):
            cluster.add_worker()
            cluster.wait_for_workers(number + 1)
        yield cluster
    finally:
        for node in (*cluster.workers, head):
            _kill_node(node)
        shutil.rmtree(scratch, ignore_errors=True)


def lose_nodes(folder: Path, count: int) -> Outcome:
    """R2: kill -9 of a raylet with all its children, while it computes a trial; another node takes its place."""
    with local_cluster(2, folder) as cluster:
        campaign = make_campaign(folder, cluster, num_trials=max(6, count), retries=10)
        campaign.start()
        struck = 0
        while struck < count and lose_node(campaign, cluster, random.Random(struck)):
            struck += 1
        status, output = campaign.end(600)
    retries = sum(r.attempts - 1 for r in campaign.records().values())
    return Outcome(
        fault="R2 node lost",
        injected=struck,
        survived=struck if status == EXIT_DONE else 0,
        lost=(*campaign.find_losses(expected=campaign.num_trials), *describe_end(status, output)),
        seen=f"{retries} retries recorded",
    )


def lose_node(campaign: Campaign, cluster: LocalCluster, chooser: random.Random) -> bool:
    """Kill a node that computes a trial, and start another; return False if the study ended before."""
    while campaign.wait_for(lambda: bool(campaign.running_pids()), 240):
        time.sleep(chooser.uniform(0.5, 3.0))
        pids = campaign.running_pids()
        worker = cluster.worker_of(chooser.choice(pids)) if pids else None
        if worker is not None:
            cluster.drop_worker(worker)
            cluster.add_worker()
            return True
    return False


def orphan_trials(folder: Path, count: int) -> Outcome:
    """R3: the raylet alone is killed while its trial stands still; the trial, started elsewhere by then, wakes up again."""
    ends: list[str] = []
    with local_cluster(2, folder) as cluster:
        campaign = make_campaign(folder, cluster, num_trials=max(6, count), retries=10)
        campaign.start()
        while len(ends) < count and (end := orphan_trial(campaign, cluster, random.Random(len(ends)))):
            ends.append(end)
        status, output = campaign.end(600)
    return Outcome(
        fault="R3 orphan",
        injected=len(ends),
        survived=len(ends) - ends.count("alive") if status == EXIT_DONE else 0,
        lost=(
            *campaign.find_losses(expected=campaign.num_trials),
            *find_late_writes(campaign),
            *describe_end(status, output),
        ),
        seen=f"{ends.count('refused')} orphans were refused their checkpoint, {ends.count('gone')} ended before they wrote",
    )


def orphan_trial(campaign: Campaign, cluster: LocalCluster, chooser: random.Random) -> str:
    """Make one orphan.

    Returns what became of it: "refused" (it came to write, and was not let), "gone" (it ended before), "alive"; "" if the
    study ended before there was one.
    """
    while campaign.wait_for(lambda: bool(campaign.running_pids()), 240):
        time.sleep(chooser.uniform(0.5, 2.0))
        pids = campaign.running_pids()
        pid = chooser.choice(pids) if pids else 0
        worker = cluster.worker_of(pid) if pid else None
        if worker is None:
            continue
        line = [x for x in campaign.lines() if x.pid == pid][-1]
        kill(pid, signal.SIGSTOP)
        kill(cluster.raylet(worker), signal.SIGKILL)
        cluster.add_worker()
        campaign.wait_for(
            lambda seen=line: any(x.trial == seen.trial and x.attempt > seen.attempt for x in campaign.lines()),  # type: ignore[misc]
            240,
        )
        kill(pid, signal.SIGCONT)
        until = time.monotonic() + 20
        while is_alive(pid) and time.monotonic() < until:
            time.sleep(0.1)
        end = "alive" if is_alive(pid) else "gone"
        if any(x.pid == pid and x.event == "refused" and x.trial == line.trial for x in campaign.lines()):
            end = "refused"
        cluster.drop_worker(worker)
        return end
    return ""


def lose_heads(folder: Path, count: int) -> Outcome:
    """R5: the head's GCS is killed; the study is resumed on a new cluster."""
    campaign = Campaign(folder, num_trials=max(8, 4 * count), max_epochs=3)
    struck, statuses = 0, []
    command = "launch"
    while struck < count:
        with local_cluster(2, folder) as cluster:
            campaign.address, campaign.environment = cluster.address, cluster.environment
            campaign.overrides = _OVERRIDES
            campaign.start(command)
            command = "resume"
            known = len(campaign.lines())
            if not campaign.wait_for(lambda known=known: len(campaign.lines()) > known + 1, 240):  # type: ignore[misc]
                break
            time.sleep(draw(struck, 1.0, 6.0))
            campaign.note_finished()
            kill(cluster.gcs(), signal.SIGKILL)
            struck += 1
            try:
                status, _ = campaign.end(120)
                statuses.append(status)
            except subprocess.TimeoutExpired:
                statuses.append(-99)
                campaign.kill_driver()
            campaign.note_finished()
    with local_cluster(2, folder) as cluster:
        campaign.address, campaign.environment = cluster.address, cluster.environment
        campaign.start("resume")
        status, output = campaign.end(600)
    return Outcome(
        fault="R5 head lost",
        injected=struck,
        survived=struck if status == EXIT_DONE else 0,
        lost=(
            *campaign.find_losses(expected=campaign.num_trials),
            *find_restarted(campaign),
            *describe_end(status, output),
        ),
        seen=f"the drivers ended with {sorted(set(statuses))}; each study went on on a new cluster",
    )


_OVERRIDES = ("resources.gpu=1", "resources.cpu=1", 'resources.device="cpu"')


def make_campaign(folder: Path, cluster: LocalCluster, *, num_trials: int, retries: int) -> Campaign:
    """Return the campaign of a small study whose trials hold one CPU and one logical GPU each."""
    return Campaign(
        folder,
        address=cluster.address,
        environment=cluster.environment,
        num_trials=num_trials,
        max_epochs=4,
        retries=retries,
        overrides=_OVERRIDES,
    )


def find_late_writes(campaign: Campaign) -> tuple[str, ...]:
    """Return the epochs that a start stored after a later start of its trial had begun."""
    lines = campaign.lines()
    begun = {(x.trial, x.attempt): x.time for x in lines if x.event == "start"}
    return tuple(
        f"{x.trial}: start {x.attempt} stored epoch {x.epoch} after start {x.attempt + 1} had begun"
        for x in lines
        if x.event == "epoch" and x.time > begun.get((x.trial, x.attempt + 1), float("inf"))
    )


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run_node(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    variables = dict(word.split("=", 1) for word in command if "=" in word and not word.startswith("-"))
    words = [word for word in command if word.startswith("-") or "=" not in word]
    assert words[:2] == ["ray", "start"], words
    return subprocess.Popen(
        [str(BIN / "ray"), *words[1:], "--block"],
        env={**os.environ, **variables, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _kill_node(node: subprocess.Popen[bytes]) -> None:
    for pid in [*children(node.pid), node.pid]:
        kill(pid, signal.SIGKILL)
    kill_session(node.pid)
    node.wait()


def _wait_for_port(port: int, head: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert head.poll() is None, "the head did not start"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the head does not listen after 60 s")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""
