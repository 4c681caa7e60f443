"""The passport of a study: the code, versions, machine, data and weights of its launch; and changes when it goes on."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import search_spaces
from search_spaces.errors import UserInputError, list_some
from study.inputs.preparation import Prepared
from study.state.paths import CHANGES
from study.state.record_book import now_utc
from study.state.sealed_files import add_sealed_json, read_sealed_folder
from trainables.data.images import ImageSet
from trainables.data.splits import SPLIT_NAMES, describe_near_duplicates
from trainables.devices import count_cuda_devices
from trainables.storage.store import Store

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
            "num_images": {name: len(getattr(prepared.splits, name)) for name in SPLIT_NAMES},
            STORED_SIZE: list(prepared.image_set.images.shape[1:3]),
            **describe_near_duplicates(prepared.image_set, prepared.splits),
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


MAX_NAMED = 4

# Packages in whose arithmetic a Gaussian process is fitted.
ARITHMETIC = ("numpy", "optuna", "scipy", "torch")


def find_changes(passport: dict[str, Any]) -> tuple[str, ...]:
    """Return one line per difference in code, package versions and Python between the passport and this process.

    The packages are those that the passport names.
    """
    then = {"code": passport["code"], "versions": passport["versions"], "python": passport["platform"]["python"]}
    versions = package_versions(passport["versions"])
    now = {"code": describe_code(), "versions": versions, "python": describe_platform()["python"]}
    return list_differences(then, now)


def list_arithmetic_changes(passport: dict[str, Any]) -> tuple[str, ...]:
    """Return one line per difference from the launch, in the processor and `ARITHMETIC`, that may change a suggestion."""
    then, now = (
        {name: versions[name] for name in ARITHMETIC} for versions in (passport["versions"], package_versions())
    )
    before, here = passport["platform"]["processor"], describe_platform()["processor"]
    return list_differences({"versions": then, "processor": before}, {"versions": now, "processor": here})


def check_unchanged(store: Store, passport: dict[str, Any], *, allow_changed: bool, num_trials: int) -> None:
    """Record in the study what differs since it was launched or last continued.

    Args:
        store: the study's root.
        passport: the study's passport.
        allow_changed: whether differences are allowed.
        num_trials: number of trials that the search has started, recorded with the differences.

    Raises:
        UserInputError: if there are differences that are neither allowed nor recorded.
    """
    changes = find_changes(passport)
    noted = read_changes(store)
    if not changes or (noted and tuple(noted[-1]["changes"]) == changes):
        return
    if not allow_changed:
        named = list_some(changes, MAX_NAMED, "; ")
        raise UserInputError(
            f"the study was launched with other code or versions: {named}. "
            "Restore them, or continue with --allow-changed; the report will state the changes"
        )
    add_sealed_json(store, CHANGES, {"time": now_utc(), "after_trials": num_trials, "changes": list(changes)})


def read_changes(store: Store) -> tuple[dict[str, Any], ...]:
    """Return the recorded changes, oldest first: `changes`, one line each, and `after_trials`."""
    notes = read_sealed_folder(store, CHANGES).values()
    return tuple({"changes": list(n["changes"]), "after_trials": int(n["after_trials"])} for n in notes)


def describe_changed_versions(notes: Sequence[dict[str, Any]]) -> list[str]:
    """Return one sentence for the report per record of `read_changes`."""
    return [
        f"From trial {note['after_trials']} of the search on, the study ran with other code or versions: "
        f"{'; '.join(note['changes'])}."
        for note in notes
    ]
