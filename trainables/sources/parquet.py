"""Hugging Face's parquet layout: a struct column with the encoded bytes, and a column of class labels."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from search_spaces.errors import UserInputError, nearest_name
from trainables.images import ImageSet
from trainables.sources.decoding import decode_image
from trainables.sources.descriptions import find_groups
from trainables.sources.subsets import choose_subset

IMAGE_COLUMNS = ("img", "image")


def load_parquet(
    path: str | None,
    *,
    seed: int = 0,
    num_images: int | None = None,
    native_size: int | None = None,
    label_column: str = "label",
    class_names: Sequence[str] | None = None,
) -> ImageSet:
    """Return the images of one .parquet file, or of a folder with train-*.parquet and, optionally, test-*.parquet.

    Args:
        path: the file or the folder; the images of test-*.parquet are the official test set.
        seed: of the subset.
        num_images: images taken outside the test set, stratified; only these are decoded. None for all.
        native_size: side in pixels to which every image is resized; None demands that all have one size.
        label_column: name of the column of labels.
        class_names: names of the classes, where the file's own metadata does not hold them.

    Raises:
        UserInputError: naming the file, column or row that cannot be used.
    """
    parts = _find_files(path)
    names: tuple[str, ...] | None = tuple(class_names) if class_names is not None else None
    images, labels, is_test = [], [], []
    for part, files in parts.items():
        for file in files:
            table = _read_table(file, label_column)
            names = names or _class_names(table, label_column, file)
            part_labels = _read_labels(table, label_column, names, file)
            wanted = None if num_images is None or part == "test" else _share(num_images, files, file, part_labels)
            chosen = choose_subset(part_labels, wanted, seed)
            images.append(_decode_rows(table, chosen, file, native_size))
            labels.append(part_labels[chosen])
            is_test.append(np.full(len(chosen), part == "test"))
    assert names is not None
    shapes = {i.shape[1:] for i in images}
    if len(shapes) > 1:
        raise UserInputError(
            f"{path}: images have the sizes {sorted(shapes)}; set data.options.native_size to one size"
        )
    return ImageSet(
        images=np.concatenate(images),
        labels=np.concatenate(labels),
        class_names=names,
        source="parquet",
        official_test=np.concatenate(is_test) if "test" in parts else None,
        class_groups=find_groups(names),
    )


def _find_files(path: str | None) -> dict[str, list[Path]]:
    if path is None:
        raise UserInputError("the source 'parquet' needs data.path, a .parquet file or a folder with train-*.parquet")
    root = Path(path)
    if root.is_file():
        return {"train": [root]}
    if not root.is_dir():
        raise UserInputError(f"there is no file or folder {path}; data.path must hold train-*.parquet")
    parts = {part: sorted(root.glob(f"{part}-*.parquet")) for part in ("train", "test")}
    if not parts["train"]:
        raise UserInputError(f"{path} holds no train-*.parquet")
    return {part: files for part, files in parts.items() if files}


def _read_table(file: Path, label_column: str) -> pa.Table:
    try:
        schema = pq.read_schema(file)
        image_column = next((c for c in IMAGE_COLUMNS if c in schema.names), None)
        if image_column is None:
            raise UserInputError(f"{file} has no image column {' or '.join(IMAGE_COLUMNS)}, but {schema.names}")
        if label_column not in schema.names:
            near = nearest_name(label_column, schema.names)
            raise UserInputError(
                f"{file} has no label column {label_column!r}{near}; name it with data.options.label_column"
            )
        table = pq.read_table(file, columns=[image_column, label_column])
    except (pa.ArrowException, OSError) as error:
        raise UserInputError(f"{file} is no readable parquet file: {str(error).splitlines()[0]}") from None
    return table.rename_columns(["image", label_column]).replace_schema_metadata(schema.metadata)


def _class_names(table: pa.Table, label_column: str, file: Path) -> tuple[str, ...]:
    metadata = (table.schema.metadata or {}).get(b"huggingface")
    try:
        names = json.loads(metadata)["info"]["features"][label_column]["names"] if metadata else None
    except (ValueError, KeyError, TypeError):
        names = None
    if not isinstance(names, list) or not names:
        raise UserInputError(
            f"{file} holds no class names for its labels; give them: data.options.class_names = ['...', ...]"
        )
    return tuple(str(name) for name in names)


def _read_labels(table: pa.Table, column: str, names: tuple[str, ...], file: Path) -> NDArray[np.int64]:
    values = table[column]
    if not pa.types.is_integer(values.type) or values.null_count:
        raise UserInputError(f"{file}: the column {column!r} must hold whole numbers, but holds {values.type}")
    labels: NDArray[np.int64] = values.to_numpy().astype(np.int64)
    if not len(labels):
        raise UserInputError(f"{file} holds no rows")
    if labels.min() < 0 or labels.max() >= len(names):
        raise UserInputError(
            f"{file}: labels must lie in 0..{len(names) - 1}, but reach from {labels.min()} to {labels.max()}"
        )
    return labels


def _share(num_images: int, files: list[Path], file: Path, labels: NDArray[np.int64]) -> int:
    """Return how many of `num_images` one of several files contributes: its share of all rows."""
    if len(files) == 1:
        return num_images
    rows = [pq.read_metadata(f).num_rows for f in files]
    ends = np.round(np.cumsum(rows) / sum(rows) * num_images).astype(int)
    position = files.index(file)
    return min(int(ends[position] - (ends[position - 1] if position else 0)), len(labels))


def _decode_rows(table: pa.Table, rows: NDArray[np.int64], file: Path, native_size: int | None) -> NDArray[np.uint8]:
    column: Any = table["image"].combine_chunks()
    if pa.types.is_struct(column.type) and "bytes" in {field.name for field in column.type}:
        column = column.field("bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise UserInputError(f"{file}: the image column must hold encoded bytes, but holds {column.type}")
    images: NDArray[np.uint8] | None = None
    for place, row in enumerate(rows):
        where = f"{file}, row {int(row)}"
        data = column[int(row)].as_py()
        if data is None:
            raise UserInputError(f"{where} holds no image")
        image = decode_image(data, where, native_size)
        if images is None:
            images = np.empty((len(rows), *image.shape), dtype=np.uint8)
        if image.shape != images.shape[1:]:
            raise UserInputError(
                f"{where} is {image.shape[1]}x{image.shape[0]}, but others are {images.shape[2]}x{images.shape[1]}; "
                "set data.options.native_size to resize all to one size"
            )
        images[place] = image
    assert images is not None
    return images
