"""The choice of machines by Ray's autoscaler; cluster.yaml names the function in RAY_AUTOSCALER_UTILIZATION_SCORER."""

from typing import Any

from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer


def prefer_available(
    node_resources: dict[str, float],
    resources: list[dict[str, float]],
    node_type: str,
    *,
    node_availability_summary: Any,
) -> tuple[Any, ...] | None:
    """Return Ray's score of a node type, lowered below all others if the last launch of the type failed.

    The default scorer of Ray 2.60 ignores failed launches. It would request spot machines forever, even if none are available
    and an on-demand type fits as well.

    Args:
        node_resources: resources of the node type.
        resources: demands, one dict of resources each.
        node_type: name of the node type.
        node_availability_summary: the autoscaler's record of failed launches.

    Returns:
        A tuple that sorts by preference; None if the type fits no demand.
    """
    score = _default_utilization_scorer(
        node_resources, resources, node_type, node_availability_summary=node_availability_summary
    )
    if score is None:
        return None
    record = node_availability_summary.node_availabilities.get(node_type)
    return (record is None or record.is_available, *score)
