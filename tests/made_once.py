"""What many tests read is made once per run, by the worker of pytest that needs it first."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from filelock import FileLock

from trainables.models.catalog import RESNETS

# Beside the folders of the workers, which are gone after a run that passed; set by tests/conftest.py.
places: list[Path] = []


def made_once(kind: str, make: Callable[[Path], object]) -> Path:
    """Return a folder to read from, which `make` fills at the first call with this kind. Copy it to change it."""
    folder = places[0] / hashlib.sha256(kind.encode()).hexdigest()[:16]
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            # What a call that failed left is made again.
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            make(unfinished)
            unfinished.rename(folder)
    return folder


def random_weights() -> Path:
    """Return a folder with resnet18.pt and resnet50.pt, random weights in place of pretrained ones. To be read alone."""

    def write(folder: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for name in RESNETS:
                torch.save(torchvision.models.get_model(name).state_dict(), folder / f"{name}.pt")

    return made_once("random weights", write)
