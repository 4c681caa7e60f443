"""The passport of a study: the code, versions, machine, data and weights that it was launched with."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import search_spaces
from study.inputs.preparation import Prepared
from trainables.data.images import ImageSet
from trainables.devices import count_cuda_devices

# Height and width at which the study stores its images.
STORED_SIZE = "stored_size"
PACKAGES = (
    "abstudy",
    "torch",
    "torchvision",
    "ray",
    "optuna",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "grad-cam",
    "tensorboard",
)


def make_passport(prepared: Prepared, cluster: str, num_devices: float) -> dict[str, Any]:
    """Return the passport as a JSON object: code, versions, platform, devices, data and split fingerprints.

    Args:
        prepared: the study's data.
        cluster: description of the cluster in one line.
        num_devices: most devices that trials hold at once (GPUs, or CPU cores if trials hold no GPU).
    """
    return {
        "code": describe_code(),
        "versions": package_versions((*PACKAGES, *prepared.packages)),
        "platform": describe_platform(),
        "cluster": cluster,
        "num_devices": num_devices,
        "data": {
            "source": prepared.image_set.source,
            "fingerprint": prepared.splits.data_fingerprint,
            "splits": prepared.splits.fingerprint,
            "class_names": list(prepared.image_set.class_names),
            "num_images": {
                name: len(getattr(prepared.splits, name)) for name in ("train", "search", "confirm", "test")
            },
            STORED_SIZE: list(prepared.image_set.images.shape[1:3]),
            **_describe_files(prepared.image_set),
        },
        "weights": prepared.fixed["weights"],
    }


def _describe_files(image_set: ImageSet) -> dict[str, Any]:
    """Return the kinds of the decoded files, and the skipped ones with their reasons; nothing if there were no files."""
    origin = image_set.origin
    if origin is None:
        return {}
    return {"kinds": dict(origin.kinds), "skipped": [[file.name, file.reason] for file in origin.skipped]}


def package_versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of packages, by default those that affect the results of every study; "" for one that is missing."""
    return {name: _find_version(name) for name in names}


def _find_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def describe_platform() -> dict[str, Any]:
    """Return operating system, processor, Python version and the CUDA devices visible to torch."""
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor_name(),
        "python": platform.python_version(),
        "num_cpus": os.cpu_count(),
        "cuda_devices": [torch.cuda.get_device_name(i) for i in range(count_cuda_devices())],
    }


def describe_code() -> dict[str, str]:
    """Return the commit of the checkout, and a hash of its uncommitted changes.

    Both are "" for an installed package, which is identified by its version.
    """
    folder = Path(search_spaces.__file__).resolve().parent.parent
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit or not (folder / "pyproject.toml").exists():
        return {"commit": "", "diff": ""}
    diff = _git(folder, "diff", "HEAD", "--", "*.py", "*.toml")
    return {"commit": commit, "diff": hashlib.sha256(diff.encode()).hexdigest()[:16] if diff else ""}


def list_differences(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> tuple[str, ...]:
    """Return one line per value in which two passports differ, such as ``versions.torch: 2.9.0 -> 2.13.0``."""
    lines: list[str] = []
    for key in sorted({*then, *now}):
        name, old, new = f"{prefix}{key}", then.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines.extend(list_differences(old, new, f"{name}."))
        elif old != new:
            lines.append(f"{name}: {json.dumps(old)} -> {json.dumps(new)}")
    return tuple(lines)


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor()
