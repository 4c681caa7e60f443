"""Files of labeled images as they are found on disk, before they are decoded."""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from trainables.data.images import SkippedFile
from trainables.data.problems import Problem

# The suffixes that torchvision's ImageFolder reads.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
DESKTOP_FILES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})

Split = Literal["", "train", "validation", "test"]
SPLIT_OF_WORD = MappingProxyType[str, Split](
    {
        "train": "train",
        "training": "train",
        "val": "validation",
        "valid": "validation",
        "validation": "validation",
        "dev": "validation",
        "test": "test",
        "testing": "test",
    }
)
SPLIT_ORDER: tuple[Split, ...] = ("", "train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """One labeled image file.

    Attributes:
        name: path below the data set's folder, for messages and records.
        path: the file.
        class_name: its label.
        split: the published split; "" if there is none.
        group: name of the images that it belongs with, such as a patient; None without groups.
    """

    name: str
    path: Path
    class_name: str
    split: Split
    group: str | None


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """Labeled images of one folder or manifest, what is not used of it, and what is wrong with it."""

    files: list[ImageFile]
    skipped: list[SkippedFile]
    problems: list[Problem]


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden or made by a desktop environment."""
    return name.startswith(".") or name.lower() in DESKTOP_FILES


def explain_suffix(suffix: str) -> str:
    """Return why a file with this suffix is not read, such as "not an image"."""
    if suffix.lower() == ".gif":
        return "a GIF, which torchvision's ImageFolder does not read either; save it as PNG to use it"
    return "not an image"
