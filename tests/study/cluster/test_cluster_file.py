"""cluster.yaml, docs/kuberay.yaml and docs/kuberay-job.yaml are valid for the installed Ray and safe by default."""

import json
import os
import re
import subprocess
import time
import tomllib
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import ray
import yaml
from moto import mock_aws
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ray._private.ray_constants import DEFAULT_OBJECT_STORE_MEMORY_PROPORTION
from ray.autoscaler._private.aws import config as aws_config
from ray.autoscaler._private.aws import utils as aws_utils
from ray.autoscaler._private.loader import load_function_or_class
from ray.autoscaler._private.node_provider_availability_tracker import NodeProviderAvailabilityTracker
from ray.autoscaler._private.resource_demand_scheduler import get_nodes_for
from ray.autoscaler.node_launch_exception import NodeLaunchException

from docs.spot_notice import PATIENCE_SECONDS
from tests.faults.nodes import start_command

ROOT = Path(__file__).parents[3]
REGION, ADDRESS = "eu-central-1", "203.0.113.7/32"


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "cluster.yaml").read_text()


@pytest.fixture(scope="module")
def cluster(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@pytest.fixture(scope="module")
def kuberay() -> dict[str, Any]:
    loaded: dict[str, Any]
    loaded, _ = yaml.safe_load_all((ROOT / "docs" / "kuberay.yaml").read_text())
    return loaded


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An imitated account of AWS with the stack of docs/aws.yaml; a client of EC2."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "HOME": str(tmp_path),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
    }.items():
        monkeypatch.setenv(name, value)
    for cached in (aws_utils.resource_cache, aws_utils.client_cache, aws_config._get_subnets_or_die):
        cached.cache_clear()
    with mock_aws():
        parameters = {"Bucket": "BUCKET", "SshFrom": ADDRESS}
        boto3.client("cloudformation").create_stack(
            StackName="abstudy",
            TemplateBody=(ROOT / "docs" / "aws.yaml").read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        yield boto3.client("ec2")


def test_rays_bootstrap_takes_image_roles_disks_and_group(cluster: dict[str, Any], account: Any) -> None:
    """What `ray up` makes of the file, in an account with the stack of docs/aws.yaml; then it starts a machine of each type."""
    made = aws_config.bootstrap_aws(cluster)
    (group,) = account.describe_security_groups(GroupNames=["abstudy"])["SecurityGroups"]
    for name, kind in made["available_node_types"].items():
        node = kind["node_config"]
        assert re.fullmatch(
            r"resolve:ssm:/aws/service/deeplearning/ami/x86_64/[\w.-]+ubuntu-22.04/latest/ami-id", node["ImageId"]
        )
        assert node["IamInstanceProfile"] == {
            "Name": "abstudy-head" if name == made["head_node_type"] else "abstudy-worker"
        }
        (disk,) = node["BlockDeviceMappings"]
        assert (disk["Ebs"]["VolumeSize"], disk["Ebs"]["VolumeType"]) == (200, "gp3")
        assert node["SecurityGroupIds"] == [group["GroupId"]]
        (started,) = account.run_instances(
            **{k: v for k, v in node.items() if k != "SubnetIds"}, SubnetId=node["SubnetIds"][0], MinCount=1, MaxCount=1
        )["Instances"]
        assert started["IamInstanceProfile"]["Arn"].endswith(node["IamInstanceProfile"]["Name"])
    rules = {(rule["IpProtocol"], *(r["CidrIp"] for r in rule["IpRanges"])) for rule in group["IpPermissions"]}
    assert rules == {("tcp", ADDRESS), ("-1",)}, "ssh from one address, and everything between the nodes"


def test_the_roles_reach_one_bucket_and_only_the_head_starts_machines(account: Any) -> None:
    iam = boto3.client("iam")
    assert account.describe_instances()["Reservations"] == []
    for role in ("abstudy-worker", "abstudy-head"):
        (attached,) = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        policy = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]
        document = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])[
            "PolicyVersion"
        ]
        assert {s["Resource"] for s in document["Document"]["Statement"]} == {
            "arn:aws:s3:::BUCKET",
            "arn:aws:s3:::BUCKET/*",
        }
    assert iam.list_role_policies(RoleName="abstudy-worker")["PolicyNames"] == []
    # moto leaves it as text.
    document = yaml.safe_load(iam.get_role_policy(RoleName="abstudy-head", PolicyName="workers")["PolicyDocument"])
    (passed,) = [s["Resource"] for s in document["Statement"] if s["Action"] == "iam:PassRole"]
    assert passed == iam.get_role(RoleName="abstudy-worker")["Role"]["Arn"]


def test_every_node_installs_the_same_versions(cluster: dict[str, Any]) -> None:
    """constraints.txt pins each dependency to a version that pyproject.toml allows, and Ray to that of the image."""
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pinned[canonicalize_name(name)] = version.partition(" ")[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in (*project["dependencies"], *project["optional-dependencies"]["timm"]):
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text
    assert cluster["docker"]["image"].startswith(f"rayproject/ray:{pinned['ray']}-py311")
    (install,) = [command for command in cluster["setup_commands"] if "pip install" in command]
    assert "--constraint ~/abstudy/constraints.txt" in install
    image = (ROOT / "Dockerfile").read_text()
    assert f"FROM {cluster['docker']['image']}" in image
    assert "--constraint abstudy/constraints.txt" in image


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


def test_trials_are_told_before_a_machine_is_taken_away(cluster: dict[str, Any], kuberay: dict[str, Any]) -> None:
    *_, watch = cluster["worker_start_ray_commands"]
    assert watch.startswith("nohup python3 ~/abstudy/docs/spot_notice.py >")
    assert watch.endswith("&"), "the launcher waits for each command"
    (workers,) = kuberay["spec"]["workerGroupSpecs"]
    pod = workers["template"]["spec"]
    hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert hook == ["python", "/home/ray/abstudy/docs/spot_notice.py", "now"]
    assert pod["terminationGracePeriodSeconds"] > PATIENCE_SECONDS + 10


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


def test_shared_memory_of_a_pod_has_room_for_rays_object_store(kuberay: dict[str, Any]) -> None:
    for group in (kuberay["spec"]["headGroupSpec"], *kuberay["spec"]["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["mountPath"] == "/dev/shm"]
        (size,) = [v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if v["name"] == mount["name"]]
        memory, shared = (
            int(text.removesuffix("Gi")) for text in (pod["containers"][0]["resources"]["limits"]["memory"], size)
        )
        assert DEFAULT_OBJECT_STORE_MEMORY_PROPORTION * memory + 1 <= shared <= memory / 2


def test_other_pods_do_not_reach_the_cluster(kuberay: dict[str, Any]) -> None:
    _, policy = yaml.safe_load_all((ROOT / "docs" / "kuberay.yaml").read_text())
    own = {"ray.io/cluster": kuberay["metadata"]["name"]}
    assert policy["spec"]["podSelector"]["matchLabels"] == own
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    (rule,) = policy["spec"]["ingress"]
    job = yaml.safe_load((ROOT / "docs" / "kuberay-job.yaml").read_text())["metadata"]["name"]
    allowed = [source["podSelector"]["matchLabels"] for source in rule["from"]]
    assert allowed[:2] == [own, {"batch.kubernetes.io/job-name": job}]
    assert allowed[2:] == [{"app.kubernetes.io/name": "kuberay-operator"}]


@pytest.mark.parametrize("exists", [False, True])
def test_kuberay_job_runs_a_new_study_and_resumes_one_that_exists(
    kuberay: dict[str, Any], tmp_path: Path, exists: bool
) -> None:
    """The entry point is run as Ray does, by a shell, with a program that tells what it is called with."""
    spec = yaml.safe_load((ROOT / "docs" / "kuberay-job.yaml").read_text())["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": kuberay["metadata"]["name"]}
    head = kuberay["spec"]["headGroupSpec"]["template"]["spec"]
    (volume,) = [volume for volume in head["volumes"] if "configMap" in volume]
    (mount,) = [mount for mount in head["containers"][0]["volumeMounts"] if mount["name"] == volume["name"]]
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
