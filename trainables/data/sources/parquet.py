"""Images in the parquet layout of Hugging Face: a column of encoded images and a column of integer labels.

The columns are checked before any image is read.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from search_spaces.errors import UserInputError, first_line, list_some, nearest_name
from trainables.data.decoding.encoded_files import BadImageError, DiskState, EncodedImages, combine_states
from trainables.data.images import ImageSet
from trainables.data.problems import Problem, ProblemList, make_error, make_printable
from trainables.data.sources.labeled_files import PARTS, FileSource, LabeledFiles

VALIDATION_SPLITS: tuple[str, ...] = ("validation", "valid", "val", "dev")
ROWS_PER_BATCH = 256
IMAGE_COLUMNS = ("img", "image")
# A file may have so many rows, or as many as it has bytes: a few bytes can stand for any number of equal rows.
MAX_ROWS = 2**21
ARROW_ERRORS = (pa.ArrowException, OSError)


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


class ParquetSource(FileSource):
    """One parquet file, or a folder with train-*.parquet and optionally validation-* and test-*.

    A file has no published splits. Of a folder, the test-* files are the published test set, and the validation-* files the
    published validation set. The files may also be in its subfolder data/. The group is a column.

    Attributes:
        image_column: Column of type binary, or struct with `bytes`; by default `img` or `image`.
        label_column: Column of integers in [0, K).
        test_split: First word of the test files' names, such as "validation".
        validation_split: First word of the validation files' names; "" for none. By default validation, valid, val or dev;
            with `aspect = "squash"`, none.
        class_names: K names, if the files have no Hugging Face metadata with the names.

    Raises:
        UserInputError: With all files that are not parquet or lack a column or the class names, or the files and rows of
            all images that cannot be used.
    """

    name = "parquet"

    image_column: str | None = None
    label_column: str = "label"
    test_split: str = "test"
    validation_split: str | None = None
    class_names: Sequence[str] | None = None

    def load(self) -> ImageSet:
        """Return the images."""
        return self.load_found(self.find())

    def find(self) -> LabeledFiles:
        """Return the labeled rows, without their images."""
        parts = self._find_files()
        shards, names = self._open_shards([file for part in parts for file in part])
        part_of_shard = np.repeat(np.arange(len(PARTS)), [len(part) for part in parts])
        return LabeledFiles(
            class_names=names,
            labels=np.concatenate([shard.labels for shard in shards]),
            parts=np.repeat(part_of_shard, [len(shard.labels) for shard in shards]),
            groups=None if self.group is None else [name for shard in shards for name in shard.groups or ()],
            encode=partial(ParquetImages, shards),
        )

    def _find_files(self) -> tuple[list[Path], ...]:
        """Return the training, validation and test files."""
        if not self.path:
            raise UserInputError(
                'the source "parquet" needs data.path, a .parquet file or a folder with train-*.parquet'
            )
        root = Path(self.path).expanduser()
        if root.is_file():
            return [root], [], []
        if not root.is_dir():
            raise UserInputError(
                f"data.path must be a .parquet file or a folder with train-*.parquet, but there is no {root}"
            )
        named = VALIDATION_SPLITS if self.aspect != "squash" else ()
        if self.validation_split is not None:
            named = (self.validation_split,) if self.validation_split else ()
        words = tuple(f"{word}-" for word in named)
        for folder in (root, root / "data"):
            files = sorted(folder.glob("*.parquet"))
            train = [file for file in files if file.name.startswith("train-")]
            test = [file for file in files if file.name.startswith(f"{self.test_split}-")]
            validation = [file for file in files if file.name.startswith(words) and file not in test]
            if train:
                return train, validation, test
        raise UserInputError(
            f"the folder {root} holds no train-*.parquet; name a .parquet file or the folder that holds them"
        )

    def _open_shards(self, paths: Sequence[Path]) -> tuple[list[Shard], tuple[str, ...]]:
        """Return the files and the names of the classes; raise UserInputError with all problems of all files."""
        problems = ProblemList()
        shards = [shard for path in paths if (shard := self._open_shard(path, problems)) is not None]
        names = self._resolve_class_names(shards, problems) if shards else None
        if names is not None:
            for shard in shards:
                _check_labels(shard, self.label_column, names, problems)
        problems.raise_any(str(self.path))
        assert names is not None
        return shards, names

    def _open_shard(self, path: Path, problems: ProblemList) -> Shard | None:
        try:
            with pq.ParquetFile(path) as file:
                check_num_rows(path, file.metadata)
                schema = file.schema_arrow
                image = _choose_image_column(path, schema, self.image_column, problems)
                labels = _read_labels(path, file, self.label_column, problems)
                groups = None if self.group is None else _read_groups(path, file, self.group, problems)
        except ARROW_ERRORS as error:
            problems.add(*_describe_unreadable(path, error))
            return None
        if image is None or labels is None or (groups is None and self.group is not None):
            return None
        class_names = _read_class_names(schema, self.label_column)
        return Shard(path=path, image_column=image, labels=labels, class_names=class_names, groups=groups)

    def _resolve_class_names(self, shards: Sequence[Shard], problems: ProblemList) -> tuple[str, ...] | None:
        named = [(str(shard.path), shard.class_names) for shard in shards if shard.class_names is not None]
        if self.class_names is not None:
            named.insert(0, ("data.options.class_names", tuple(self.class_names)))
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


class ParquetImages(EncodedImages):
    """Images in rows of parquet files."""

    def __init__(self, shards: Sequence[Shard], kept: NDArray[np.int64]) -> None:
        """Keep the rows.

        Args:
            shards: The files.
            kept: (M,) int64, sorted; rows of all shards together.
        """
        starts = np.cumsum([0, *(len(shard.labels) for shard in shards)])
        bounds = np.searchsorted(kept, starts)
        self._rows = [
            (shard, kept[first:last] - start)
            for shard, start, first, last in zip(shards, starts[:-1], bounds[:-1], bounds[1:], strict=True)
        ]
        self.names = tuple(make_printable(f"{shard.path} row {row}") for shard, rows in self._rows for row in rows)

    def read_state(self) -> DiskState:
        """Return the state of the files, with the columns and rows that are read."""
        state = combine_states([shard.path for shard, _ in self._rows])
        digest = hashlib.blake2b(state.stamp.encode(), digest_size=16)
        for shard, rows in self._rows:
            digest.update(f"{shard.image_column}\0{len(rows)}\0".encode())
            digest.update(rows.astype("<i8").tobytes())
        return replace(state, stamp=digest.hexdigest())

    def readers(self) -> Iterator[Callable[[], bytes]]:
        """Yield a function per row, which already holds its bytes."""
        for shard, rows in self._rows:
            yield from _read_rows(shard, rows)


def _read_rows(shard: Shard, rows: NDArray[np.int64]) -> Iterator[Callable[[], bytes]]:
    done = 0
    try:
        with pq.ParquetFile(shard.path) as file:
            for batch in file.iter_batches(ROWS_PER_BATCH, columns=[shard.image_column]):
                column = batch.column(0)
                for row in rows[(rows >= done) & (rows < done + len(batch))]:
                    value = column[int(row) - done].as_py()
                    yield partial(_check_bytes, value["bytes"] if isinstance(value, dict) else value)
                done += len(batch)
    except ARROW_ERRORS as error:
        rule, name, advice = _describe_unreadable(shard.path, error)
        raise make_error(str(shard.path.parent), [Problem(rule, (name,), advice)]) from None


def _check_bytes(data: bytes | None) -> bytes:
    if data is None:
        raise BadImageError("holds no image bytes; embed the image")
    return data


def check_num_rows(path: Path, metadata: pq.FileMetaData) -> None:
    """Raise ArrowInvalid for a file whose rows would take far more memory than the file."""
    # Not the values of each column: what the metadata of a damaged file say of a column can end the process.
    in_groups = sum(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
    if max(metadata.num_rows, in_groups) > max(MAX_ROWS, path.stat().st_size):
        raise pa.ArrowInvalid(f"it claims {max(metadata.num_rows, in_groups):,} rows, more than it has bytes")


def _describe_unreadable(path: Path, error: Exception) -> tuple[str, str, str]:
    """Return rule, name and advice for a file that Arrow cannot read."""
    advice = "check that it is complete, or write it again"
    return "cannot be read as parquet", f"{path} ({first_line(error)})", advice


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


def _check_labels(shard: Shard, label_column: str, names: tuple[str, ...], problems: ProblemList) -> None:
    for row in np.flatnonzero((shard.labels < 0) | (shard.labels >= len(names))):
        where = f"{shard.path} row {row} ({label_column} = {shard.labels[row]})"
        problems.add(f"labels must lie in [0, {len(names)})", where, "correct them or name every class")
