"""Manifests: a table with a row per image (path, label, optional split and group), as csv, JSON lines or parquet."""

import csv
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from search_spaces.errors import UserInputError, first_line, list_some, nearest_name
from trainables.data.images import SkippedFile
from trainables.data.problems import Problem, make_printable
from trainables.data.sources.folders.image_files import SPLIT_OF_WORD, FoundFiles, ImageFile, Split, explain_suffix
from trainables.data.sources.parquet import check_num_rows

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
PATH_COLUMNS = ("file_name", "path", "file", "filename", "image")
LABEL_COLUMNS = ("label", "class")
SPLIT_COLUMN = "split"
GROUP_COLUMN, MASK_COLUMN = "group", "mask"
DELIMITERS = (",", ";", "\t")

Row = Mapping[str, object]
# Rows with problems, by kind.
Problems = dict[str, list[str]]

ADVICE: Mapping[str, str] = {
    "rows without a path": "fill or remove them",
    "rows without a label": "fill or remove them",
    "rows without a split": "fill them, or remove the column",
    "rows without a group": "fill them",
    "splits that are not known": f"use {', '.join(sorted(SPLIT_OF_WORD))}",
    "files that do not exist": "correct the paths, which are absolute or relative to the manifest's folder",
    "masks that do not exist": "correct the paths, which are absolute or relative to the manifest's folder",
    "files that are listed more than once": "keep one row of each",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """The columns of a manifest, as they are spelled in it."""

    path: str
    label: str
    split: str | None
    group: str | None
    mask: str | None


def is_manifest(file: Path) -> bool:
    """Return whether the file is a table with a column of paths and a column of labels."""
    names = [name.strip().lower() for name in read_columns(file)]
    return any(name in PATH_COLUMNS for name in names) and any(name in LABEL_COLUMNS for name in names)


def read_columns(file: Path) -> list[str]:
    """Return the names of a table's columns; none if the file is no table."""
    try:
        return [make_printable(name) for name in _read_header(file)]
    except UserInputError:
        return []


def list_paths(file: Path) -> list[str]:
    """Return the paths of images and masks that a manifest lists, as they are written; raise UserInputError if it is none."""
    columns = _find_columns(file, _read_header(file), None)
    listed = [column for column in (columns.path, columns.mask) if column is not None]
    return [path for _, row in _read_rows(file) for column in listed if (path := _text(row.get(column)))]


def read_manifest(file: Path, root: Path, split: Split, group: str | None) -> FoundFiles:
    """Return the images that a manifest lists, in its order.

    Columns are found by name, in upper or lower case: the path (`file_name`, `path`, `file`, `filename` or `image`; absolute, or
    relative to the manifest's folder), the label (`label` or `class`), and optionally `split`, the group, and `mask`, the path of
    the image's mask. Where there is no `split` and every path begins with train/ or another split's folder, that is the split, as
    in Hugging Face's imagefolder.

    Args:
        file: a .csv (comma, semicolon or tab), .tsv, .jsonl or .parquet file.
        root: the data set's folder, to which names are relative.
        split: the split of every image where the manifest does not say it; "" if there is none.
        group: the column of the groups; None for the column `group`, if there is one.

    Raises:
        UserInputError: if the file is no table, or lacks a column.
    """
    columns = _find_columns(file, _read_header(file), group)
    problems: Problems = defaultdict(list)
    listed = list(_check_rows(file, root, columns, split, problems))
    if columns.split is None and not split:
        listed = _split_by_folder(listed, file.parent)
    files = [image for image in listed if image.path.suffix.lower() != ".gif"]
    gifs = [image.name for image in listed if image.path.suffix.lower() == ".gif"]
    skipped = [SkippedFile(name=name, reason=explain_suffix(".gif")) for name in gifs]
    found = [
        Problem(f"{file.name} has {len(rows)} {kind}", tuple(rows), ADVICE[kind]) for kind, rows in problems.items()
    ]
    return FoundFiles(files, skipped, found)


def _check_rows(file: Path, root: Path, columns: _Columns, split: Split, problems: Problems) -> Iterator[ImageFile]:
    """Yield the images of the usable rows; add the others to the problems."""
    seen: dict[str, str] = {}
    for place, row in _read_rows(file):
        path, label = _text(row.get(columns.path)), _text(row.get(columns.label))
        group = None if columns.group is None else _text(row.get(columns.group))
        word = None if columns.split is None else _text(row.get(columns.split))
        found: Split | None = split if word is None else SPLIT_OF_WORD.get(word.lower())
        cells = {
            "rows without a path": path,
            "rows without a label": label,
            "rows without a group": group is None or group,
            "rows without a split": word is None or word,
        }
        faults = [kind for kind, is_there in cells.items() if not is_there]
        for kind in faults:
            problems[kind].append(make_printable(place))
        if word and found is None:
            faults.append("split")
            problems["splits that are not known"].append(make_printable(f"{word!r} ({place})"))
        if not path:
            continue
        image, mask = _locate(file, path), None
        if columns.mask is not None and (of_image := _text(row.get(columns.mask))):
            mask = _locate(file, of_image)
            if not _exists(mask):
                problems["masks that do not exist"].append(make_printable(f"{of_image} ({place})"))
        key = os.path.normpath(image)
        if key in seen:
            problems["files that are listed more than once"].append(make_printable(f"{path} ({seen[key]} and {place})"))
            continue
        seen[key] = place
        if not _exists(image):
            problems["files that do not exist"].append(make_printable(f"{path} ({place})"))
        elif not faults and found is not None:
            label, name = make_printable(label), _name_below(root, image)
            yield ImageFile(name=name, path=image, class_name=label, split=found, group=group, mask=mask)


def _locate(file: Path, path: str) -> Path:
    """Return the path that a row of a manifest names."""
    return file.parent / Path(path).expanduser() if path.startswith("~/") else file.parent / path


def _split_by_folder(files: list[ImageFile], folder: Path) -> list[ImageFile]:
    """Take the first folder of the paths as the split, if all of them begin with one and one of them is train."""
    splits = []
    for file in files:
        parts = _parts_below(folder, file.path)
        splits.append(SPLIT_OF_WORD.get(parts[0].lower()) if parts and len(parts) > 1 else None)
    if "train" not in splits or None in splits:
        return files
    return [replace(file, split=split) for file, split in zip(files, splits, strict=True) if split is not None]


def _find_columns(file: Path, header: Sequence[str], group: str | None) -> _Columns:
    if group is not None and group not in header:
        raise UserInputError(f"{file.name} has no column {group!r}{nearest_name(group, header)}; correct data.group")
    return _Columns(
        path=_find_column(file, header, PATH_COLUMNS, "paths"),
        label=_find_column(file, header, LABEL_COLUMNS, "labels"),
        split=_find_optional(header, SPLIT_COLUMN),
        group=group or _find_optional(header, GROUP_COLUMN),
        mask=_find_optional(header, MASK_COLUMN),
    )


def _find_optional(header: Sequence[str], column: str) -> str | None:
    return next((name for name in header if name.strip().lower() == column), None)


def _find_column(file: Path, header: Sequence[str], names: tuple[str, ...], content: str) -> str:
    found = [name for name in header if name.strip().lower() in names]
    if len(found) != 1:
        has = f"{' and '.join(found)}" if found else f"the columns {list_some(map(make_printable, header)) or 'none'}"
        raise UserInputError(
            f"{file.name} needs one column of {content} ({', '.join(names)}), but has {has}; rename one, or the others"
        )
    return found[0]


def _read_header(file: Path) -> list[str]:
    """Return the names of the columns; raise UserInputError if the file is no table."""
    if file.suffix.lower() == ".parquet":
        return _list_parquet_columns(file)
    if file.suffix.lower() == ".jsonl":
        names: dict[str, None] = {}
        for _, row in _read_rows(file):
            names |= dict.fromkeys(row)
        return list(names)
    return next(_read_csv(file), [])


def _read_rows(file: Path) -> Iterator[tuple[str, Row]]:
    """Yield the place of each row in messages, and its cells by column."""
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        names = _list_parquet_columns(file)
        with _reading(file, "parquet"), file.open("rb") as opened:
            rows: list[Row] = pq.read_table(opened, columns=names).to_pylist()
        yield from ((f"row {number}", row) for number, row in enumerate(rows))
    elif suffix == ".jsonl":
        yield from _read_json_lines(file)
    else:
        lines = _read_csv(file)
        header = next(lines, [])
        for number, cells in enumerate(lines, start=2):
            if any(cells):
                yield f"line {number}", dict(zip(header, cells, strict=False))


def _read_csv(file: Path) -> Iterator[list[str]]:
    """Yield the lines; the delimiter is the one that divides the first line into most cells."""
    with _reading(file, "csv in UTF-8"), file.open(encoding="utf-8-sig", newline="") as opened:
        first = opened.readline()
        opened.seek(0)
        yield from csv.reader(opened, delimiter=max(DELIMITERS, key=first.count))


def _read_json_lines(file: Path) -> Iterator[tuple[str, Row]]:
    with _reading(file, "JSON lines"), file.open(encoding="utf-8-sig") as opened:
        for number, line in enumerate(opened, start=1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise UserInputError(f"{file.name} line {number} is no JSON object; write one object per line")
                yield f"line {number}", row


def _list_parquet_columns(file: Path) -> list[str]:
    """Return the names of the columns that hold texts or whole numbers."""
    with _reading(file, "parquet"), file.open("rb") as opened:
        found = pq.ParquetFile(opened)
        check_num_rows(file, found.metadata)
        schema = found.schema_arrow
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_dictionary)
    return [field.name for field in schema if any(is_kind(field.type) for is_kind in kinds)]


@contextmanager
def _reading(file: Path, kind: str) -> Iterator[None]:
    """Raise UserInputError, with the file's name, where the file cannot be read or is not of its kind."""
    try:
        yield
    except UserInputError:
        raise
    except (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
        name, reason = make_printable(file.name), make_printable(first_line(error))
        raise UserInputError(f"{name} cannot be read as {kind} ({reason}); write it again") from None


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value).strip()


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _parts_below(root: Path, path: Path) -> tuple[str, ...] | None:
    """Return the parts of a path below a folder; None if it is elsewhere. Much faster than `relative_to`."""
    depth = len(root.parts)
    return path.parts[depth:] if path.parts[:depth] == root.parts else None


def _name_below(root: Path, path: Path) -> str:
    parts = _parts_below(root, path)
    return make_printable(str(path) if parts is None else "/".join(parts))
