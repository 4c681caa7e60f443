"""Images in the parquet layout of Hugging Face: a column of encoded images and a column of integer labels."""

import json
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from search_spaces.errors import UserInputError, nearest_name
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import ImageSet
from trainables.data.sources.decoding import EncodedImage, decode_images
from trainables.data.sources.descriptions import resolve_groups
from trainables.data.sources.subset import choose_subset

IMAGE_COLUMNS = ("img", "image")
ROWS_PER_BATCH = 1024
ARROW_ERRORS = (pa.ArrowException, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """A parquet file whose labels have been read, but not its images."""

    path: Path
    image_column: str
    labels: NDArray[np.int64]
    class_names: tuple[str, ...] | None
    groups: tuple[str, ...] | None


def load_parquet(
    path: str | None,
    *,
    seed: int = 0,
    num_images: Annotated[int, Field(ge=1)] | None = None,
    native_size: Annotated[int, Field(ge=8, le=1024)] | None = None,
    image_column: str | None = None,
    label_column: str = "label",
    test_split: str = "test",
    class_names: Sequence[str] | None = None,
    class_groups: MappingType[str, Sequence[str]] | None = None,
    group: str | None = None,
    memory_budget: ImageMemoryBudget,
) -> ImageSet:
    """Return the images of one parquet file, or of a folder with train-*.parquet and optionally test-*.parquet.

    Args:
        path: A .parquet file (without an official test set), or a folder whose test-* files are the official test set.
        seed: Seed of the subset.
        num_images: Keep this many images outside the test set, stratified; only these are decoded and checked.
        native_size: Resize all images to this side in pixels (bicubic, without preserving the aspect ratio).
        image_column: Column of type binary, or struct with `bytes`; by default `img` or `image`.
        label_column: Column of integers in [0, K).
        test_split: First word of the test files' names, such as "validation".
        class_names: K names, if the files have no Hugging Face metadata with the names.
        class_groups: Named groups of classes; by default those of the described data set with the same classes
            (CIFAR-10's rigid and deformable).
        group: Column that says which images belong together, such as a patient; set as data.group in a spec.
        memory_budget: Memory that the decoded images may take; not an option of a spec.

    Raises:
        UserInputError: Naming the file that is not parquet or lacks a column or the class names, or the file and row of
            an image that cannot be used.
    """
    train_files, test_files = _find_files(path, test_split)
    shards = [_open_shard(file, image_column, label_column, group) for file in (*train_files, *test_files)]
    names = _resolve_class_names(shards, class_names)
    for shard in shards:
        _check_labels(shard, label_column, names)
    labels = np.concatenate([shard.labels for shard in shards])
    num_train = sum(len(shard.labels) for shard in shards[: len(train_files)])
    official_test = np.arange(len(labels)) >= num_train if test_files else None
    kept = choose_subset(labels, official_test, num_images, seed)
    members = [name for shard in shards for name in shard.groups or ()]
    group_names, numbers = np.unique(np.array(members, dtype=str), return_inverse=True)
    return ImageSet(
        images=decode_images(_read_images(shards, kept), len(kept), native_size, memory_budget),
        labels=labels[kept],
        class_names=names,
        source="parquet",
        official_test=None if official_test is None else official_test[kept],
        class_groups=resolve_groups(class_groups, names),
        groups=None if group is None else numbers[kept],
        group_names=tuple(map(str, group_names)),
    )


def _find_files(path: str | None, test_split: str) -> tuple[list[Path], list[Path]]:
    if not path:
        raise UserInputError('the source "parquet" needs data.path, a .parquet file or a folder with train-*.parquet')
    root = Path(path).expanduser()
    if root.is_file():
        return [root], []
    if not root.is_dir():
        raise UserInputError(
            f"data.path must be a .parquet file or a folder with train-*.parquet, but there is no {root}"
        )
    train = sorted(p for p in root.iterdir() if p.name.startswith("train-") and p.suffix == ".parquet")
    test = sorted(p for p in root.iterdir() if p.name.startswith(f"{test_split}-") and p.suffix == ".parquet")
    if not train:
        raise UserInputError(
            f"the folder {root} holds no train-*.parquet; name a .parquet file or the folder that holds them"
        )
    return train, test


def _open_shard(path: Path, image_column: str | None, label_column: str, group: str | None) -> _Shard:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            image = _choose_image_column(path, schema, image_column)
            if label_column not in schema.names:
                raise UserInputError(
                    f"{path} has no label column {label_column!r}{nearest_name(label_column, schema.names)}; "
                    "set data.options.label_column"
                )
            if not pa.types.is_integer(schema.field(label_column).type):
                raise UserInputError(
                    f"labels must be integers, but the column {label_column!r} of {path} holds "
                    f"{schema.field(label_column).type}; write them as indices of class names"
                )
            column = file.read(columns=[label_column]).column(0)
            groups = None if group is None else _read_groups(path, file, group)
    except ARROW_ERRORS as error:
        raise UserInputError(_not_readable(path, error)) from None
    if column.null_count or len(column) == 0:
        what = f"{column.null_count} rows without a label" if len(column) else "no rows"
        raise UserInputError(f"{path} has {what}; remove them")
    return _Shard(
        path=path,
        image_column=image,
        labels=column.cast(pa.int64(), safe=False).to_numpy(),
        class_names=_read_class_names(schema, label_column),
        groups=groups,
    )


def _read_groups(path: Path, file: pq.ParquetFile, group: str) -> tuple[str, ...]:
    """Return the group of each row as text."""
    names = file.schema_arrow.names
    if group not in names:
        raise UserInputError(f"{path} has no column {group!r}{nearest_name(group, names)}; correct data.group")
    column = file.read(columns=[group]).column(0)
    if column.null_count:
        raise UserInputError(
            f"{path} has {column.null_count} rows without a value of {group!r}, the data.group; fill them"
        )
    if not (
        pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_integer(column.type)
    ):
        raise UserInputError(
            f"data.group must name a column of texts or whole numbers, but {group!r} of {path} holds {column.type}"
        )
    return tuple(map(str, column.to_pylist()))


def _choose_image_column(path: Path, schema: Any, image_column: str | None) -> str:
    names: list[str] = list(schema.names)
    if image_column is None:
        found = [name for name in IMAGE_COLUMNS if name in names]
        if len(found) != 1:
            raise UserInputError(
                f"{path} needs one image column named img or image, but has {', '.join(names) or 'no columns'}; "
                "set data.options.image_column"
            )
        image_column = found[0]
    elif image_column not in names:
        raise UserInputError(f"{path} has no image column {image_column!r}{nearest_name(image_column, names)}")
    kind = schema.field(image_column).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise UserInputError(
            f"images must be encoded bytes (binary, or a struct with binary `bytes`), but the column {image_column!r} of "
            f"{path} holds {kind}"
        )
    return image_column


def _read_class_names(schema: Any, label_column: str) -> tuple[str, ...] | None:
    """Return the names in the schema's Hugging Face metadata; None if there are none."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label_column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _resolve_class_names(shards: Sequence[_Shard], given: Sequence[str] | None) -> tuple[str, ...]:
    names = None if given is None else tuple(given)
    origin = "data.options.class_names"
    for shard in shards:
        if shard.class_names is None:
            continue
        if names is not None and names != shard.class_names:
            raise UserInputError(f"the class names in {shard.path} differ from those in {origin}; make them agree")
        names, origin = shard.class_names, str(shard.path)
    if names is None:
        raise UserInputError(
            f"the metadata of {shards[0].path} does not name the classes; "
            'set data.options.class_names, such as ["cat", "dog"], in the order of the labels'
        )
    if len(names) < 2 or len(set(names)) != len(names) or not all(names):
        raise UserInputError(f"a source needs at least two classes with distinct names, but {origin} has {list(names)}")
    return names


def _check_labels(shard: _Shard, label_column: str, names: tuple[str, ...]) -> None:
    wrong = np.flatnonzero((shard.labels < 0) | (shard.labels >= len(names)))
    if len(wrong):
        raise UserInputError(
            f"labels must lie in [0, {len(names)}), but {shard.path} row {wrong[0]} has {label_column} = "
            f"{shard.labels[wrong[0]]}; correct it or name every class"
        )


def _read_images(shards: Sequence[_Shard], kept: NDArray[np.int64]) -> Iterator[EncodedImage]:
    """Yield the encoded images at the sorted global rows `kept`."""
    start = 0
    for shard in shards:
        rows = kept[(kept >= start) & (kept < start + len(shard.labels))] - start
        start += len(shard.labels)
        yield from _read_rows(shard, rows)


def _read_rows(shard: _Shard, rows: NDArray[np.int64]) -> Iterator[EncodedImage]:
    done = 0
    try:
        with pq.ParquetFile(shard.path) as file:
            for batch in file.iter_batches(ROWS_PER_BATCH, columns=[shard.image_column]):
                here = rows[(rows >= done) & (rows < done + len(batch))]
                column = batch.column(0)
                for row in here:
                    value = column[int(row) - done].as_py()
                    data = value["bytes"] if isinstance(value, dict) else value
                    if data is None:
                        raise UserInputError(
                            f"{shard.path} row {row} holds no image bytes; embed the image or remove the row"
                        )
                    yield EncodedImage(f"{shard.path} row {row}", data)
                done += len(batch)
    except ARROW_ERRORS as error:
        raise UserInputError(_not_readable(shard.path, error)) from None


def _not_readable(path: Path, error: Exception) -> str:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return f"{path} cannot be read as parquet ({first_line}); check that it is complete, or write it again"
