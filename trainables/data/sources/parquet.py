"""Images in the parquet layout of Hugging Face: a column of encoded images and a column of integer labels."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from search_spaces.errors import UserInputError
from trainables.data.decoding.decode_set import DecodeRequest
from trainables.data.decoding.decoded_images import decode_files
from trainables.data.decoding.encoded_files import BadImageError, DiskState, EncodedImages, combine_states
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import Aspect, ImageSet
from trainables.data.problems import Problem, make_error, make_printable
from trainables.data.sources.labeled_files import PARTS, LabeledFiles
from trainables.data.sources.parquet_shards import ARROW_ERRORS, Columns, Shard, describe_unreadable, open_shards

VALIDATION_SPLITS: tuple[str, ...] = ("validation", "valid", "val", "dev")
ROWS_PER_BATCH = 256


def load_parquet(
    path: str | None,
    *,
    seed: int = 0,
    num_images: Annotated[int, Field(ge=1)] | None = None,
    native_size: Annotated[int, Field(ge=8, le=1024)] | None = None,
    image_size: Annotated[int, Field(ge=8)] | None = None,
    aspect: Aspect = "crop",
    on_bad_image: Literal["refuse", "skip"] = "refuse",
    image_column: str | None = None,
    label_column: str = "label",
    test_split: str = "test",
    validation_split: str | None = None,
    class_names: Sequence[str] | None = None,
    class_groups: MappingType[str, Sequence[str]] | None = None,
    group: str | None = None,
    memory_budget: ImageMemoryBudget,
) -> ImageSet:
    """Return the images of one parquet file, or of a folder with train-*.parquet and optionally validation-* and test-*.

    Args:
        path: A .parquet file (without official splits), or a folder whose test-* files are the official test set, and whose
            validation-* files are the official validation set. The files may also be in its subfolder data/.
        seed: Seed of the subset.
        num_images: Keep this many images outside the test set, stratified; only these are decoded and checked.
        native_size: Side in pixels at which images are stored; see `decode_files`.
        image_size: Side in pixels of the images that models are trained on; set as train.image_size in a spec.
        aspect: How images become squares; set as data.aspect in a spec.
        on_bad_image: Whether images that cannot be used are skipped; set as data.on_bad_image in a spec.
        image_column: Column of type binary, or struct with `bytes`; by default `img` or `image`.
        label_column: Column of integers in [0, K).
        test_split: First word of the test files' names, such as "validation".
        validation_split: First word of the validation files' names; "" for none. By default validation, valid, val or dev;
            with `aspect = "squash"`, none.
        class_names: K names, if the files have no Hugging Face metadata with the names.
        class_groups: Named groups of classes; by default those of the described data set with the same classes
            (CIFAR-10's rigid and deformable).
        group: Column that says which images belong together, such as a patient; set as data.group in a spec.
        memory_budget: Memory that the decoded images may take; not an option of a spec.

    Raises:
        UserInputError: With all files that are not parquet or lack a column or the class names, or the files and rows of
            all images that cannot be used.
    """
    if validation_split is None:
        validation_splits = () if aspect == "squash" else VALIDATION_SPLITS
    else:
        validation_splits = (validation_split,) if validation_split else ()
    columns = Columns(image=image_column, label=label_column, group=group)
    rows = list_rows(path, columns, test_split, validation_splits, class_names)
    chosen = rows.choose(num_images, seed)
    request = DecodeRequest(native_size, image_size, aspect, on_bad_image)
    decoded = decode_files(ParquetImages(rows.shards, chosen), request, memory_budget)
    return rows.make_image_set("parquet", decoded, chosen, class_groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetRows(LabeledFiles):
    """The labeled rows of parquet files, without their images.

    Attributes:
        shards: the files.
    """

    shards: Sequence[Shard]


def list_rows(
    path: str | None,
    columns: Columns,
    test_split: str = "test",
    validation_splits: Sequence[str] = VALIDATION_SPLITS,
    class_names: Sequence[str] | None = None,
) -> ParquetRows:
    """Return the labeled rows at `path`; arguments and errors as in `load_parquet`."""
    parts = _find_files(path, test_split, validation_splits)
    shards, names = open_shards(str(path), [file for part in parts for file in part], columns, class_names)
    part_of_shard = np.repeat(np.arange(len(PARTS)), [len(part) for part in parts])
    return ParquetRows(
        shards=shards,
        class_names=names,
        labels=np.concatenate([shard.labels for shard in shards]),
        parts=np.repeat(part_of_shard, [len(shard.labels) for shard in shards]),
        groups=None if columns.group is None else [name for shard in shards for name in shard.groups or ()],
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


def _find_files(path: str | None, test_split: str, validation_splits: Sequence[str]) -> tuple[list[Path], ...]:
    """Return the training, validation and test files."""
    if not path:
        raise UserInputError('the source "parquet" needs data.path, a .parquet file or a folder with train-*.parquet')
    root = Path(path).expanduser()
    if root.is_file():
        return [root], [], []
    if not root.is_dir():
        raise UserInputError(
            f"data.path must be a .parquet file or a folder with train-*.parquet, but there is no {root}"
        )
    for folder in (root, root / "data"):
        files = sorted(folder.glob("*.parquet"))
        train = [file for file in files if file.name.startswith("train-")]
        test = [file for file in files if file.name.startswith(f"{test_split}-")]
        words = tuple(f"{word}-" for word in validation_splits)
        validation = [file for file in files if file.name.startswith(words) and file not in test]
        if train:
            return train, validation, test
    raise UserInputError(
        f"the folder {root} holds no train-*.parquet; name a .parquet file or the folder that holds them"
    )
