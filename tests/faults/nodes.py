"""Faults of nodes: several raylets on this machine, started by the commands of cluster.yaml, of which some are killed."""

import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from unittest import mock

import yaml
from ray.util import get_node_ip_address

from docs import spot_notice
from tests.faults.campaign import EXIT_DONE, LOG_NAME, ROOT, Campaign, Outcome, draw
from tests.faults.judge import LOG
from tests.faults.process_tree import descendants, is_alive, kill, kill_session, wait_until
from tests.faults.processes import find_other_decisions

BIN = Path(sys.executable).parent
# Of the nodes that have joined, the head's line first.
JOINED = """
until = time.monotonic() + 120
for number in range({number} + 1):
    while sum(n["Alive"] and n["Resources"].get("CPU", 0) > 0 for n in ray.nodes()) < number:
        assert time.monotonic() < until, "the workers did not join"
        time.sleep(0.2)
    print("joined", number, flush=True)
"""
TRIAL_RESOURCES = ("resources.gpu=1", "resources.cpu=1", 'resources.device="cpu"')


@dataclass(slots=True)
class LocalCluster:
    """A head that runs no trial and workers that hold one CPU and one logical GPU each.

    Attributes:
        address: of the head.
        environment: variables for drivers, with the token.
        head, workers: processes of ``ray start --block``, each with its node's processes below it.
    """

    address: str
    environment: dict[str, str]
    scratch: Path
    head: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add_worker(self, prefix: Sequence[str] = (), host: str = "") -> subprocess.Popen[bytes]:
        """Start a worker as cluster.yaml does, by a command with a `prefix` at another `host`; its CPU and GPU are logical."""
        options = [f"--address={self.address}", "--num-cpus=1", "--num-gpus=1"]
        command = [*start_command("worker", head_ip=find_host()), *options]
        worker = _start_node(command, self.environment, prefix, host)
        self.workers.append(worker)
        return worker

    def add_workers(self, number: int, add: Callable[[], object] | None = None) -> None:
        """Add workers one after the other, the first when the head is there; raise AssertionError after two minutes."""
        with self.start_program(JOINED.format(number=number)) as watcher:
            assert watcher.stdout is not None
            output = ""
            for line in watcher.stdout:
                output += line
                if line.startswith("joined ") and line != f"joined {number}\n":
                    (add or self.add_worker)()
        assert watcher.returncode == 0, output

    def start_program(self, program: str) -> subprocess.Popen[str]:
        """Start a Python program that is connected to the cluster and has imported ray and time."""
        connect = f"import ray, time\nray.init(address={self.address!r}, log_to_driver=False)\n"
        return subprocess.Popen(
            [sys.executable, "-c", connect + program],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def drop_worker(self, worker: subprocess.Popen[bytes]) -> None:
        """Send SIGKILL to every process of the node."""
        _kill_node(worker)
        self.workers.remove(worker)

    def raylet(self, worker: subprocess.Popen[bytes]) -> int:
        """Return the process of a node's raylet."""
        return _find_process(worker, "raylet")

    def gcs(self) -> int:
        """Return the process of the head's global control store."""
        return _find_process(self.head, "gcs_server")

    def worker_of(self, pid: int) -> subprocess.Popen[bytes] | None:
        """Return the node on which a process runs."""
        return next((w for w in self.workers if pid in [process.pid for process in descendants(w.pid)]), None)


def start_command(node: str, *, head_ip: str) -> list[str]:
    """Return the words of cluster.yaml's ``ray start`` for "head" or "worker", without the options that need its launcher.

    Its ``ray stop`` is left out: it would end every Ray of this machine.
    """
    commands = yaml.safe_load((ROOT / "cluster.yaml").read_text())[f"{node}_start_ray_commands"]
    (command,) = [c for c in commands if "ray start" in c]
    words = shlex.split(command.replace("$RAY_HEAD_IP", head_ip))
    return [word for word in words if not word.startswith("--autoscaling-config")]


@contextmanager
def local_cluster(
    num_workers: int,
    folder: Path | None = None,
    *,
    variables: Mapping[str, str] = MappingProxyType({}),
    python_path: Path | None = None,
    dashboard_port: int | None = None,
    head_cpus: int = 0,
    head_gpus: int = 0,
) -> Iterator[LocalCluster]:
    """Start a cluster with its own token; end it with all its processes.

    The trials of a campaign in `folder` write their log there: they inherit the nodes' environment, not the driver's. So do
    `variables`, and a folder of modules, `python_path`. With `dashboard_port`, the head has a job server, and with `head_cpus` it
    runs trials, which may hold its `head_gpus` logical GPUs.
    """
    # Ray's sockets have paths of at most 107 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="abf-", dir="/tmp"))
    port = free_port()
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, (python_path, ROOT)))),
        "HOME": str(scratch),
        **({LOG: str(folder / LOG_NAME)} if folder else {}),
        **variables,
    }
    limits = [f"--num-cpus={head_cpus}", f"--num-gpus={head_gpus}", "--object-store-memory=150000000"]
    options = [f"--port={port}", f"--temp-dir={scratch / 'ray'}", *limits]
    if dashboard_port is not None:
        options += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]
    head = _start_node([*start_command("head", head_ip=find_host()), *options], environment)
    address = f"{find_host()}:{port}"
    cluster = LocalCluster(address=address, environment=environment, scratch=scratch, head=head)
    try:
        assert wait_until(lambda: head.poll() is not None or _listens(port), 60), "the head does not listen after 60 s"
        assert head.poll() is None, "the head did not start"
        # The port answers before the head's raylet is there. A worker that starts meanwhile may take its socket.
        cluster.add_workers(num_workers)
        yield cluster
    finally:
        for node in (*cluster.workers, head):
            _kill_node(node)
        shutil.rmtree(scratch, ignore_errors=True)


def lose_nodes(folder: Path, count: int) -> Outcome:
    """R2: SIGKILL of a raylet with all its children, while it computes a trial; another node replaces it."""
    with local_cluster(2, folder) as cluster:
        campaign = make_campaign(folder, cluster, num_trials=max(6, 4 * count), retries=10)
        campaign.start()
        struck = campaign.strike(count, (0.5, 3.0), partial(replace_node, cluster))
        campaign.end(600)
    retries = sum(r.attempts - 1 for r in campaign.records().values())
    return campaign.outcome("R2 node lost", struck, f"{retries} retries recorded")


def replace_node(cluster: LocalCluster, pid: int) -> bool:
    """Kill the node of a process, and start another; return False if it has none."""
    worker = cluster.worker_of(pid)
    if worker is not None:
        cluster.drop_worker(worker)
        cluster.add_worker()
    return worker is not None


# Of processes that are given, what `ray stop` does to those of the whole machine.
RAY_STOP = """
import sys, psutil
from ray.scripts.scripts import stop
psutil.process_iter = lambda *_: [psutil.Process(int(pid)) for pid in sys.argv[1:] if psutil.pid_exists(int(pid))]
stop.main(["--grace-period", "15"])
"""


def stop_nodes(folder: Path, count: int) -> Outcome:
    """R2 stop: the machine of a trial is announced to end; its trials are told, then `ray stop` ends the node."""
    with local_cluster(2, folder) as cluster:
        campaign = make_campaign(folder, cluster, num_trials=max(4, 2 * count), retries=10)
        campaign.start()
        struck = campaign.strike(count, (0.5, 3.0), partial(stop_node, cluster))
        campaign.end(600)
    left = [line for line in campaign.lines() if line.event == "left"]
    return campaign.outcome(
        "R2 node stopped",
        struck,
        f"{len(left)} trials left with a checkpoint; no step was trained twice",
        again_per_attempt=0,
        lost=find_lost_steps(campaign),
    )


def stop_node(cluster: LocalCluster, pid: int) -> bool:
    """Stop the node of a process as docs/spot_notice.py does, and start another; return False if it has none."""
    worker = cluster.worker_of(pid)
    if worker is None:
        return False
    own = {process.pid for process in descendants(worker.pid)}
    list_all = spot_notice.list_workers

    def list_own() -> set[int]:
        return list_all() & own

    with mock.patch.object(spot_notice, "list_workers", list_own):
        spot_notice.stop_node((sys.executable, "-c", RAY_STOP, *map(str, own)))
    cluster.drop_worker(worker)
    cluster.add_worker()
    return True


def find_lost_steps(campaign: Campaign) -> tuple[str, ...]:
    """Return the attempts that began at an earlier step than the one before them had left at."""
    lines = campaign.lines()
    left = {(x.trial, x.attempt): x.steps for x in lines if x.event == "left"}
    return tuple(
        f"{x.trial}: attempt {x.attempt} began at step {x.steps}, attempt {x.attempt - 1} had left at {steps}"
        for x in lines
        if x.event == "start" and x.steps < (steps := left.get((x.trial, x.attempt - 1), 0))
    )


# A node that stands still is given up after 20 s instead of a minute.
IMPATIENT = {
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_period_ms": "1500",
    "RAY_health_check_failure_threshold": "3",
}
Orphaning = Callable[[Campaign, LocalCluster, subprocess.Popen[bytes]], None]


def orphan_trials(folder: Path, count: int) -> Outcome:
    """R3: the raylet alone is stopped, or killed, while its trial is; the trial, retried elsewhere by then, continues.

    With its raylet killed, Linux kills the trial's process at once; with it stopped, that meets its retry.
    """
    numbers = cycle((signal.SIGSTOP, signal.SIGSTOP, signal.SIGSTOP, signal.SIGKILL))
    return _orphan_trials(folder, count, "R3 orphan", lambda *place: lose_raylet(next(numbers), *place))


def orphan_studies(folder: Path, count: int) -> Outcome:
    """R16: the driver alone is killed while a node of the cluster stands still; its trial continues after the resume."""
    return _orphan_trials(folder, count, "R16 driver killed on a cluster", kill_driver)


def lose_raylet(number: signal.Signals, _: Campaign, cluster: LocalCluster, worker: subprocess.Popen[bytes]) -> None:
    """Send a signal to the raylet alone."""
    kill(cluster.raylet(worker), number)


def kill_driver(campaign: Campaign, cluster: LocalCluster, worker: subprocess.Popen[bytes]) -> None:
    """Kill the driver alone, and resume; the raylet, which would end the trial's process within a second, is stopped before."""
    kill(cluster.raylet(worker), signal.SIGSTOP)
    campaign.note_finished()
    campaign.kill_driver()
    campaign.note_finished()
    campaign.start("resume")


def _orphan_trials(folder: Path, count: int, fault: str, orphaning: Orphaning) -> Outcome:
    ends: list[str] = []
    with local_cluster(2, folder, variables=IMPATIENT) as cluster:
        campaign = make_campaign(folder, cluster, num_trials=max(6, 4 * count), retries=10)
        campaign.start()
        struck = campaign.strike(count, (0.5, 2.0), partial(orphan_trial, campaign, cluster, ends, orphaning))
        status, _ = campaign.end(600)
    return campaign.outcome(
        fault,
        struck,
        f"orphans that were refused their checkpoint: {ends.count('refused')}; that ended before: {ends.count('gone')}",
        survived=struck - ends.count("alive") if status == EXIT_DONE else 0,
        lost=(*find_late_writes(campaign), *find_other_decisions(campaign.root)),
    )


def orphan_trial(campaign: Campaign, cluster: LocalCluster, ends: list[str], orphaning: Orphaning, pid: int) -> bool:
    """Make an orphan of a trial's process, and append its end; return False if it has no node or had ended its trial.

    Its end is "refused" (its checkpoint was not accepted), "gone" (it ended before it wrote one) or "alive".
    """
    worker = cluster.worker_of(pid)
    if worker is None:
        return False
    line = [x for x in campaign.lines() if x.pid == pid][-1]
    kill(pid, signal.SIGSTOP)
    orphaning(campaign, cluster, worker)
    cluster.add_worker()

    def is_retried() -> bool:
        return any(x.trial == line.trial and x.attempt > line.attempt for x in campaign.lines())

    def has_ended() -> bool:
        record = campaign.records().get(line.trial.removeprefix("trials/"))
        return record is not None and record.state.is_finished

    def is_refused() -> bool:
        return any(x.pid == pid and x.event == "refused" and x.trial == line.trial for x in campaign.lines())

    campaign.wait_for(lambda: is_retried() or has_ended(), 240)
    kill(pid, signal.SIGCONT)
    is_gone = wait_until(lambda: is_refused() or not is_alive(pid), 20)
    cluster.drop_worker(worker)
    if not is_retried():
        # Its trial had ended before it was stopped, so that it was no orphan.
        return False
    ends.append("refused" if is_refused() else "gone" if is_gone else "alive")
    return True


def lose_heads(folder: Path, count: int) -> Outcome:
    """R5: the head's global control store is killed; the study is resumed on a new cluster."""
    campaign = Campaign(folder, num_trials=max(8, 4 * count), max_epochs=3, overrides=TRIAL_RESOURCES)
    struck, statuses = 0, []
    while struck < count:
        with local_cluster(2, folder) as cluster:
            campaign.address, campaign.environment = cluster.address, cluster.environment
            campaign.start("resume" if struck else "launch")
            known = len(campaign.lines())
            if not campaign.wait_for(lambda known=known: len(campaign.lines()) > known + 1, 240):  # type: ignore[misc]
                break
            time.sleep(draw(struck, 1.0, 6.0))
            campaign.note_finished()
            kill(cluster.gcs(), signal.SIGKILL)
            struck += 1
            try:
                statuses.append(campaign.end(120)[0])
            except subprocess.TimeoutExpired:
                statuses.append(-99)
                campaign.kill_driver()
            campaign.note_finished()
    with local_cluster(2, folder) as cluster:
        campaign.address, campaign.environment = cluster.address, cluster.environment
        campaign.start("resume")
        campaign.end(600)
    seen = f"the drivers ended with {sorted(set(statuses))}; each study was resumed on a new cluster"
    return campaign.outcome("R5 head lost", struck, seen)


def kill_jobs(folder: Path, count: int) -> Outcome:
    """R18: SIGKILL of the driver of a submitted job, which `study submit --resume` continues in another job."""
    commands, port = folder / "bin", free_port()
    commands.mkdir()
    (commands / "study").write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.faults.driver "$@"\n')
    (commands / "study").chmod(0o755)
    path = {"PATH": os.pathsep.join([str(commands), str(BIN), os.environ["PATH"]])}
    # One node alone: nodes of one machine share the folder of jobs.
    with local_cluster(0, folder, variables=path, dashboard_port=port, head_cpus=2) as cluster:
        campaign = Campaign(folder, num_trials=max(6, 2 * count), max_epochs=4)
        campaign.address, campaign.environment = f"http://127.0.0.1:{port}", cluster.environment
        statuses = []

        def kill_job(_: int) -> bool:
            jobs = [p for p in descendants(cluster.head.pid) if p.cmdline()[1:3] == ["-m", "tests.faults.driver"]]
            campaign.note_finished()
            is_killed = [kill(job.pid, signal.SIGKILL) for job in jobs] == [True]
            if is_killed:
                statuses.append(campaign.end(120)[0])
                campaign.note_finished()
                campaign.start("resubmit")
            return is_killed

        assert wait_until(lambda: _listens(port, "127.0.0.1"), 60), "the job server does not listen after 60 s"
        campaign.start("submit")
        struck = campaign.strike(count, (0.5, 4.0), kill_job)
        campaign.end(600)
    seen = f"`study submit` ended with {sorted(set(statuses))}, and with --resume in another job"
    return campaign.outcome("R18 job's driver killed", struck, seen)


def make_campaign(folder: Path, cluster: LocalCluster, *, num_trials: int, retries: int) -> Campaign:
    """Return the campaign of a small study whose trials hold one CPU and one logical GPU each."""
    campaign = Campaign(folder, num_trials=num_trials, max_epochs=4, retries=retries, overrides=TRIAL_RESOURCES)
    campaign.address, campaign.environment = cluster.address, cluster.environment
    return campaign


def find_late_writes(campaign: Campaign) -> tuple[str, ...]:
    """Return the checkpoints that an attempt stored after a later attempt at its trial had begun."""
    lines = campaign.lines()
    begun = {(x.trial, x.attempt): x.time for x in lines if x.event == "start"}
    return tuple(
        f"{x.trial}: attempt {x.attempt} stored step {x.steps} after attempt {x.attempt + 1} had begun"
        for x in lines
        if x.event == "stored" and x.time > begun.get((x.trial, x.attempt + 1), float("inf"))
    )


@cache
def find_host() -> str:
    """Return this machine's address as Ray sees it, also where a driver asks for 127.0.0.1."""
    return str(get_node_ip_address())


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind((find_host(), 0))
        return int(probe.getsockname()[1])


def _listens(port: int, host: str = "") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host or find_host(), port)) == 0


def _start_node(
    command: list[str], environment: dict[str, str], prefix: Sequence[str] = (), host: str = ""
) -> subprocess.Popen[bytes]:
    variables = dict(word.split("=", 1) for word in command if "=" in word and not word.startswith("-"))
    words = [word for word in command if word.startswith("-") or "=" not in word]
    assert words[:2] == ["ray", "start"], words
    return subprocess.Popen(
        [
            *prefix,
            str(BIN / "ray"),
            *words[1:],
            f"--node-ip-address={host or find_host()}",
            "--object-manager-port=0",
            "--block",
        ],
        env={**os.environ, **variables, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _kill_node(node: subprocess.Popen[bytes]) -> None:
    for pid in [*(process.pid for process in descendants(node.pid)), node.pid]:
        kill(pid, signal.SIGKILL)
    kill_session(node.pid)
    node.wait()


def _find_process(node: subprocess.Popen[bytes], name: str) -> int:
    return next(process.pid for process in descendants(node.pid) if process.name() == name)
