"""R17: nodes of a cluster in network namespaces, cut off from the head, the store or both, and connected again."""

import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

from search_spaces.errors import UserInputError
from tests.faults.campaign import Campaign, Outcome
from tests.faults.nodes import TRIAL_RESOURCES, find_late_writes, local_cluster
from tests.faults.process_tree import wait_until
from tests.faults.processes import find_other_decisions
from tests.faults.storage import CREDENTIALS, object_store

# Longer than Ray's checks of a node (65 s), a node's wait for its head, the retries of storage, and the time-out of trials.
CUT_SECONDS = 150.0
RECONNECT_SECONDS, TIMEOUT_SECONDS = 60, 60.0
# A cable of each node leads to the head's network, another one to the store's.
NETWORKS = {"head": "10.77.1", "store": "10.77.2"}
NUM_NODES = 2


def cut_off_nodes(folder: Path, count: int) -> Outcome:
    """R17: a node that computes a trial is cut off from the head, the store or both for longer than every time-out, then healed.

    A node that has ended in the meantime is started again, as its launcher would do.
    """
    sides = cycle((("head",), ("store",), tuple(NETWORKS)))
    variables = {**CREDENTIALS, "RAY_gcs_rpc_server_reconnect_timeout_s": str(RECONNECT_SECONDS)}
    with (
        networks(),
        object_store(host=f"{NETWORKS['store']}.1") as (uri, _, _),
        local_cluster(0, folder, variables=variables) as cluster,
    ):
        places = {}

        def start(number: int) -> None:
            worker = cluster.add_worker(("ip", "netns", "exec", f"abf-{number}"), f"{NETWORKS['head']}.{10 + number}")
            places[worker.pid] = number

        numbers = iter(range(NUM_NODES))
        cluster.add_workers(NUM_NODES, lambda: start(next(numbers)))
        campaign = Campaign(
            folder,
            storage=uri,
            address=cluster.address,
            environment={**cluster.environment, **CREDENTIALS},
            num_trials=max(8, 10 * count),
            max_epochs=4,
            num_images=1200,
            retries=10,
            timeout_seconds=TIMEOUT_SECONDS,
            overrides=TRIAL_RESOURCES,
        )
        campaign.start()
        num_ended = 0

        def cut_off(pid: int) -> bool:
            nonlocal num_ended
            worker = cluster.worker_of(pid)
            if worker is None:
                return False
            number = places[worker.pid]
            with without_cables(number, next(sides)):
                time.sleep(CUT_SECONDS)
            if wait_until(lambda: worker.poll() is not None, 20):
                num_ended += 1
                cluster.drop_worker(worker)
                start(number)
            return True

        struck = campaign.strike(count, (0.5, 2.0), cut_off)
        campaign.end()
        refused = len({(x.trial, x.attempt) for x in campaign.lines() if x.event == "refused"})
        return campaign.outcome(
            "R17 node cut off",
            struck,
            f"each for {CUT_SECONDS:g} s, from head, store and both in turn; {num_ended} nodes had ended and were started "
            f"again; attempts that were refused their checkpoint: {refused}",
            lost=(*find_late_writes(campaign), *find_other_decisions(campaign.root)),
        )


@contextmanager
def networks() -> Iterator[None]:
    """Make the networks, which this machine is in, and the nodes' namespaces; raise UserInputError where that is not allowed."""
    _remove_networks()
    try:
        for side, prefix in NETWORKS.items():
            _ip(f"link add abf-{side} type bridge")
            _ip(f"address add {prefix}.1/24 dev abf-{side}")
            _ip(f"link set abf-{side} up")
        for number in range(NUM_NODES):
            _ip(f"netns add abf-{number}")
            _ip(f"-n abf-{number} link set lo up")
            for side, prefix in NETWORKS.items():
                _ip(f"link add abf-{side}-{number} type veth peer name {side} netns abf-{number}")
                _ip(f"link set abf-{side}-{number} master abf-{side} up")
                _ip(f"-n abf-{number} address add {prefix}.{10 + number}/24 dev {side}")
                _ip(f"-n abf-{number} link set {side} up")
            _ip(f"-n abf-{number} route add default via {NETWORKS['head']}.1")
        yield
    finally:
        _remove_networks()


@contextmanager
def without_cables(number: int, sides: Iterable[str]) -> Iterator[None]:
    """Pull a node's cables to some networks, and plug them in again."""
    for side in sides:
        _ip(f"link set abf-{side}-{number} down")
    yield
    for side in sides:
        _ip(f"link set abf-{side}-{number} up")


def _remove_networks() -> None:
    for number in range(NUM_NODES):
        subprocess.run(["ip", "netns", "delete", f"abf-{number}"], capture_output=True, check=False)
    for side in NETWORKS:
        subprocess.run(["ip", "link", "delete", f"abf-{side}"], capture_output=True, check=False)


def _ip(words: str) -> None:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserInputError(f"networks of their own need root and iproute2: ip {words}: {done.stderr.strip()}")
