"""cluster.yaml: valid for the installed Ray, and safe by default."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
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


def test_the_dashboard_listens_on_loopback_only(cluster: dict[str, Any]) -> None:
    (start,) = [c for c in cluster["head_start_ray_commands"] if "--head" in c]
    assert "--dashboard-host=127.0.0.1" in start
