"""Parquet files of labeled images in the layout of Hugging Face: their columns are checked before any image is read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from search_spaces.errors import first_line, list_some, nearest_name
from trainables.data.problems import ProblemList

IMAGE_COLUMNS = ("img", "image")
ARROW_ERRORS = (pa.ArrowException, OSError)
# A file may have so many rows, or as many as it has bytes: a few bytes can stand for any number of equal rows.
MAX_ROWS = 2**21


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A parquet file whose labels have been read, but not its images.

    Attributes:
        path: the file.
        image_column: name of the column of images.
        labels: (N,) int64.
        class_names: K names from Hugging Face's metadata; None if it has none.
        groups: group of each row; None without groups.
    """

    path: Path
    image_column: str
    labels: NDArray[np.int64]
    class_names: tuple[str, ...] | None
    groups: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns to read.

    Attributes:
        image: name of the column of images; None for `img` or `image`.
        label: name of the column of labels.
        group: name of the column of groups, if any.
    """

    image: str | None
    label: str
    group: str | None


def open_shards(
    subject: str, paths: Sequence[Path], columns: Columns, given_names: Sequence[str] | None
) -> tuple[list[Shard], tuple[str, ...]]:
    """Return the shards and the names of the classes.

    Args:
        subject: folder or file, for the error.
        paths: parquet files.
        columns: columns to read.
        given_names: names of the classes, if the user gives them.

    Raises:
        UserInputError: with all problems of all files.
    """
    problems = ProblemList()
    shards = [shard for path in paths if (shard := _open_shard(path, columns, problems)) is not None]
    names = _resolve_class_names(shards, given_names, problems) if shards else None
    if names is not None:
        for shard in shards:
            _check_labels(shard, columns.label, names, problems)
    problems.raise_any(subject)
    assert names is not None
    return shards, names


def check_num_rows(path: Path, metadata: pq.FileMetaData) -> None:
    """Raise ArrowInvalid for a file whose rows would take far more memory than the file."""
    # Not the values of each column: what the metadata of a damaged file say of a column can end the process.
    in_groups = sum(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
    if max(metadata.num_rows, in_groups) > max(MAX_ROWS, path.stat().st_size):
        raise pa.ArrowInvalid(f"it claims {max(metadata.num_rows, in_groups):,} rows, more than it has bytes")


def describe_unreadable(path: Path, error: Exception) -> tuple[str, str, str]:
    """Return rule, name and advice for a file that Arrow cannot read."""
    advice = "check that it is complete, or write it again"
    return "cannot be read as parquet", f"{path} ({first_line(error)})", advice


def _open_shard(path: Path, columns: Columns, problems: ProblemList) -> Shard | None:
    try:
        with pq.ParquetFile(path) as file:
            check_num_rows(path, file.metadata)
            schema = file.schema_arrow
            image = _choose_image_column(path, schema, columns.image, problems)
            labels = _read_labels(path, file, columns.label, problems)
            groups = None if columns.group is None else _read_groups(path, file, columns.group, problems)
    except ARROW_ERRORS as error:
        problems.add(*describe_unreadable(path, error))
        return None
    if image is None or labels is None or (groups is None and columns.group is not None):
        return None
    class_names = _read_class_names(schema, columns.label)
    return Shard(path=path, image_column=image, labels=labels, class_names=class_names, groups=groups)


def _choose_image_column(path: Path, schema: Any, image_column: str | None, problems: ProblemList) -> str | None:
    names: list[str] = list(schema.names)
    if image_column is None:
        found = [name for name in IMAGE_COLUMNS if name in names]
        if len(found) != 1:
            rule = f"needs one image column named img or image, but has {list_some(names) or 'no columns'}"
            problems.add(rule, path, "set data.options.image_column")
            return None
        image_column = found[0]
    elif image_column not in names:
        rule = f"has no image column {image_column!r}{nearest_name(image_column, names)}"
        problems.add(rule, path, "correct data.options.image_column")
        return None
    kind = schema.field(image_column).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        rule = (
            f"images must be encoded bytes (binary, or a struct with binary `bytes`), but the column {image_column!r} "
            f"holds {kind}"
        )
        problems.add(rule, path, "set data.options.image_column")
        return None
    return image_column


def _read_labels(
    path: Path, file: pq.ParquetFile, label_column: str, problems: ProblemList
) -> NDArray[np.int64] | None:
    schema = file.schema_arrow
    if label_column not in schema.names:
        rule = f"has no label column {label_column!r}{nearest_name(label_column, schema.names)}"
        problems.add(rule, path, "set data.options.label_column")
        return None
    kind = schema.field(label_column).type
    if not pa.types.is_integer(kind):
        rule = f"labels must be integers, but the column {label_column!r} holds {kind}"
        problems.add(rule, path, "write them as indices of class names")
        return None
    column = file.read(columns=[label_column]).column(0)
    if column.null_count:
        problems.add(f"{column.null_count} rows without a label", path, "remove them")
        return None
    if len(column) == 0:
        problems.add("has no rows", path, "remove the file")
        return None
    labels: NDArray[np.int64] = column.cast(pa.int64(), safe=False).to_numpy()
    return labels


def _read_groups(path: Path, file: pq.ParquetFile, group: str, problems: ProblemList) -> tuple[str, ...] | None:
    """Return the group of each row as text."""
    names = file.schema_arrow.names
    if group not in names:
        problems.add(f"has no column {group!r}{nearest_name(group, names)}", path, "correct data.group")
        return None
    column = file.read(columns=[group]).column(0)
    if column.null_count:
        rule = f"{column.null_count} rows without a value of {group!r}, the data.group"
        problems.add(rule, path, "fill them")
        return None
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        rule = f"data.group must name a column of texts or whole numbers, but {group!r} holds {kind}"
        problems.add(rule, path, "name another column")
        return None
    return tuple(map(str, column.to_pylist()))


def _read_class_names(schema: Any, label_column: str) -> tuple[str, ...] | None:
    """Return the names in the schema's Hugging Face metadata; None if there are none."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label_column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _resolve_class_names(
    shards: Sequence[Shard], given: Sequence[str] | None, problems: ProblemList
) -> tuple[str, ...] | None:
    named = [(str(shard.path), shard.class_names) for shard in shards if shard.class_names is not None]
    if given is not None:
        named.insert(0, ("data.options.class_names", tuple(given)))
    if not named:
        rule = "the metadata does not name the classes"
        advice = 'set data.options.class_names, such as ["cat", "dog"], in the order of the labels'
        for shard in shards:
            problems.add(rule, shard.path, advice)
        return None
    origin, names = named[0]
    for place, others in named[1:]:
        if others != names:
            problems.add(f"class names that differ from those in {origin}", place, "make them agree")
    if len(names) < 2 or len(set(names)) != len(names) or not all(names):
        problems.add(
            "a source needs at least two classes with distinct names", f"{origin} ({list(names)})", "correct them"
        )
        return None
    return names


def _check_labels(shard: Shard, label_column: str, names: tuple[str, ...], problems: ProblemList) -> None:
    for row in np.flatnonzero((shard.labels < 0) | (shard.labels >= len(names))):
        where = f"{shard.path} row {row} ({label_column} = {shard.labels[row]})"
        problems.add(f"labels must lie in [0, {len(names)})", where, "correct them or name every class")
