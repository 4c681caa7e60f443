"""cluster.yaml, docs/kuberay.yaml and docs/kuberay-job.yaml are valid for the installed Ray and safe by default."""

import json
import os
import re
import subprocess
import time
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.loader import load_function_or_class
from ray.autoscaler._private.node_provider_availability_tracker import NodeProviderAvailabilityTracker
from ray.autoscaler._private.resource_demand_scheduler import get_nodes_for
from ray.autoscaler.node_launch_exception import NodeLaunchException

from tests.faults.nodes import start_command

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "cluster.yaml").read_text()


@pytest.fixture(scope="module")
def cluster(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@pytest.fixture(scope="module")
def kuberay() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "kuberay.yaml").read_text())
    return loaded


def test_it_passes_the_installed_rays_schema(cluster: dict[str, Any]) -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "no_such_key": 1}, schema)


def test_no_trial_runs_on_the_head_and_workers_hold_gpus(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert types[cluster["head_node_type"]]["resources"]["CPU"] == 0
    workers = [t for name, t in types.items() if name != cluster["head_node_type"]]
    assert all(worker["resources"]["GPU"] >= 1 and worker["min_workers"] == 0 for worker in workers)


def choose_node_type(cluster: dict[str, Any], unavailable: tuple[str, ...] = ()) -> dict[str, int]:
    """Ask the installed Ray's autoscaler which machine it starts for one trial with a GPU."""
    types = {
        name: {**kind, "resources": {**kind["resources"], "memory": 1}}
        for name, kind in cluster["available_node_types"].items()
    }
    tracker = NodeProviderAvailabilityTracker()
    for name in unavailable:
        failure = NodeLaunchException("InsufficientInstanceCapacity", "no spot machines", None)
        tracker.update_node_availability(name, int(time.time()), failure)
    summary = tracker.summary()

    (setting,) = [w for w in start_command("head", head_ip="") if w.startswith("RAY_AUTOSCALER_UTILIZATION_SCORER=")]
    score = partial(load_function_or_class(setting.partition("=")[2]), node_availability_summary=summary)
    chosen, _ = get_nodes_for(types, {}, cluster["head_node_type"], 8, [{"CPU": 4, "GPU": 1}], score)
    return dict(chosen)


def test_spot_comes_first_and_on_demand_where_there_is_none(cluster: dict[str, Any]) -> None:
    market = cluster["available_node_types"]["gpu_spot"]["node_config"]["InstanceMarketOptions"]["MarketType"]
    assert market == "spot"
    assert choose_node_type(cluster) == {"gpu_spot": 1}
    assert choose_node_type(cluster, unavailable=("gpu_spot",)) == {"gpu_on_demand": 1}


def test_the_head_starts_the_autoscaler_that_asks_for_the_score() -> None:
    """`ray up` exports RAY_enable_autoscaler_v2=1 before each command; that autoscaler reads no scorer."""
    command = start_command("head", head_ip="")
    assert command.index("RAY_enable_autoscaler_v2=0") < command.index("ray")


def test_the_dashboard_listens_on_loopback_only(cluster: dict[str, Any]) -> None:
    assert "--dashboard-host=127.0.0.1" in start_command("head", head_ip="10.0.0.1")
    assert "--dashboard-host=0.0.0.0" not in json.dumps(cluster)


def test_every_node_requires_the_token_and_the_file_holds_no_secret(cluster: dict[str, Any], text: str) -> None:
    for node in ("head", "worker"):
        assert "RAY_AUTH_MODE=token" in start_command(node, head_ip="10.0.0.1")
        assert "RAY_enable_metrics_collection=0" in start_command(node, head_ip="10.0.0.1")
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert not re.search(r"[0-9a-f]{32}|AKIA|SECRET_ACCESS|RAY_AUTH_TOKEN=", text)


@pytest.mark.skipif("OTHER_VERSIONS" in os.environ, reason="the environment has other versions on purpose")
def test_versions_are_those_of_the_project(cluster: dict[str, Any], kuberay: dict[str, Any]) -> None:
    version = metadata.version("ray")
    assert cluster["docker"]["image"].startswith(f"rayproject/ray:{version}-py311")
    assert kuberay["spec"]["rayVersion"] == version
    assert f"rayproject/ray:{version}-py311-gpu" in (ROOT / "docs" / "cluster.md").read_text()


def test_kuberay_cluster_requires_a_token_and_runs_no_trial_on_its_head(kuberay: dict[str, Any]) -> None:
    assert kuberay["apiVersion"] == "ray.io/v1"
    assert kuberay["spec"]["authOptions"] == {"mode": "token"}
    assert kuberay["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    # Another pod submits the job of kuberay-job.yaml.
    assert kuberay["spec"]["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "0.0.0.0"
    (workers,) = kuberay["spec"]["workerGroupSpecs"]
    groups = (kuberay["spec"]["headGroupSpec"], workers)
    (account,) = {group["template"]["spec"]["serviceAccountName"] for group in groups}
    assert f"kubectl create serviceaccount {account} " in (ROOT / "docs" / "cluster.md").read_text()
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "auth_token" not in json.dumps(kuberay)


@pytest.mark.parametrize("exists", [False, True])
def test_kuberay_job_runs_a_new_study_and_resumes_one_that_exists(
    kuberay: dict[str, Any], tmp_path: Path, exists: bool
) -> None:
    """The entry point is run as Ray does, by a shell, with a program that tells what it is called with."""
    spec = yaml.safe_load((ROOT / "docs" / "kuberay-job.yaml").read_text())["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": kuberay["metadata"]["name"]}
    head = kuberay["spec"]["headGroupSpec"]["template"]["spec"]
    (mount,) = head["containers"][0]["volumeMounts"]
    (volume,) = head["volumes"]
    assert volume["name"] == mount["name"]
    program = tmp_path / "study"
    program.write_text(f"#!/bin/sh\n[ $1 = status ] && exit {0 if exists else 2}\necho study $@\n")
    program.chmod(0o755)
    variables = {**yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"], "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(spec["entrypoint"], shell=True, env=variables, capture_output=True, text=True, check=True)
    expected = (
        "study resume s3://BUCKET/studies/mine --address auto"
        if exists
        else f"study run {mount['mountPath']}/mine.toml --storage s3://BUCKET/studies --address auto"
    )
    assert done.stdout.strip() == expected
