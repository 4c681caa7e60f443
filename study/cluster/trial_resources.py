"""What a trial holds of one node. Tune sends this module to the processes of trials, so that it imports little."""

from typing import Any

from ray import tune


def request_resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """Return the `num_cpus` and `num_gpus` of a trial's arguments as Tune requests them."""
    bundle = {"CPU": config["num_cpus"], "GPU": config["num_gpus"]}
    return tune.PlacementGroupFactory([{k: v for k, v in bundle.items() if v}])
