"""Files of labeled images as they are found on disk, before they are decoded."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from trainables.data.images import SkippedFile
from trainables.data.problems import Problem, group_look_alikes

# The suffixes that torchvision's ImageFolder reads.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
DESKTOP_FILES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})

Split = Literal["", "train", "validation", "test"]
WORDS: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SPLIT_OF_WORD = MappingProxyType({word: split for split, words in WORDS.items() for word in words})
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
        mask: its mask, a file beside it; None without.
    """

    name: str
    path: Path
    class_name: str
    split: Split
    group: str | None
    mask: Path | None = None


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


def drop_common_folders(files: Sequence[ImageFile]) -> list[ImageFile]:
    """Return images of class folders without the outer and inner folders that all classes have in common, as in "cat/photos"."""
    names = {name: name.split("/") for name in {file.class_name for file in files}}
    for end in (0, -1):
        while len(names) > 1 and min(map(len, names.values())) > 1 and len({p[end] for p in names.values()}) == 1:
            for parts in names.values():
                parts.pop(end)
    return _rename(files, {name: "/".join(parts) for name, parts in names.items()})


def merge_look_alikes(files: Sequence[ImageFile]) -> tuple[list[ImageFile], list[Problem]]:
    """Return the images with the names of classes in Unicode's NFC, and what is wrong with the names.

    Names that differ in their form of Unicode, in case or in blanks around them alone are one problem; the returned images of
    such classes have the first of the names, so that no other check has to mention it.
    """
    counts = Counter(file.class_name for file in files)
    alike = group_look_alikes(counts)
    first = {name: unicodedata.normalize("NFC", names[0]) for names in alike for name in names}
    groups = tuple(tuple(f"{_show(n)} ({counts[n]})" for n in names) for names in alike if len(names) > 1)
    advice = "if one class is meant, rename the folders (or labels) to one name; else to names that differ in more"
    rule = "which names of classes are meant? These differ only in case, in blanks around them or in how accents are encoded"
    return _rename(files, first), [Problem(rule, groups, advice)] if groups else []


def _rename(files: Sequence[ImageFile], names: Mapping[str, str]) -> list[ImageFile]:
    """Return the images with new names of their classes."""
    return [f if f.class_name == names[f.class_name] else replace(f, class_name=names[f.class_name]) for f in files]


def _show(name: str) -> str:
    """Return a name in quotes, with escapes where it is not in NFC and would look like another one."""
    return repr(name) if unicodedata.is_normalized("NFC", name) else ascii(name)


def check_classes(files: Sequence[ImageFile], class_names: tuple[str, ...], advice: str) -> Iterator[Problem]:
    """Yield what is wrong with the classes: fewer than two, one image of each, or other ones in one split than in another.

    Args:
        files: the images.
        class_names: their classes.
        advice: what to do about too few classes.
    """
    if len(class_names) < 2:
        found = f"{len(files)} images of {len(class_names)} were found"
        yield Problem(f"a data set needs images of two classes or more, but {found}", class_names, advice)
    elif len(files) == len(class_names):
        advice = "give at least four of each; if the folders are no classes, move their images into folders that are"
        yield Problem(f"each of the {len(files)} classes has one image", class_names, advice)
        return
    classes = {split: {f.class_name for f in files if f.split == split} for split in {f.split for f in files}}
    if "train" not in classes and classes.keys() - {""}:
        yield Problem("there are no training images", (), "set the split of some to train")
    for split in SPLIT_ORDER[1:]:
        missing = tuple(name for name in class_names if name not in classes.get(split, ()))
        if split in classes and missing:
            advice = f"add {split} images of each, or remove these classes from the other splits"
            yield Problem(f"classes without {split} images, which other splits have", missing, advice)


def check_repeated(files: Sequence[ImageFile]) -> Iterator[Problem]:
    """Yield the images that several manifests list."""
    counts = Counter(file.path for file in files)
    repeated = {file.name: None for file in files if counts[file.path] > 1}
    if repeated:
        yield Problem("images that several manifests list", tuple(repeated), "keep the row of each in one manifest")
