"""Specs of studies that train for seconds: two kinds of resizing compared on a few planted scenes, and what a test changes."""

from pathlib import Path
from typing import Any

import tomli_w

# Without audits and heat maps, which the tests of a whole study have.
SMALL: dict[str, dict[str, Any]] = {
    "data": {"source": "planted", "num_images": 300},
    "model": {"weights": "none"},
    "train": {"image_size": 16, "batch_size": 32, "precision": "fp32"},
    "search": {
        **{"factor": "interpolation", "num_trials": 2, "max_epochs": 1, "pruning": "none"},
        # 0.5 million parameters (ResNet18 has 11.2 million), whose checkpoints take no time.
        "fixed": {"backbone": "timm:test_resnet", "class_weighting": "none", "cutmix_probability": 0.0},
    },
    "confirm": {"top_k": 1, "looks": [2]},
    "analyze": {"num_panels": 0, "num_audit_images": 0},
}


def small_study(name: str, **changes: Any) -> dict[str, Any]:
    """Return a spec with changes to the keys of its sections, of which None removes one, and further sections."""
    spec: dict[str, Any] = {"name": name, **SMALL}
    for section, change in changes.items():
        whole = {**spec.get(section, {}), **change} if isinstance(change, dict) else change
        spec[section] = {k: v for k, v in whole.items() if v is not None} if isinstance(change, dict) else whole
    return spec


def write_small_study(file: Path, name: str, **changes: Any) -> Path:
    """Write such a spec as TOML, and return its file."""
    file.write_text(tomli_w.dumps(small_study(name, **changes)))
    return file
