"""Which machine Ray's autoscaler starts: named in cluster.yaml (RAY_AUTOSCALER_UTILIZATION_SCORER), run on the head."""

from typing import Any

from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer


def prefer_available(
    node_resources: dict[str, float],
    resources: list[dict[str, float]],
    node_type: str,
    *,
    node_availability_summary: Any,
) -> tuple[Any, ...] | None:
    """Return Ray's own score of a node type, below every type whose last launch did not fail.

    Ray 2.60's own scorer is told which launches failed and makes no use of it: without spot machines it would ask for them for
    ever, though an on-demand type fits as well. Arguments as Ray gives them; None where the type fits no demand.
    """
    score = _default_utilization_scorer(
        node_resources, resources, node_type, node_availability_summary=node_availability_summary
    )
    if score is None:
        return None
    record = node_availability_summary.node_availabilities.get(node_type)
    return (record is None or record.is_available, *score)
