"""Images in the parquet layout of Hugging Face: a column of encoded images and a column of integer labels."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from search_spaces.errors import UserInputError
from trainables.data.decoding.encoded_files import BadImageError, DiskState, EncodedImages, combine_states
from trainables.data.images import ImageSet
from trainables.data.problems import Problem, make_error, make_printable
from trainables.data.sources.labeled_files import PARTS, FileSource, LabeledFiles
from trainables.data.sources.parquet_shards import ARROW_ERRORS, Columns, Shard, describe_unreadable, open_shards

VALIDATION_SPLITS: tuple[str, ...] = ("validation", "valid", "val", "dev")
ROWS_PER_BATCH = 256


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
        columns = Columns(image=self.image_column, label=self.label_column, group=self.group)
        files = [file for part in parts for file in part]
        shards, names = open_shards(str(self.path), files, columns, self.class_names)
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
        return dataclasses.replace(state, stamp=digest.hexdigest())

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
        rule, name, advice = describe_unreadable(shard.path, error)
        raise make_error(str(shard.path.parent), [Problem(rule, (name,), advice)]) from None


def _check_bytes(data: bytes | None) -> bytes:
    if data is None:
        raise BadImageError("holds no image bytes; embed the image")
    return data
