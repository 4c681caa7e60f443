"""Findings of earlier versions in today's form: they had one interval and one verdict each, those for the recipe."""

from collections.abc import Mapping
from typing import Any

# The field for these models, and that for the recipe which takes its value.
MOVED = {
    "verdict": "recipe_verdict",
    "word": "recipe_word",
    "is_confirmed": "recipe_confirmed",
    "cause": "recipe_cause",
}
INTERVAL = {"estimate", "low", "high"}


def upgrade_findings(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of a findings.json of any version in today's form; that of today comes back as it is."""
    arms = data.get("arms", [])
    if not any("test_macro_f1" in arm and set(arm["test_macro_f1"]) >= INTERVAL for arm in arms):
        return dict(data)
    return {**data, "arms": [_upgrade(arm) for arm in arms]}


def _upgrade(value: Any) -> Any:
    if isinstance(value, list):
        return [_upgrade(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == INTERVAL:
        return {"models": None, "recipe": value}
    upgraded = {key: _upgrade(item) for key, item in value.items()}
    for key, recipe_key in MOVED.items():
        if key in upgraded and recipe_key not in upgraded:
            upgraded[recipe_key], upgraded[key] = upgraded[key], None
    return upgraded
