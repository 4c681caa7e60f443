"""Faults of storage: damaged files, a full disk, an object store that fails."""

import contextlib
import http.client
import logging
import os
import random
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from pyarrow import fs

from search_spaces.errors import UserInputError
from study.confirmation.evidence import load_evidence, require_plan
from study.confirmation.plan import read_plan
from study.confirmation.read_count import count_test_reads
from study.inputs.environment_changes import read_changes
from study.open_study import load_study, read_passport
from study.results.findings import load_findings
from study.scheduling.warm_start import earlier_trials
from study.state import paths
from tests.faults.campaign import EXIT_DONE, EXIT_STOPPED, Campaign, Outcome, draw
from tests.faults.processes import describe_end, find_restarted
from trainables.models.backbones import build_model
from trainables.records.store import Store
from trainables.records.trial_files import WEIGHTS, TrialFiles

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


def damage_files(folder: Path, count: int, root: str = "") -> Outcome:
    """R6: cuts and flipped bits, `count` of them, over every state file of a whole study: the one at `root`, or a new one."""
    root = root or make_whole_study(folder)
    store = Store(root)
    names = state_files(store)
    chooser = random.Random(6)
    kept = {name: store.read_bytes(name) for name in names}
    before = _contents(store, "")
    outcomes: dict[str, int] = {}
    lost = []
    for number in range(count):
        name = names[number % len(names)]
        whole = kept[name]
        offset = chooser.randrange(len(whole))
        bit = chooser.randrange(8)
        is_cut = number // len(names) % 2 == 0
        flipped = bytes([whole[offset] ^ (1 << bit)])
        Path(root, name).write_bytes(whole[:offset] if is_cut else whole[:offset] + flipped + whole[offset + 1 :])
        what = _look(store, name, before)
        outcomes[what] = outcomes.get(what, 0) + 1
        if what.startswith("unnoticed"):
            lost.append(f"{name} {'cut' if is_cut else f'bit {bit} flipped'} at byte {offset}: {what}")
        Path(root, name).write_bytes(whole)
    return Outcome(
        fault="R6 damaged file",
        injected=count,
        survived=count - len(lost),
        lost=tuple(lost),
        seen=f"{len(names)} files; " + ", ".join(f"{n} {what}" for what, n in sorted(outcomes.items())),
    )


def make_whole_study(folder: Path) -> str:
    """Run a small study from its launch to its report; return its root."""
    campaign = Campaign(folder, num_trials=4, max_epochs=2)
    campaign.start("run")
    status, output = campaign.end()
    assert status == EXIT_DONE, output
    return campaign.root


def state_files(store: Store) -> list[str]:
    """Return every file that the product reads back."""
    outputs = (".png", ".html", ".md", ".csv", ".tex")
    return [
        name
        for name in store.list_files()
        if not name.endswith(outputs) and "events.out" not in name and name != paths.LEASE
    ]


def _contents(store: Store, damaged: str) -> dict[str, Any]:
    """Return what the product reads of a study, by file; raise UserInputError where it refuses one.

    Of the large files, weights, only the damaged one is read.
    """
    study = load_study(store)
    contents: dict[str, Any] = {
        paths.SPEC: study.spec.model_dump(),
        paths.PASSPORT: read_passport(store),
        paths.PLAN: read_plan(store),
        paths.FINDINGS: load_findings(study).to_json(),
        "test reads": count_test_reads(store),
        "changes": read_changes(store),
        "warm start": earlier_trials(store),
        "evidence": [
            p.logits.tobytes() for e in load_evidence(study, require_plan(study)).values() for p in e.predictions
        ],
    }
    class_names = contents[paths.PASSPORT]["data"]["class_names"]
    for record in study.book:
        contents[f"{record.stage}/{record.trial_id}"] = record.model_dump()
        contents[f"{record.stage}/{record.trial_id} altered"] = record.is_altered
        files = TrialFiles(store.child(paths.TrialPaths(stage=record.stage, trial_id=record.trial_id).folder))
        for split in record.predictions:
            contents[f"{record.stage}/{record.trial_id} {split}"] = files.read_predictions(
                split, record.digests
            ).logits.tobytes()
        if damaged.endswith(WEIGHTS) and files.store.root == f"{store.root}/{damaged.removesuffix('/' + WEIGHTS)}":
            files.load_weights(build_model(record.config, len(class_names), weights="none"), record.digests)
    return contents | {"recovered": study.book.recovered}


def _look(store: Store, name: str, before: dict[str, Any]) -> str:
    """Return what the product makes of a damaged file."""
    where = name.replace("record.copy.json", "record.json").removesuffix("/record.json")
    try:
        now = _contents(store, name)
    except UserInputError as error:
        return "refused by name" if where in str(error) else f"unnoticed: refused as {error}"
    if now.pop("recovered"):
        return (
            "recovered from its copy"
            if now == {k: v for k, v in before.items() if k != "recovered"}
            else "unnoticed: lost"
        )
    if now == {k: v for k, v in before.items() if k != "recovered"}:
        return "without effect"
    if any(v is True for k, v in now.items() if k.endswith("altered")):
        return "told as an altered configuration"
    return "told as a changed plan" if now[paths.PLAN].is_changed else "unnoticed"


def fill_disk(folder: Path, count: int, megabytes: int = 2600) -> Outcome:
    """R7: the study's file system is filled up at seeded times, and freed after the driver has stopped."""
    disk = folder / "disk"
    with small_disk(disk, megabytes):
        campaign = Campaign(folder, storage=str(disk), num_trials=max(6, count), max_epochs=3)
        campaign.start()
        struck, readable, statuses = 0, 0, []
        while struck < count and campaign.wait_for(lambda: bool(campaign.running_pids()), 240):
            time.sleep(draw(struck, 0.5, 4.0))
            fill(disk / "filler")
            struck += 1
            status, output = campaign.end()
            statuses.append(status)
            campaign.note_finished()
            readable += bool(campaign.records()) and status in {EXIT_DONE, EXIT_STOPPED} and "Traceback" not in output
            (disk / "filler").unlink()
            campaign.start("resume")
        status, output = campaign.end(600)
        return Outcome(
            fault="R7 disk full",
            injected=struck,
            survived=readable if status == EXIT_DONE else 0,
            lost=(
                *campaign.find_losses(expected=campaign.num_trials),
                *find_restarted(campaign),
                *describe_end(status, output),
            ),
            seen=f"{statuses.count(EXIT_STOPPED)} times exit status 3 with the reason; readable and resumed each time",
        )


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    """Mount a tmpfs; raise UserInputError where that is not allowed."""
    path.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        raise UserInputError(
            f"a full disk is made with a tmpfs, which needs the right to mount: {mounted.stderr.strip()}"
        )
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as stream:
        block = b"\0" * (1 << 20)
        while stream.write(block):
            pass
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as stream:
        while stream.write(b"\0" * 512):
            pass


class FaultyProxy:
    """An HTTP proxy before an object store that refuses (503), breaks off or delays every few requests."""

    def __init__(self, port: int, *, faults: int, probability: float, seed: int = 8) -> None:
        """Forward to `port` of this machine; inject `faults` faults, each request with this probability."""
        self.counts = {"503": 0, "reset before": 0, "reset after": 0, "slow": 0}
        self._left = faults
        self._random = random.Random(seed)
        self._probability = probability
        self._lock = threading.Lock()
        proxy = self

        class Handler(_ProxyHandler):
            pass

        Handler.target, Handler.draw_fault = port, proxy._draw  # type: ignore[method-assign,assignment]
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _draw(self) -> str:
        with self._lock:
            if not self._left or self._random.random() >= self._probability:
                return ""
            self._left -= 1
            fault = self._random.choice(list(self.counts))
            self.counts[fault] += 1
            return fault

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: ClassVar[int]
    draw_fault: ClassVar[Callable[[], str]]

    def _serve(self) -> None:
        body = self._read_body()
        fault = type(self).draw_fault()
        if fault == "503":
            answer = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
            self.send_response(503)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            return None
        if fault == "slow":
            time.sleep(4.0)
        if fault == "reset before":
            return self._reset()
        link = http.client.HTTPConnection("127.0.0.1", type(self).target, timeout=60)
        headers = {
            k: v for k, v in self.headers.items() if k.lower() not in {"transfer-encoding", "content-length", "expect"}
        }
        link.request(self.command, self.path, body=body, headers={**headers, "Content-Length": str(len(body))})
        answer_from = link.getresponse()
        content = answer_from.read()
        if fault == "reset after":
            return self._reset()
        self.send_response_only(answer_from.status)
        for name, value in answer_from.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                self.send_header(name, value)
        length = answer_from.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        # A client that waited too long has gone.
        with contextlib.suppress(ConnectionError):
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        return None

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: Any) -> None:
        """Nothing is printed per request."""


@contextmanager
def object_store() -> Iterator[int]:
    """Run moto as S3 with one bucket, "bucket"; yield its port. Sets this process's credentials."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    os.environ.update(CREDENTIALS)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}", scheme="http", region="us-east-1", allow_bucket_creation=True
        ).create_dir("bucket")
        yield int(port)
    finally:
        server.stop()


def object_store_uri(port: int) -> str:
    """Return the storage root in the bucket of `object_store`."""
    return f"s3://bucket/studies?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


def fail_object_store(folder: Path, count: int, num_trials: int = 0, *, whole: bool = True) -> Outcome:
    """R8: 503, resets before and after the answer, slow answers; the driver is killed once, and resumed elsewhere.

    Elsewhere is another Ray, started anew, and an empty working folder: what it knows of the study is the URI. Without `whole`
    the search alone is resumed, and there is no report.
    """
    with object_store() as port, tempfile.TemporaryDirectory(prefix="abstudy-elsewhere-") as elsewhere:
        proxy = FaultyProxy(port, faults=count, probability=0.25)
        campaign = Campaign(
            folder,
            storage=object_store_uri(proxy.port),
            reading_storage=object_store_uri(port),
            environment=CREDENTIALS,
            resumed_in=Path(elsewhere),
            num_trials=num_trials or max(6, count // 16),
            max_epochs=3,
            overrides=("search.max_epochs=3",),
        )
        campaign.start()
        campaign.wait_for(lambda: any(r.state.is_finished for r in campaign.records().values()), 400)
        campaign.note_finished()
        campaign.kill_driver()
        campaign.note_finished()
        campaign.start("resume-whole" if whole else "resume")
        status, output = campaign.end(900)
        injected = sum(proxy.counts.values())
        has_report = not whole or Store(campaign.reading_root).exists(paths.REPORT_HTML)
        proxy.close()
        return Outcome(
            fault="R8 object store faults",
            injected=injected,
            survived=injected if status == EXIT_DONE and has_report else 0,
            lost=(*campaign.find_losses(expected=campaign.num_trials), *describe_end(status, output)),
            seen=", ".join(f"{n} {what}" for what, n in proxy.counts.items())
            + "; driver killed once, and resumed with the URI alone by another Ray in an empty folder"
            + ("; report written" if whole else ""),
        )
