"""A user's images: one folder per class, optionally under train/ and test/ (torchvision's ImageFolder layout)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from search_spaces.errors import UserInputError
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import ImageSet
from trainables.data.sources.decoding import decode_files
from trainables.data.sources.descriptions import resolve_groups
from trainables.data.sources.subset import choose_subset

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
DESKTOP_FILES = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class _File:
    """A file and its name in messages."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class _Part:
    """The files of each class under one folder."""

    root: Path
    files: Mapping[str, Sequence[Path]]


def load_folder(
    path: str | None,
    *,
    seed: int = 0,
    num_images: Annotated[int, Field(ge=1)] | None = None,
    native_size: Annotated[int, Field(ge=8, le=1024)] | None = None,
    class_groups: Mapping[str, Sequence[str]] | None = None,
    group: str | None = None,
    memory_budget: ImageMemoryBudget,
) -> ImageSet:
    """Return the images below `path`, with classes and files in sorted order.

    The layout is <path>/<class>/*.png|jpg|..., or <path>/train/<class>/... with the official test set in
    <path>/test/<class>/... A grayscale set is replicated into three equal channels.

    Args:
        path: The folder.
        seed: Seed of the subset.
        num_images: Keep this many images outside the test set, stratified; only these are decoded and checked.
        native_size: Resize all images to this side in pixels (bicubic, without preserving the aspect ratio); without it
            all images must have the same size.
        class_groups: Named groups of classes, such as {rigid = ["ship"], deformable = ["cat", "dog"]}.
        group: What the folders between a class and its images are, such as "patient": images of one such folder belong together,
            also with those of a folder of the same name in another class. Without it, class folders hold images only. Set as
            data.group in a spec.
        memory_budget: Memory that the decoded images may take; not an option of a spec.

    Raises:
        UserInputError: Naming the folder that is missing, empty or misplaced, or the file that cannot be used.
    """
    if not path:
        raise UserInputError('the source "folder" needs data.path, a folder with one folder of images per class')
    root = Path(path).expanduser()
    parts = [_list_part(part, group) for part in _find_parts(root)]
    class_names = tuple(parts[0].files)
    for part in parts[1:]:
        _check_same_classes(parts[0], part)
    files = [(file, label) for part in parts for label, name in enumerate(class_names) for file in part.files[name]]
    labels = np.array([label for _, label in files], dtype=np.int64)
    num_first = sum(len(members) for members in parts[0].files.values())
    official_test = np.arange(len(files)) >= num_first if len(parts) == 2 else None
    kept = choose_subset(labels, official_test, num_images, seed)
    decoded = decode_files(
        [_File(str(files[i][0].relative_to(root.parent)), files[i][0]) for i in kept],
        native_size=native_size,
        image_size=None,
        aspect="squash",
        on_bad_image="refuse",
        memory_budget=memory_budget,
    )
    group_names, numbers = np.unique([file.parent.name for file, _ in files], return_inverse=True)
    return ImageSet(
        images=decoded.images,
        labels=labels[kept],
        class_names=class_names,
        source="folder",
        official_test=None if official_test is None else official_test[kept],
        class_groups=resolve_groups(class_groups, class_names),
        groups=None if group is None else numbers[kept],
        group_names=() if group is None else tuple(map(str, group_names)),
        origin=decoded.origin,
    )


def _find_parts(root: Path) -> list[Path]:
    """Return the folder itself, or its train/ and test/ if train/ holds folders."""
    if not root.is_dir():
        raise UserInputError(
            f"data.path must be a folder with one folder of images per class, but there is no folder {root}"
        )
    train, test = root / "train", root / "test"
    if not train.is_dir() or not _folders(train):
        return [root]
    others = [folder.name for folder in _folders(root) if folder not in (train, test)]
    if others:
        raise UserInputError(
            f"{root} has train/, so the only other folder may be test/, but it also has {others[0]}/; "
            "merge it into train/ or move it away"
        )
    return [train, test] if test.is_dir() else [train]


def _list_part(root: Path, group: str | None) -> _Part:
    for entry in _entries(root):
        if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
            raise UserInputError(f"{entry} is not in a class folder; move it into one")
    files = {folder.name: _list_images(folder, group) for folder in _folders(root)}
    if len(files) < 2:
        raise UserInputError(
            f"{root} must hold at least two class folders with images, but it holds {', '.join(files) or 'none'}"
        )
    for name, members in files.items():
        if not members:
            raise UserInputError(f"the class folder {root / name} holds no image; add images or remove the folder")
    return _Part(root, files)


def _list_images(folder: Path, group: str | None) -> list[Path]:
    """Return the images of a class, those of its group folders if there are groups."""
    if group is None:
        return _image_files(folder)
    loose = [entry for entry in _entries(folder) if not entry.is_dir()]
    if loose:
        raise UserInputError(
            f"with data.group, a class folder holds one folder per {group}, but {folder} holds {len(loose)} files, such as "
            f"{loose[0].name}; move them into folders"
        )
    return [file for entry in _folders(folder) for file in _image_files(entry)]


def _image_files(folder: Path) -> list[Path]:
    found = []
    for entry in _entries(folder):
        if entry.is_dir():
            raise UserInputError(
                f"a class folder may hold image files only, but {entry} is a folder; move its images up"
            )
        if entry.suffix.lower() not in IMAGE_SUFFIXES:
            raise UserInputError(
                f"{entry} is not an image ({', '.join(sorted(IMAGE_SUFFIXES))}); remove it or correct its suffix"
            )
        found.append(entry)
    return found


def _entries(folder: Path) -> list[Path]:
    """Return the sorted content without hidden files and files of desktop environments."""
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise UserInputError(f"the folder {folder} cannot be read ({error.strerror}); check its permissions") from None
    return [e for e in entries if not e.name.startswith(".") and e.name.lower() not in DESKTOP_FILES]


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _check_same_classes(train: _Part, test: _Part) -> None:
    for one, other in ((train, test), (test, train)):
        missing = sorted(set(one.files) - set(other.files))
        if missing:
            raise UserInputError(
                f"train/ and test/ must hold the same classes, but {other.root} has no folder {missing[0]!r}; add it, or "
                f"remove {one.root / missing[0]}"
            )
