"""Where a study runs: Ray, started on this machine or a running cluster by address, or this process; its capacity and workers.

Ray is imported only where it is used, so that a study in this process needs none.
"""

import contextlib
import logging
import math
import os
import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from search_spaces.errors import UserInputError
from search_spaces.extensions import read_trust
from study.cluster.tasks import Workers
from study.spec.study_spec import StudySpec
from trainables.devices import count_cuda_devices
from trainables.training.trial_data import TrialData

# Read by Ray when it starts. The study keeps its own records, so Tune needs no logger callbacks.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "5",
    "RAY_DEDUP_LOGS": "1",
    # Trials have an environment of their own, so that Ray's first workers, one for each core, would serve none of them.
    "RAY_prestart_worker_first_driver": "0",
}


# Longest time for an answer of one node.
NODE_SECONDS = 120.0

LOCAL = "local"
# Address of this process, in which trials run one after the other.
THIS_PROCESS = "this process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The resources of a connected cluster.

    Attributes:
        address: `LOCAL`, `THIS_PROCESS`, or the address that was given.
        node_cpus, node_gpus: of each node alive, in the same order.
        scratch: local folder of this user alone for the files that Tune writes and the study does not use, and for Ray's own;
            deleted at the end.
    """

    address: str
    node_cpus: tuple[float, ...]
    node_gpus: tuple[float, ...]
    scratch: str

    def describe(self) -> str:
        """Return one line with address, nodes, CPUs and GPUs."""
        return (
            f"{self.address}: {len(self.node_cpus)} node(s), {sum(self.node_cpus):g} CPUs, {sum(self.node_gpus):g} GPUs"
        )

    def capacity(self, cpu: float, gpu: float) -> int:
        """Return how many trials with `cpu` CPUs and `gpu` GPUs each run at once; a trial runs on one node.

        Part of a GPU is part of one GPU: two trials with 0.6 of a GPU each need two.
        """
        total = 0
        for node_cpu, node_gpu in zip(self.node_cpus, self.node_gpus, strict=True):
            fits = [math.floor(node_cpu / cpu + 1e-9)] if cpu else []
            if 0 < gpu < 1:
                fits.append(math.floor(node_gpu) * math.floor(1 / gpu + 1e-9))
            elif gpu:
                fits.append(math.floor(node_gpu / gpu + 1e-9))
            total += min(fits, default=0)
        return min(total, 1) if self.address == THIS_PROCESS else total


@contextlib.contextmanager
def connect_cluster(address: str | None) -> Iterator[Cluster]:
    """Start Ray on this machine (`address` None or "local"), or connect to a running cluster; disconnect at the end.

    `THIS_PROCESS` connects to nothing.

    Raises:
        UserInputError: if Ray cannot be started, or no cluster answers at the address.
    """
    address = address or LOCAL
    if address == THIS_PROCESS:
        cpus, gpus = float(os.cpu_count() or 1), float(count_cuda_devices())
        yield Cluster(address=address, node_cpus=(cpus,), node_gpus=(gpus,), scratch="")
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address == LOCAL and not any(
        os.environ.get(n) for n in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    ):
        # A token for this process. Without it, Ray writes one to the user's home folder.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    with tempfile.TemporaryDirectory(prefix="abstudy-", ignore_cleanup_errors=True) as scratch:
        _init_ray(address, scratch)
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            node_cpus, node_gpus = (tuple(n.get(kind, 0.0) for n in nodes) for kind in ("CPU", "GPU"))
            yield Cluster(address=address, node_cpus=node_cpus, node_gpus=node_gpus, scratch=scratch)
        finally:
            ray.shutdown()


def check_cluster(spec: StudySpec, cluster: Cluster) -> int:
    """Return how many trials may run at once.

    With `resources.autoscaling` this is `resources.max_concurrent`, whatever the cluster has now.

    Raises:
        UserInputError: if a trial of some arm fits on no node.
    """
    if spec.resources.autoscaling and cluster.address in {LOCAL, THIS_PROCESS}:
        raise UserInputError(
            "resources.autoscaling is for a cluster that grows on demand; give its --address, or remove resources.autoscaling"
        )
    capacities = []
    for arm in spec.arms():
        cpu, gpu = (spec.resources.of_arm(kind, arm.name) for kind in ("cpu", "gpu"))
        if cpu == 0 and gpu == 0:
            raise UserInputError("a trial must hold a CPU or a GPU; set resources.cpu or resources.gpu")
        capacity = spec.resources.max_concurrent if spec.resources.autoscaling else cluster.capacity(cpu, gpu)
        if capacity == 0:
            raise UserInputError(
                f"one trial of the arm {arm.name!r} needs {cpu:g} CPUs and {gpu:g} GPUs on one node, but the cluster has "
                f"{cluster.describe()}; lower resources.cpu or resources.gpu, or give --address of a larger cluster"
            )
        capacities.append(capacity)
    most = max(capacities)
    return min(most, spec.resources.max_concurrent) if spec.resources.max_concurrent else most


def describe_idle_gpus(spec: StudySpec, cluster: Cluster) -> str:
    """Return that no trial of the study holds one of the cluster's GPUs, and the remedy; "" if trials do, or may not."""
    gpus = sum(cluster.node_gpus)
    if not gpus or spec.resources.device == "cpu" or any(spec.resources.of_arm("gpu", arm.name) for arm in spec.arms()):
        return ""
    return (
        f"trials will not use the {gpus:g} GPU(s) of {cluster.address}, because resources.gpu is 0; set resources.gpu = 1 to "
        'train on them, or resources.device = "cpu" if that is intended'
    )


def count_devices(spec: StudySpec, cluster: Cluster, max_concurrent: int) -> float:
    """Return the devices that trials hold at most at once: GPUs where any arm's trials hold one, else CPU cores.

    `max_concurrent` is what `check_cluster` returned.
    """
    held = [spec.resources.count_devices(arm.name) for arm in spec.arms()]
    if spec.resources.autoscaling:
        return max_concurrent * max(held)
    uses_gpu = any(spec.resources.of_arm("gpu", arm.name) for arm in spec.arms())
    return min(max_concurrent * max(held), sum(cluster.node_gpus if uses_gpu else cluster.node_cpus))


def make_workers(cluster: Cluster, spec: StudySpec, data: TrialData) -> Workers:
    """Return the workers of a cluster, which hold the data; Ray is imported for those of a Ray cluster alone.

    Args:
        cluster: connected.
        spec: of the study.
        data: of the study.
    """
    if cluster.address == THIS_PROCESS:
        from study.cluster.process_workers import ProcessWorkers

        return ProcessWorkers(spec, data)
    from study.cluster.ray_workers import RayWorkers

    return RayWorkers(cluster.scratch, spec, data)


def run_on_nodes(function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Return what a function returns on each node of the connected cluster, or the error, by the node's name in records.

    The function sees all GPUs of the node, though it holds none. The nodes are in the order of `Cluster.node_gpus`.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    visible = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}
    task = ray.remote(num_cpus=0, max_retries=0, runtime_env=visible)(function)
    nodes = {f"{n['NodeManagerHostname']}/{n['NodeID'][:8]}": n["NodeID"] for n in ray.nodes() if n["Alive"]}
    where = {name: NodeAffinitySchedulingStrategy(node, soft=False) for name, node in nodes.items()}
    started = {name: task.options(scheduling_strategy=one).remote(*arguments) for name, one in where.items()}
    results: dict[str, Any] = {}
    for name, result in started.items():
        try:
            results[name] = ray.get(result, timeout=NODE_SECONDS)
        except (ray.exceptions.RayError, UserInputError, OSError) as error:
            results[name] = error
    return results


def _init_ray(address: str, scratch: str) -> None:
    import ray

    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        # Ray opens its folder to every user, who cannot reach it in ours.
        options |= {"include_dashboard": False, "configure_logging": False, "_temp_dir": f"{scratch}/ray"}
    else:
        # Processes on this machine inherit the trust; elsewhere Ray sets it.
        options["runtime_env"] = {"env_vars": trust} if (trust := read_trust()) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Explicit also on this machine, because without an address Ray connects to RAY_ADDRESS.
            ray.init(address=address, **options)
        except Exception as error:  # a node that starts too slowly raises one of no class of its own
            action = "started on this machine" if address == LOCAL else f"reached at {address}"
            raise UserInputError(f"Ray could not be {action}: {_find_reason(error)}") from None


def _find_reason(error: BaseException) -> str:
    """Return the first line of an error; where it has no words, as some of Ray's, of the first one behind it that has."""
    behind: BaseException | None = error
    chain = []
    while behind is not None:
        chain.append(behind)
        behind = behind.__context__
    texts = [str(one).strip() for one in (error, *reversed(chain))]
    return next((text.splitlines()[0] for text in texts if text), type(error).__name__)
