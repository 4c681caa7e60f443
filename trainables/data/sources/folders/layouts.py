"""Layouts of a folder of images: class folders, train/ val/ test/, a manifest, or Hugging Face's imagefolder."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search_spaces.errors import UserInputError, list_some
from trainables.data.decoding.encoded_files import DiskImages
from trainables.data.images import SkippedFile
from trainables.data.problems import Problem, make_printable
from trainables.data.sources.folders import image_files
from trainables.data.sources.folders.class_folders import find_class_folders, holds_images, is_folder, list_visible
from trainables.data.sources.folders.image_files import SPLIT_OF_WORD, SPLIT_ORDER, FoundFiles, ImageFile, Split
from trainables.data.sources.folders.manifest import SUFFIXES, is_manifest, read_columns, read_manifest
from trainables.data.sources.labeled_files import PARTS, LabeledFiles

HUGGING_FACE_MANIFEST = "metadata"
BESIDE_SPLITS = "an image beside the folders of the splits; move it into the folder of a class to use it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The labeled images of a folder or manifest.

    Attributes:
        root: the folder.
        kind: the layout in words, such as "class folders in train/ and val/".
        files: the images: training, validation and test images, each by class and path, or in a manifest's order.
        class_names: K names, sorted (as numbers, if a manifest labels by numbers).
        skipped: files that are not used, such as texts.
        found_problems: what is wrong, with all names.
    """

    root: Path
    kind: str
    files: tuple[ImageFile, ...]
    class_names: tuple[str, ...]
    skipped: tuple[SkippedFile, ...]
    found_problems: tuple[Problem, ...]

    def label_files(self) -> LabeledFiles:
        """Return the labels of the images; a label is the position of the class in `class_names`."""
        numbers = {name: number for number, name in enumerate(self.class_names)}
        has_groups = bool(self.files) and self.files[0].group is not None
        return LabeledFiles(
            labels=np.array([numbers[file.class_name] for file in self.files], dtype=np.int64),
            class_names=self.class_names,
            parts=np.array([PARTS.index(file.split or "train") for file in self.files], dtype=np.int64),
            groups=[file.group or "" for file in self.files] if has_groups else None,
            encode=lambda chosen: DiskImages.of_files([self.files[i] for i in chosen]),
        )

    def count_splits(self) -> dict[Split, int]:
        """Return the number of images by published split, in the order of `SPLIT_ORDER`."""
        counts = Counter(file.split for file in self.files)
        return {split: counts[split] for split in SPLIT_ORDER if counts[split]}


@dataclass(frozen=True, slots=True)
class _Part:
    """A folder of class folders, or a manifest, and the published split of its images."""

    path: Path
    split: Split


def find_layout(path: str | Path, *, group: str | None = None) -> Layout:
    """Return the labeled images of a folder or manifest; only what may be a mask is opened.

    The layouts: <class>/*; the same below train|training, val|valid|validation|dev and test|testing, in upper or lower case;
    nested folders, whose relative path is the class ("animals/cat"), without folders that every class has; a manifest
    (`read_manifest`) as `path`, or as the only one in the folder or in each split's folder (Hugging Face's metadata.csv);
    manifests called train.csv, val.csv and test.csv. Folders that hold nothing but one folder are entered. Files that are not
    images are skipped, hidden ones without a record.

    Args:
        path: the folder, or a .csv, .tsv, .jsonl or .parquet manifest.
        group: what the folders of the last level are, such as "patient", or the manifest's column of groups.

    Raises:
        UserInputError: if the path does not exist; everything else is in `found_problems`.
    """
    given = Path(path).expanduser()
    if given.is_file():
        if given.suffix.lower() not in SUFFIXES:
            raise UserInputError(
                f"data.path must be a folder of images or a manifest ({', '.join(SUFFIXES)}), but {given} is another file"
            )
        return _read_parts(given.parent, [_Part(given, "")], f"manifest {given.name}", [], [], group)
    if not given.is_dir():
        raise UserInputError(
            f"data.path must be a folder of images or a manifest ({', '.join(SUFFIXES)}), but there is no {given}"
            + ("" if given.is_absolute() else f" in {Path.cwd()}, to which it is relative")
        )
    root = _enter(given)
    manifests = _find_manifests(root)
    folders = [] if manifests else _find_split_folders(root)
    if manifests:
        problems = _check_manifests(manifests)
        return _read_parts(root, manifests, _describe_manifests(manifests), [], problems, group)
    if folders:
        skipped, problems = _check_beside(root, folders)
        parts = [part for folder in folders for part in _find_manifests(folder.path, folder.split) or [folder]]
        return _read_parts(root, parts, _describe_folders(folders, parts), skipped, problems, group)
    if headless := _find_headless(root):
        return Layout(root=root, kind="class folders", files=(), class_names=(), skipped=(), found_problems=(headless,))
    return _read_parts(root, [_Part(root, "")], "class folders", [], _check_flat_splits(root), group)


def list_scarce_classes(layout: Layout) -> list[Problem]:
    """Return the classes with so few images that a split lacks them, however the splits are drawn."""
    if len(layout.files) == len(layout.class_names):
        return []  # `check_classes` says that each class has one image.
    counts = {split: Counter(file.class_name for file in layout.files if file.split == split) for split in SPLIT_ORDER}
    has_validation, has_test = bool(counts["validation"]), bool(counts["test"])
    drawn = ["train", *(() if has_validation else ("search", "confirm")), *(() if has_test else ("test",))]
    problems = []
    parts_of: dict[Split, list[str]] = {"": drawn, "train": drawn, "validation": ["search", "confirm"]}
    for split, parts in parts_of.items():
        scarce = [name for name in layout.class_names if 0 < counts[split][name] < len(parts)]
        if scarce:
            number, kind = len(parts), f"{split}{split and ' '}images"
            rule = f"classes with fewer than {number} {kind}, one for each of {', '.join(parts)}"
            names = tuple(f"{name} ({counts[split][name]})" for name in scarce)
            problems.append(Problem(rule, names, "give more images of these classes, or drop them"))
    return problems


def _enter(folder: Path) -> Path:
    """Return the first folder that holds more than one folder alone, as archives have one around everything."""
    inner = folder
    for _ in range(3):
        entries = list_visible(inner)
        if len(entries) != 1 or not is_folder(entries[0]) or entries[0].name.lower() in SPLIT_OF_WORD:
            break
        inner = Path(entries[0].path)
        if sum(map(is_folder, list_visible(inner))) > 1 or _find_manifests(inner):
            return inner
    return folder


def _find_manifests(folder: Path, split: Split = "") -> list[_Part]:
    """Return the manifests of a folder: metadata.*, else all tables with the columns of one."""
    found = [table for table in _list_tables(folder) if is_manifest(table)]
    found = [table for table in found if table.stem.lower() == HUGGING_FACE_MANIFEST] or found
    if len(found) == 1:
        return [_Part(found[0], split)]
    return [_Part(table, split or SPLIT_OF_WORD.get(table.stem.lower(), "")) for table in found]


def _list_tables(folder: Path) -> list[Path]:
    entries = list_visible(folder)
    return [Path(e.path) for e in entries if Path(e.name).suffix.lower() in SUFFIXES and not is_folder(e)]


def _find_headless(root: Path) -> Problem | None:
    """Return that a table names images in its first line, where its header should be; None if none does."""
    for table in _list_tables(root):
        first = read_columns(table)
        if any((root / cell).is_file() for cell in first):
            header = ",".join("path" if (root / cell).is_file() else "label" for cell in first)
            rule = f"{make_printable(table.name)} has no header: its first line is {make_printable(','.join(first))!r}"
            return Problem(rule, (), f'write the line "{header}" above it')
    return None


def _check_manifests(manifests: Sequence[_Part]) -> list[Problem]:
    """Return what is wrong if a folder holds several manifests that are not those of different splits."""
    splits = [part.split for part in manifests]
    if len(manifests) == 1 or (all(splits) and len(set(splits)) == len(splits)):
        return []
    names = tuple(make_printable(part.path.name) for part in manifests)
    return [Problem("several manifests in one folder", names, "set data.path to one, or call them train, val and test")]


def _find_split_folders(root: Path) -> list[_Part]:
    """Return the folders of the published splits; none if the folders of such names hold images, as classes do."""
    found = [
        _Part(Path(entry.path), SPLIT_OF_WORD[entry.name.lower()])
        for entry in list_visible(root)
        if is_folder(entry) and entry.name.lower() in SPLIT_OF_WORD
    ]
    found.sort(key=lambda part: SPLIT_ORDER.index(part.split))
    splits = [part for part in found if any(map(is_folder, list_visible(part.path))) or _find_manifests(part.path)]
    if any(part.split == "train" for part in splits) or len({part.split for part in splits}) > 1:
        return found
    return []


def _check_flat_splits(root: Path) -> list[Problem]:
    """Return what is wrong if the only folders are those of splits, hold images themselves, and a table lies beside them.

    Then the folders are no classes: the table has the labels, in columns that are not those of a manifest.
    """
    names, tables = [entry.name for entry in list_visible(root) if is_folder(entry)], _list_tables(root)
    if not (names and tables and all(name.lower() in SPLIT_OF_WORD for name in names)):
        return []
    advice = "move each image into a folder of its class, or call the columns of the table path and label"
    found = [f"{make_printable(t.name)} has the columns {list_some(read_columns(t), 5) or 'none'}" for t in tables]
    advice += f"; {list_some(found, separator='; ')}"
    return [Problem("folders of splits without a folder for each class", tuple(f"{name}/" for name in names), advice)]


def _check_beside(root: Path, folders: Sequence[_Part]) -> tuple[list[SkippedFile], list[Problem]]:
    """Return what is beside the folders of the splits, and what is wrong with it and with the splits."""
    skipped, strays, problems = [], [], []
    for entry in list_visible(root):
        path = Path(entry.path)
        if path in {part.path for part in folders}:
            continue
        if is_folder(entry):
            name = f"{make_printable(entry.name)}/"
            if holds_images(path):
                strays.append(name)
            else:
                skipped.append(SkippedFile(name=name, reason="no images"))
        else:
            is_image = path.suffix.lower() in image_files.IMAGE_SUFFIXES
            reason = BESIDE_SPLITS if is_image else image_files.explain_suffix(path.suffix)
            skipped.append(SkippedFile(name=make_printable(entry.name), reason=reason))
    if strays:
        advice = "move them into the splits, or out of the data set"
        problems.append(Problem("images beside the folders of the splits", tuple(strays), advice))
    for split in SPLIT_ORDER[1:]:
        names = [part.path.name for part in folders if part.split == split]
        if len(names) > 1:
            problems.append(Problem(f"several folders of {split} images", tuple(names), "merge them, or move one away"))
    if not any(part.split == "train" for part in folders):
        names = [part.path.name for part in folders]
        problems.append(Problem("no folder train/ beside", tuple(names), "add it, or correct its name"))
    return skipped, problems


def _read_parts(
    root: Path,
    parts: Sequence[_Part],
    kind: str,
    skipped: Sequence[SkippedFile],
    problems: Sequence[Problem],
    group: str | None,
) -> Layout:
    found = [_read_part(root, part, group) for part in parts]
    files = [file for one in found for file in one.files]
    if all(part.path.is_dir() for part in parts):
        files = image_files.drop_common_folders(files)
    files, look_alikes = image_files.merge_look_alikes(files)
    names = {file.class_name for file in files}
    are_numbers = all(name.isdecimal() for name in names)
    class_names = tuple(sorted(names, key=lambda name: (int(name) if are_numbers else 0, name)))
    is_nested = any("/" in name for name in class_names) and kind.startswith("class folders")
    return Layout(
        root=root,
        kind=f"nested {kind}" if is_nested else kind,
        files=tuple(files),
        class_names=class_names,
        skipped=(*skipped, *(file for one in found for file in one.skipped)),
        found_problems=(
            *problems,
            *(problem for one in found for problem in one.problems),
            *look_alikes,
            *(image_files.check_repeated(files) if len(parts) > 1 else ()),
            *image_files.check_classes(files, class_names, _advise_on_classes(root)),
        ),
    )


def _read_part(root: Path, part: _Part, group: str | None) -> FoundFiles:
    if part.path.is_dir():
        return find_class_folders(part.path, root, part.split, group)
    try:
        return read_manifest(part.path, root, part.split, group)
    except UserInputError as error:
        rule, _, advice = str(error).partition("; ")
        return FoundFiles([], [], [Problem(rule, (), advice)])


def _advise_on_classes(root: Path) -> str:
    names = [entry.name for entry in list_visible(root)]
    if any(name.endswith(".parquet") for name in names):
        return 'for parquet files with encoded images set data.source to "parquet"'
    if any(name.endswith(".tar") for name in names):
        return 'for tar files of WebDataset set data.source to "webdataset"'
    return "give a folder with one folder of images per class, or a csv file with the columns path and label"


def _describe_manifests(manifests: Sequence[_Part]) -> str:
    names = " and ".join(make_printable(part.path.name) for part in manifests)
    if manifests[0].path.stem.lower() == HUGGING_FACE_MANIFEST:
        return f"Hugging Face imagefolder with {names}"
    return f"manifest {names}"


def _describe_folders(folders: Sequence[_Part], parts: Sequence[_Part]) -> str:
    where = " and ".join(f"{part.path.name}/" for part in folders)
    tables = sorted({part.path.name for part in parts if part not in folders})
    if tables:
        return f"Hugging Face imagefolder with {' and '.join(map(make_printable, tables))} in {where}"
    return f"class folders in {where}"
