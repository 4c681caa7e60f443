"""Two drivers of one study: R15, both at the same moment, on a disk and on an object store, one of them slow.

``python -m tests.faults.drivers SLOW`` is one of them: for each root on its standard input it takes the study and prints its
token, or why it was refused; after another line it writes and releases it.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import UserInputError
from study.state.lease import acquire_lease
from study.state.sealed_files import FencedStore
from trainables.storage import durable as exclusive
from trainables.storage import store
from trainables.storage.durable import write_durably
from trainables.storage.store import Store

if TYPE_CHECKING:
    from tests.faults.campaign import Outcome

# What a write takes longer in one of the drivers, as on a busy disk.
SLOW_SECONDS = 0.12


def race_drivers(folder: Path, count: int) -> "Outcome":
    """R15: two drivers take one study at the same moment; five of seven times on a disk, else on a moto server.

    Every second study had a driver before, which has ended. A study survives if one driver has it, and writes, and the other is
    refused in one line.
    """
    # Not at the top: the drivers need no torch, which takes them seconds to import.
    from tests.faults.campaign import ROOT, Outcome
    from tests.faults.storage import object_store

    on_disk = count * 5 // 7
    command = [sys.executable, "-m", "tests.faults.drivers"]
    with object_store() as (uri, _, _):
        roots = [str(folder / f"disk-{number}") for number in range(on_disk)]
        roots += [store.join_uri(uri, f"race-{number}") for number in range(count - on_disk)]
        racers = [
            subprocess.Popen(
                [*command, str(slow)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )
            for slow in (0.0, SLOW_SECONDS)
        ]
        told = []
        for number, root in enumerate(roots):
            if number % 2:
                acquire_lease(Store(root)).release()
            told.append([_ask_all(racers, root), _ask_all(racers, "")])
        for racer in racers:
            racer.communicate()
    lost = [f"{root}: {outcomes}" for root, outcomes in zip(roots, told, strict=True) if not _is_sound(*outcomes)]
    slow_won = sum(isinstance(taken[1], int) for taken, _ in told)
    return Outcome(
        fault="R15 two drivers at the same moment",
        injected=count,
        survived=count - len(lost),
        lost=tuple(lost),
        seen=f"{on_disk} on a disk, {count - on_disk} on a moto server; the driver with slow writes won {slow_won}",
    )


def _ask_all(racers: list[subprocess.Popen[str]], line: str) -> list[Any]:
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(f"{line}\n")
    return [json.loads(racer.stdout.readline()) for racer in racers if racer.stdout is not None]


def _is_sound(taken: list[Any], written: list[Any]) -> bool:
    """Whether one driver took the study and wrote it, and the other was refused in one line."""
    token, refusal = sorted(taken, key=lambda outcome: isinstance(outcome, str))
    is_refused = isinstance(refusal, str) and "\n" not in refusal and refusal.startswith("the study")
    return isinstance(token, int) and is_refused and sorted(written) == ["", "written"]


def _race(slow: float) -> None:
    put = exclusive.put_new

    def write_slowly(path: Path, data: bytes) -> None:
        write_durably(path, data)
        time.sleep(slow)

    def put_slowly(uri: str, data: bytes) -> bool:
        time.sleep(slow)
        return put(uri, data)

    exclusive.write_durably = store.write_durably = write_slowly  # type: ignore[attr-defined]
    store.put_new = put_slowly  # type: ignore[attr-defined]
    for root in map(str.strip, sys.stdin):
        try:
            lease = acquire_lease(Store(root))
        except UserInputError as error:
            print(json.dumps(str(error)), flush=True)
            sys.stdin.readline()
            print(json.dumps(""), flush=True)
            continue
        print(json.dumps(lease.token), flush=True)
        sys.stdin.readline()
        FencedStore(root, lease.writing).write_text("note", "written")
        lease.release()
        print(json.dumps("written"), flush=True)


if __name__ == "__main__":
    _race(float(sys.argv[1]))
