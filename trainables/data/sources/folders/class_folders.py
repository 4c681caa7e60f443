"""Class folders: the folder of an image, or the folders between the data set and the image, are its class."""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainables.data.images import SkippedFile
from trainables.data.problems import Problem, make_printable
from trainables.data.sources.folders import image_files
from trainables.data.sources.folders.image_files import FoundFiles, ImageFile, Split
from trainables.data.sources.folders.masks import pair_masks

Parts = tuple[str, ...]

LOOSE = "an image beside the class folders; move it into the folder of its class to use it"


@dataclass(slots=True)
class _Tree:
    """Image files of every folder by its parts below the root, and everything else that was seen."""

    images: dict[Parts, list[str]] = field(default_factory=dict)
    folders: list[Parts] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def leave_out(self, names: Collection[str], prefix: Parts) -> None:
        """Take images of these names out, and folders that held them."""
        for parts, files in list(self.images.items()):
            left = [name for name in files if _name(prefix + parts, name) not in names]
            if len(left) < len(files):
                self.images |= {parts: left}
                self.folders = [folder for folder in self.folders if parts[: len(folder)] != folder]
        self.images = {parts: files for parts, files in self.images.items() if files}


def find_class_folders(folder: Path, root: Path, split: Split, group: str | None) -> FoundFiles:
    """Return the images below `folder`, by class and then by path, with their masks; loose files beside classes are left out.

    The class is the path of the image's folder, such as "cat" or "animals/cat"; with `group`, the last folder is the group and
    the folders above it are the class.

    Args:
        folder: the folder of the class folders.
        root: the data set's folder, to which names are relative.
        split: the published split of the images.
        group: what the folders of the last level are, such as "patient".
    """
    prefix = folder.relative_to(root).parts
    tree = _walk(folder, prefix)
    if tree.images.keys() - {()}:
        loose = tree.images.pop((), [])
        tree.skipped += [SkippedFile(name=_name(prefix, name), reason=LOOSE) for name in loose]
    files = [
        ImageFile(
            name=_name(prefix + parts, name),
            path=folder.joinpath(*parts, name),
            class_name=make_printable("/".join(parts if group is None else parts[:-1])),
            split=split,
            group=None if group is None else make_printable(parts[-1]),
        )
        for parts, names in tree.images.items()
        if len(parts) > (group is not None)
        for name in names
    ]
    files.sort(key=lambda file: (file.class_name, file.path.parts))
    images, problems = pair_masks(files)
    if len(images) < len(files):
        tree.leave_out({file.name for file in files} - {file.name for file in images}, prefix)
    return FoundFiles(images, tree.skipped, [*_find_problems(tree, prefix, group), *problems])


def holds_images(folder: Path) -> bool:
    """Return whether an image is anywhere below the folder."""
    return bool(_walk(folder, ()).images)


def list_visible(folder: Path) -> list[os.DirEntry[str]]:
    """Return the sorted entries that are not hidden; none if the folder cannot be read."""
    try:
        return _scan(folder)
    except OSError:
        return []


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not image_files.is_hidden(e.name)), key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether the entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _walk(folder: Path, prefix: Parts) -> _Tree:
    """Return everything below a folder; links to folders are followed, unless they lead upwards."""
    tree = _Tree()
    stack: list[tuple[Parts, frozenset[tuple[int, int]]]] = [((), frozenset())]
    while stack:
        parts, above = stack.pop()
        path = folder.joinpath(*parts)
        try:
            status, visible = path.stat(), _scan(path)
        except OSError as error:
            tree.unreadable.append(f"{_name(prefix, *parts) or folder} ({error.strerror})")
            continue
        here = (status.st_dev, status.st_ino)
        if here in above:
            tree.skipped.append(SkippedFile(name=_name(prefix, *parts), reason="a link to a folder that contains it"))
            continue
        if parts:
            tree.folders.append(parts)
        for entry in visible:
            if is_folder(entry):
                stack.append(((*parts, entry.name), above | {here}))
                continue
            reason = _reason_to_skip(entry)
            if reason is None:
                tree.images.setdefault(parts, []).append(entry.name)
            else:
                tree.skipped.append(SkippedFile(name=_name(prefix + parts, entry.name), reason=reason))
    return tree


def _reason_to_skip(entry: os.DirEntry[str]) -> str | None:
    if not entry.name.lower().endswith(image_files.IMAGE_SUFFIXES):
        return image_files.explain_suffix(Path(entry.name).suffix)
    # A link to nothing stays: it is listed with the images that cannot be read. Reading a pipe would never end.
    return None if entry.is_file() or not Path(entry.path).exists() else "not a regular file"


def _find_problems(tree: _Tree, prefix: Parts, group: str | None) -> Iterator[Problem]:
    where = f" of {_name(prefix)}/" if prefix else ""
    if tree.unreadable:
        yield Problem("folders that cannot be read", tuple(sorted(tree.unreadable)), "check their permissions")
    loose = tree.images.get((), [])
    if loose:
        rule, names = f"{len(loose)} images{where} that are not in a class folder", (_name(prefix, n) for n in loose)
        yield Problem(rule, tuple(names), "move each into the folder of its class, or out of the data set")
    if group is not None:
        ungrouped = [_name(prefix + p, n) for p, names in tree.images.items() if len(p) == 1 for n in names]
        if ungrouped:
            rule = f"with data.group, a class folder holds one folder per {group}, but images are directly in one"
            yield Problem(rule, tuple(sorted(ungrouped)), f"move each into a folder of its {group}")
    above = {parts[:depth] for parts in tree.images for depth in range(1, len(parts))}
    mixed = sorted(parts for parts in tree.images if parts in above and len(parts) > (group is not None))
    if mixed:
        rule = "folders that hold images and folders with images, so that the class is not clear"
        names = (f"{_name(prefix, *parts)}/ ({len(tree.images[parts])} images)" for parts in mixed)
        advice = f"move the images of each into a folder beside the others{'' if group else ', or set data.group'}"
        yield Problem(rule, tuple(names), advice)
    empty = _find_empty(tree, group)
    if empty:
        names = (f"{_name(prefix, *parts)}/" for parts in empty)
        yield Problem("folders that hold no image", tuple(names), "add images, or remove the folders")


def _find_empty(tree: _Tree, group: str | None) -> list[Parts]:
    """Return the topmost folders without an image below them; an empty folder of a group does no harm."""
    filled = {parts[:depth] for parts in tree.images for depth in range(len(parts) + 1)}
    empty = sorted(parts for parts in tree.folders if parts not in filled and parts[:-1] in {*filled, ()})
    return [parts for parts in empty if group is None or len(parts) == 1]


def _name(prefix: Parts, *parts: str) -> str:
    return make_printable("/".join((*prefix, *parts)))
