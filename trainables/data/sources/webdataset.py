"""Images in tar files as WebDataset writes and reads them.

The files of a sample stand together and share their name up to the first dot.
"""

import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError, first_line, nearest_name
from trainables.data.decoding.encoded_files import DiskImages, ImageSpans
from trainables.data.images import ImageSet
from trainables.data.problems import ProblemList, make_printable
from trainables.data.sources.labeled_files import PARTS, FileSource, LabeledFiles
from trainables.data.sources.parquet import VALIDATION_SPLITS

# Word in a file's name -> published split.
SPLITS: Mapping[str, str] = MappingProxyType(
    {"train": "train", "test": "test", **dict.fromkeys(VALIDATION_SPLITS, "validation")}
)
SUFFIX = ".tar"
NAME_FILES = ("classes.txt", "classnames.txt")
IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm"})
CLASS, FIELDS = "cls", "json"
END_BYTES = 2 * tarfile.BLOCKSIZE
# A class or the fields of one image have no more.
MAX_TEXT_BYTES = 2**20
# Longer ones are no numbers of classes.
MAX_DIGITS = 9
COPY_AGAIN = "copy it again, or write it anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class TarSample:
    """An image of a tar file.

    Attributes:
        key: name up to the first dot.
        offset: first byte of the encoded image in the tar file.
        size: its bytes.
        label: text or number of the class.
        text: the label as it is written.
        group: of the image; "" without groups.
    """

    key: str
    offset: int
    size: int
    label: str | int
    text: str
    group: str


@dataclass(frozen=True, slots=True)
class _Member:
    key: str
    extension: str
    offset: int
    size: int
    content: bytes


class TarSource(FileSource):
    """A tar file, or a folder of tar files such as imagenet-train-000000.tar.

    A sample is an image (.jpg, .png, ...) with its class in a .cls file, a number or a name, or in its .json. Other files of a
    sample are ignored. Where names of tar files hold the word train, those with validation, valid, val, dev or test are the
    published splits. The group is a field of a sample's .json.

    Attributes:
        label_field: Field of a sample's .json with its class, where it has no .cls.
        class_names: K names in the order of the numbers. By default the lines of classes.txt or classnames.txt in the folder,
            or where labels are names these in alphabetical order, or the numbers themselves.

    Raises:
        UserInputError: With all tar files that are cut or no tar files, and all samples without a label or with several
            images.
    """

    name = "webdataset"

    label_field: str = "label"
    class_names: Sequence[str] | None = None

    def load(self) -> ImageSet:
        """Return the images."""
        return self.load_found(self.find())

    def find(self) -> LabeledFiles:
        """Return the labeled samples."""
        paths = _find_files(self.path)
        problems = ProblemList()
        of_files = [_list_samples(file, self.label_field, self.group, problems) for file in paths]
        files = np.repeat(np.arange(len(paths), dtype=np.int32), [len(found) for found in of_files])
        samples = [sample for found in of_files for sample in found]
        places = [f"{paths[number]} {sample.key}" for number, sample in zip(files, samples, strict=True)]
        names, labels = _resolve_labels(Path(str(self.path)), samples, places, self.class_names, problems)
        if not samples:
            problems.add("there is no image", str(self.path), "give tar files with samples of an image and its class")
        problems.raise_any(str(self.path))
        spans = ImageSpans(
            paths=tuple(map(str, paths)),
            files=files,
            offsets=np.array([sample.offset for sample in samples], dtype=np.int64),
            sizes=np.array([sample.size for sample in samples], dtype=np.int64),
        )
        return LabeledFiles(
            labels=labels,
            class_names=names,
            parts=_find_parts(paths)[files],
            groups=None if self.group is None else [sample.group for sample in samples],
            encode=lambda chosen: DiskImages([make_printable(places[i]) for i in chosen], spans.take(chosen)),
        )


def is_tar_set(path: Path) -> bool:
    """Return whether `path` is a tar file, or a folder that holds some and no image: an archive may lie beside images."""
    if path.is_file():
        return path.suffix == SUFFIX
    suffixes = {file.suffix.lower() for file in path.rglob("*")}
    return SUFFIX in suffixes and not any(f".{extension}" in suffixes for extension in IMAGE_EXTENSIONS)


def _find_files(path: str | None) -> list[Path]:
    if not path:
        raise UserInputError('the source "webdataset" needs data.path, a .tar file or a folder of them')
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    files = sorted(root.rglob(f"*{SUFFIX}")) if root.is_dir() else []
    if not files:
        found = "holds no .tar file" if root.is_dir() else "does not exist"
        raise UserInputError(f"data.path must be a .tar file or a folder of them, but {root} {found}")
    return files


def _find_parts(paths: Sequence[Path]) -> NDArray[np.int64]:
    """Return (F,) the position of each file's published split in `PARTS`, by its name or that of its folder."""

    def name(path: Path) -> str:
        words = re.split(r"[^a-z]+", f"{path.stem} {path.parent.name}".lower())
        return next((SPLITS[word] for word in words if word in SPLITS), "")

    parts = [name(path) for path in paths]
    return np.array([PARTS.index(part if part and "train" in parts else "train") for part in parts])


def _resolve_labels(
    root: Path, samples: Sequence[TarSample], places: Sequence[str], given: Sequence[str] | None, problems: ProblemList
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names of the classes and (N,) labels; add what does not fit to the problems."""
    listed = tuple(given) if given is not None else _read_names(root)
    values = _choose_values(samples, listed)
    names = listed or _name_values(values)
    numbers = {name: number for number, name in enumerate(names)}
    labels = []
    for value, place in zip(values, places, strict=True):
        number = value if isinstance(value, int) else numbers.get(value, -1)
        if not 0 <= number < len(names):
            near = nearest_name(value, names) if isinstance(value, str) else ""
            rule = f"labels must be numbers in [0, {len(names)}) or names of classes"
            problems.add(rule, f"{place} ({str(value)[:40]!r}{near})", "correct them or name every class")
            number = 0
        labels.append(number)
    if values and (len(names) < 2 or len(set(names)) < len(names)):
        problems.add("a source needs at least two classes with distinct names", str(list(names)), "correct them")
    return names, np.array(labels, dtype=np.int64)


def _read_names(root: Path) -> tuple[str, ...]:
    folder = root if root.is_dir() else root.parent
    found = next((folder / name for name in NAME_FILES if (folder / name).is_file()), None)
    try:
        lines = [] if found is None else found.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserInputError(f"{found} is not in UTF-8; save it as UTF-8, a class per line") from None
    return tuple(line.strip() for line in lines if line.strip())


def _choose_values(samples: Sequence[TarSample], names: Sequence[str]) -> list[str | int]:
    """Return the labels: all as they are written where only that makes all of them valid, else numbers as numbers.

    A .cls holds text: "7" is class number 7 in most sets, and the digit 7 in one of digits and letters.
    """
    if names:
        are_numbers = all(isinstance(sample.label, int) and sample.label < len(names) for sample in samples)
        are_names = not are_numbers and {sample.text for sample in samples} <= set(names)
    else:
        are_names = any(isinstance(sample.label, str) for sample in samples)
    return [sample.text if are_names else sample.label for sample in samples]


def _name_values(values: Sequence[str | int]) -> tuple[str, ...]:
    texts = sorted({value for value in values if isinstance(value, str)})
    highest = max((value for value in values if isinstance(value, int)), default=-1)
    return tuple(texts) or tuple(map(str, range(highest + 1)))


def _list_samples(path: Path, label_field: str, group: str | None, problems: ProblemList) -> list[TarSample]:
    """Return the samples of a tar file in their order, and add what is wrong with it to the problems.

    Args:
        path: the tar file.
        label_field: field of a sample's .json that holds its class, where it has no .cls.
        group: field of a sample's .json that says which images belong together; None without groups.
        problems: is extended.
    """
    try:
        members, end = _list_members(path)
    except (tarfile.TarError, OSError, EOFError) as error:
        problems.add("cannot be read as tar", f"{path} ({_explain(path, error)})", COPY_AGAIN)
        return []
    if not _has_only_zeros(path, end):
        problems.add(
            "is damaged, or several tar files in one: what follows is not read", f"{path}, byte {end}", COPY_AGAIN
        )
        return []
    if not _has_end(path):
        problems.add("is cut: the blocks that end a tar file are missing", path, COPY_AGAIN)
        return []
    samples = []
    for key, together in groupby(members, key=lambda member: member.key):
        sample = _read_sample(f"{path} {key}", key, list(together), label_field, group, problems)
        if sample is not None:
            samples.append(sample)
    if not samples and not members:
        problems.add("holds no files", path, "remove it")
    return samples


def _list_members(path: Path) -> tuple[list[_Member], int]:
    """Return the files, and the first byte behind the last one: of zeros, or of a header that tarfile takes for the end."""
    found = []
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            folder, _, name = info.name.rpartition("/")
            stem, _, extension = name.partition(".")
            if not info.isfile() or not stem:
                continue
            if info.issparse():
                raise tarfile.ReadError(f"{info.name} is stored with holes; pack it without --sparse")
            extension = extension.lower()
            opened = tar.extractfile(info) if extension in {CLASS, FIELDS} else None
            content = b"" if opened is None else opened.read(MAX_TEXT_BYTES + 1)
            key = f"{folder}/{stem}" if folder else stem
            found.append(_Member(key, extension, info.offset_data, info.size, content))
        return found, tar.offset


def _has_only_zeros(path: Path, start: int) -> bool:
    """Return whether a file consists of zeros from `start` on. Behind a whole tar file, these are a few blocks."""
    with path.open("rb") as file:
        file.seek(start)
        return not any(any(part) for part in iter(partial(file.read, tarfile.RECORDSIZE), b""))


def _explain(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            is_compressed = file.read(2) == b"\x1f\x8b"
    except OSError:
        is_compressed = False
    if is_compressed:
        return "compressed; unpack it with gunzip, since single images cannot be read from it"
    return first_line(error)


def _has_end(path: Path) -> bool:
    """Return whether the file ends with the two blocks of zeros without which tarfile takes a cut file for a whole one."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < END_BYTES:
            return False
        file.seek(-END_BYTES, os.SEEK_END)
        return not any(file.read())


def _read_sample(
    where: str, key: str, members: list[_Member], label_field: str, group: str | None, problems: ProblemList
) -> TarSample | None:
    images = [member for member in members if member.extension in IMAGE_EXTENSIONS]
    texts = {member.extension: member.content for member in members if member.extension in {CLASS, FIELDS}}
    if not images:
        return None  # Not every sample of a mixed set is an image.
    if len(images) > 1:
        problems.add("has several images", f"{where} ({', '.join(m.extension for m in images)})", "keep one of them")
        return None
    if any(len(text) > MAX_TEXT_BYTES for text in texts.values()):
        problems.add(f"has a .cls or .json of over {MAX_TEXT_BYTES:,} bytes", where, "keep what says the class")
        return None
    fields: Any = {}
    if FIELDS in texts:
        try:
            fields = json.loads(texts[FIELDS])
        except (ValueError, RecursionError):
            fields = None
    if not isinstance(fields, dict):
        problems.add("has a .json that cannot be read, or that holds no fields", where, "correct it")
        return None
    text = texts[CLASS].decode(errors="replace").strip() if CLASS in texts else None
    label = fields.get(label_field) if text is None else text
    if text is not None and text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        label = int(text)
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        rule = f"has no label: no .cls, and no text or whole number under {label_field!r} in a .json"
        problems.add(rule, where, "add one, or set data.options.label_field")
        return None
    belongs = "" if group is None else fields.get(group, "")
    if group is not None and (belongs == "" or not isinstance(belongs, int | str)):
        problems.add(f"has no text or whole number under {group!r}, the data.group, in a .json", where, "add it")
        return None
    return TarSample(
        key=key,
        offset=images[0].offset,
        size=images[0].size,
        label=label,
        text=str(label) if text is None else text,
        group=str(belongs),
    )
