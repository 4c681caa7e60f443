"""Faults of storage: damaged files, a full disk, an object store that fails."""

import contextlib
import hashlib
import logging
import os
import random
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from pyarrow import fs
from werkzeug.serving import WSGIRequestHandler, make_server

from search_spaces.errors import UserInputError
from study.confirmation.evidence import load_evidence, require_plan
from study.confirmation.plan import count_test_reads, read_plan
from study.confirmation.stated_interventions import read_stated
from study.inputs.provenance import read_changes
from study.open_study import load_study, read_passport
from study.results.stored_findings import load_findings
from study.scheduling.warm_start import earlier_trials
from study.state import paths
from study.views.status import status_json
from tests.faults.campaign import EXIT_DONE, EXIT_STOPPED, Campaign, Outcome
from trainables.models.backbones import build_model
from trainables.records.trial_files import WEIGHTS, TrialFiles, find_file
from trainables.storage.store import Store

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


def damage_files(folder: Path, count: int, root: str = "", only: str = "") -> Outcome:
    """R6: `count` truncations and flipped bits over every state file, or `only` one, of the study at `root` or a new one."""
    root = root or make_whole_study(folder)
    store = Store(root)
    names = [only] if only else state_files(store)
    chooser = random.Random(6)
    kept = {name: store.read_bytes(name) for name in names}
    before = read_study(store)
    outcomes: Counter[str] = Counter()
    lost = []
    # Every file equally often, every byte equally likely: Hypothesis would prefer the first bytes of the first files.
    for number in range(count):
        name, is_cut = names[number % len(names)], number // len(names) % 2 == 0
        whole = kept[name]
        offset, bit = chooser.randrange(len(whole)), chooser.randrange(8)
        flipped = bytes([whole[offset] ^ (1 << bit)])
        Path(root, name).write_bytes(whole[:offset] if is_cut else whole[:offset] + flipped + whole[offset + 1 :])
        found = _judge_damage(store, name, before)
        outcomes[found] += 1
        if found.startswith("unnoticed"):
            lost.append(f"{name} {'cut' if is_cut else f'bit {bit} flipped'} at byte {offset}: {found}")
        Path(root, name).write_bytes(whole)
    return Outcome(
        fault="R6 damaged file",
        injected=count,
        survived=count - len(lost),
        lost=tuple(lost),
        seen=f"{len(names)} files; " + ", ".join(f"{n} {found}" for found, n in sorted(outcomes.items())),
    )


def make_whole_study(folder: Path) -> str:
    """Run a small study from launch to report; return its root."""
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
        for name in store.list_states()
        if not name.endswith(outputs) and "events.out" not in name and not name.startswith(paths.LEASES)
    ]


def read_study(store: Store, damaged: str = "", *, is_forged: bool = False) -> dict[str, Any]:
    """Return everything that the product reads of a study, by file; raise UserInputError where it refuses one.

    Of the weights, which are large, only the `damaged` file is read. A forged file agrees with the digest in its record, as
    everyone with access to the study's files can make it; then checkpoints are read, too.
    """
    study = load_study(store)
    contents: dict[str, Any] = {
        paths.SPEC: study.spec.model_dump(),
        paths.PASSPORT: read_passport(store),
        paths.PLAN: read_plan(store),
        paths.FINDINGS: load_findings(study).to_json(),
        paths.INTERVENTIONS: read_stated(store, study.spec),
        "test reads": count_test_reads(store),
        "changes": read_changes(store),
        "warm start": earlier_trials(store),
        "status": status_json(study) if is_forged else None,
        "evidence": [
            p.logits.tobytes() for e in load_evidence(study, require_plan(study)).values() for p in e.predictions
        ],
    }
    class_names = contents[paths.PASSPORT]["data"]["class_names"]
    for record in study.book:
        name, digests = f"{record.stage}/{record.trial_id}", record.digests
        contents[name] = record.model_dump()
        contents[f"{name} altered"] = record.is_altered
        folder = paths.TrialPaths(stage=record.stage, trial_id=record.trial_id).folder
        files = TrialFiles(store.child(folder))
        if is_forged:
            files.read_checkpoint()
        if is_forged and digests and damaged.startswith(folder):
            digests = {file: hashlib.sha256(files.store.read_bytes(file)).hexdigest() for file in digests}
        for split in record.predictions:
            contents[f"{name} {split}"] = files.read_predictions(split, digests).logits.tobytes()
        if damaged == f"{folder}/{find_file(WEIGHTS, digests)}":
            files.load_weights(build_model(record.config, len(class_names), weights="none"), digests)
    return contents | {"recovered": study.book.recovered}


def _judge_damage(store: Store, name: str, before: dict[str, Any]) -> str:
    """Return how the product handles a damaged file."""
    where = name.replace("record.copy.json", "record.json").removesuffix("/record.json")
    try:
        now = read_study(store, name)
    except UserInputError as error:
        return "refused by name" if where in str(error) else f"unnoticed: refused as {error}"
    is_recovered = now.pop("recovered")
    is_equal = now == {k: v for k, v in before.items() if k != "recovered"}
    if is_recovered:
        return "recovered from its copy" if is_equal else "unnoticed: lost"
    if is_equal:
        return "without effect"
    if any(v is True for k, v in now.items() if k.endswith("altered")):
        return "reported as an altered configuration"
    stated = now[paths.INTERVENTIONS]
    if stated is not None and stated.is_changed:
        return "reported as changed interventions"
    return "reported as a changed plan" if now[paths.PLAN].is_changed else "unnoticed"


def fill_disk(folder: Path, count: int, megabytes: int = 2600) -> Outcome:
    """R7: the study's file system is filled at seeded times, and freed after the driver has stopped."""
    disk = folder / "disk"
    with small_disk(disk, megabytes):
        campaign = Campaign(folder, storage=str(disk), num_trials=max(6, count + 5), max_epochs=3)
        filler = disk / "filler"
        return _stop_drivers(campaign, count, "R7 disk full", partial(fill, filler), filler.unlink)


def lose_object_store(folder: Path, count: int) -> Outcome:
    """R19: the object store answers no request for longer than they are retried; it is back after the driver has stopped."""
    with object_store() as (sound, faulty, store):
        campaign = Campaign(
            folder,
            storage=faulty,
            reading_storage=sound,
            environment=CREDENTIALS,
            num_trials=max(6, 2 * count),
            max_epochs=3,
        )
        outages = cycle(("503", "reset before"))

        def end() -> None:
            store.outage = ""

        def begin() -> None:
            store.outage = next(outages)

        return _stop_drivers(campaign, count, "R19 object store away", begin, end)


def _stop_drivers(
    campaign: Campaign, count: int, fault: str, begin: Callable[[], Any], end: Callable[[], Any]
) -> Outcome:
    """Let the storage fail at seeded times until the driver has stopped, which must say why, and resume the study."""
    campaign.start()
    readable, statuses = 0, []

    def break_storage(_: int) -> bool:
        nonlocal readable
        begin()
        status, output = campaign.end()
        end()
        statuses.append(status)
        campaign.note_finished()
        readable += bool(campaign.records()) and status in {EXIT_DONE, EXIT_STOPPED} and "Traceback" not in output
        campaign.start("resume")
        return True

    struck = campaign.strike(count, (0.5, 4.0), break_storage)
    status, _ = campaign.end(600)
    seen = f"{statuses.count(EXIT_STOPPED)} times exit status 3 with the reason; readable and resumed each time"
    return campaign.outcome(fault, struck, seen, survived=readable if status == EXIT_DONE else 0)


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    """Mount a tmpfs; raise UserInputError where that is not allowed."""
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise UserInputError(f"a full disk is a tmpfs, which needs the right to mount: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    for size in (1 << 20, 512):
        with contextlib.suppress(OSError), path.open("ab", buffering=0) as stream:
            while stream.write(b"\0" * size):
                pass


class FaultyStore:
    """A WSGI application that refuses (503), resets or delays some requests to another one.

    Attributes:
        counts: injected faults by kind.
        outage: the kind of fault of every request; "" while there is no outage.
    """

    def __init__(self, application: Any, *, faults: int, probability: float, seed: int = 8) -> None:
        """Inject `faults` faults, each request with this probability."""
        self.counts = dict.fromkeys(("503", "reset before", "reset after", "slow"), 0)
        self.outage = ""
        self._application = application
        self._left = faults
        self._random = random.Random(seed)
        self._probability = probability
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        fault = self._draw()
        if fault == "503":
            answer = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
            start_response("503 Slow Down", [("Content-Length", str(len(answer)))])
            return [answer]
        if fault == "slow":
            time.sleep(4.0)
        answers = [] if fault == "reset before" else self._application(environ, start_response)
        if fault.startswith("reset"):
            connection = environ["werkzeug.socket"]
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            raise ConnectionResetError  # The server then calls `_Handler.connection_dropped`.
        return answers  # type: ignore[no-any-return]

    def _draw(self) -> str:
        if self.outage:
            return self.outage
        with self._lock:
            if not self._left or self._random.random() >= self._probability:
                return ""
            self._left -= 1
            fault = self._random.choice(list(self.counts))
            self.counts[fault] += 1
            return fault


class _Handler(WSGIRequestHandler):
    def connection_dropped(self, *_: Any) -> None:
        self.close_connection = True


@contextmanager
def object_store(
    *, faults: int = 0, probability: float = 0.0, host: str = "127.0.0.1"
) -> Iterator[tuple[str, str, FaultyStore]]:
    """Run moto as S3 with one bucket at two ports; set this process's credentials.

    Yields:
        URI of a storage root, URI of the same one at the port with faults, and the application behind that port.
    """
    from moto.server import DomainDispatcherApplication, create_backend_app  # type: ignore[attr-defined]

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    os.environ.update(CREDENTIALS)
    sound = DomainDispatcherApplication(create_backend_app)
    faulty = FaultyStore(sound, faults=faults, probability=probability)
    servers = [
        make_server(host, 0, application, threaded=True, request_handler=_Handler) for application in (sound, faulty)
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    places = [f"endpoint_override={host}:{server.port}&scheme=http&region=us-east-1" for server in servers]
    try:
        fs.FileSystem.from_uri(f"s3://bucket?{places[0]}&allow_bucket_creation=true")[0].create_dir("bucket")
        yield f"s3://bucket/studies?{places[0]}", f"s3://bucket/studies?{places[1]}", faulty
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def fail_object_store(folder: Path, count: int, num_trials: int = 0, *, whole: bool = True) -> Outcome:
    """R8: 503, resets before and after the answer, slow answers; the driver is killed once, and resumed elsewhere.

    Elsewhere is another Ray, started anew, and an empty working folder: only the URI leads to the study. Without `whole` the
    search alone is resumed, and there is no report.
    """
    with (
        object_store(faults=count, probability=0.25) as (sound, faulty, store),
        tempfile.TemporaryDirectory(prefix="abstudy-elsewhere-") as elsewhere,
    ):
        campaign = Campaign(
            folder,
            storage=faulty,
            reading_storage=sound,
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
        status, _ = campaign.end(900)
        injected = sum(store.counts.values())
        has_report = not whole or Store(campaign.reading_root).exists(paths.REPORT_HTML)
        seen = ", ".join(f"{n} {kind}" for kind, n in store.counts.items())
        seen += "; driver killed once, and resumed with the URI alone by another Ray in an empty folder"
        return campaign.outcome(
            "R8 object store faults",
            injected,
            seen + ("; report written" if whole else ""),
            survived=injected if status == EXIT_DONE and has_report else 0,
        )
