"""Before a machine is taken away, the processes of its trials are told, and Ray stops only after they have ended."""

import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import spot_notice
from docs.spot_notice import is_announced, list_workers, stop_node
from tests.faults.process_tree import wait_until

# A process with a name of Ray's, which takes a moment to store its state.
STORES = "trap 'sleep 0.5; date +%s%N > \"$1\"; exit' TERM; echo ready; while true; do sleep 0.1; done"


class _Metadata(http.server.BaseHTTPRequestHandler):
    announced = refuses = False

    def do_PUT(self) -> None:
        assert self.path == "/latest/api/token"
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200, b"TOKEN")

    def do_GET(self) -> None:
        assert self.path == "/latest/meta-data/spot/instance-action"
        assert self.headers["X-aws-ec2-metadata-token"] == "TOKEN"
        self.answer(401 if self.refuses else 200 if self.announced else 404, b'{"action": "terminate"}')

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[str]:
    """The metadata service of an imitated EC2 instance."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_notice_of_aws_is_read_with_a_token(metadata: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_announced(metadata)
    monkeypatch.setattr(_Metadata, "announced", True)
    assert is_announced(metadata)
    monkeypatch.setattr(_Metadata, "refuses", True)
    with pytest.raises(OSError, match="answered with status 401"):
        is_announced(metadata)
    with pytest.raises(ConnectionRefusedError):
        is_announced("127.0.0.1:9")


def test_ray_stops_after_the_workers_have_stored_their_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"ray::Trial{number}.train()" for number in range(2)]
    workers = []
    for name in names:
        words = [name, "-c", STORES, "shell", str(tmp_path / name[5:11])]
        workers.append(subprocess.Popen(words, executable="/bin/bash", stdout=subprocess.PIPE))
    own = {worker.pid for worker in workers}
    try:
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
            worker.stdout.close()
        assert own <= list_workers()
        assert os.getpid() not in list_workers()
        # Not those of another Ray of this machine.
        monkeypatch.setattr(spot_notice, "list_workers", lambda: {w.pid for w in workers if w.poll() is None})
        stop_node(("sh", "-c", f"date +%s%N > {tmp_path / 'stopped'}"))
        assert [worker.poll() for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    stored = [int((tmp_path / name[5:11]).read_text()) for name in names]
    assert max(stored) < int((tmp_path / "stopped").read_text())


def test_the_processes_with_which_a_node_ends_are_not_told() -> None:
    agents = [
        subprocess.Popen([f"ray::{name}Agent", "-c", "read line"], executable="/bin/bash", stdin=subprocess.PIPE)
        for name in ("Dashboard", "RuntimeEnv")
    ]
    try:
        for agent in agents:
            cmdline = Path(f"/proc/{agent.pid}/cmdline")
            assert wait_until(lambda file=cmdline: file.read_bytes().startswith(b"ray::"), 10)  # type: ignore[misc]
        assert not {agent.pid for agent in agents} & list_workers()
    finally:
        for agent in agents:
            agent.kill()
            agent.communicate()


def test_a_worker_that_does_not_end_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spot_notice, "PATIENCE_SECONDS", 0.2)
    worker = subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"])
    monkeypatch.setattr(spot_notice, "list_workers", lambda: {worker.pid})
    try:
        started = time.monotonic()
        stop_node(("true",))
        assert 0.2 <= time.monotonic() - started < 5
    finally:
        worker.kill()
        worker.wait()


def test_it_starts_without_torch_and_ray() -> None:
    """It must be ready before the first trial is, and answer within the two minutes."""
    program = "import sys, docs.spot_notice; print([m for m in ('ray', 'torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
