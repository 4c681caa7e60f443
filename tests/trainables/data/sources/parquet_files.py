"""Images and parquet files for tests."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("cat", "dog", "eel")
SIZE = 12


def make_pixels(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def encode(pixels: np.ndarray, image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


def write_parquet(
    file: Path,
    images: Sequence[bytes | None],
    labels: Sequence[int | None],
    names: Sequence[str] | None = CLASSES,
    image_column: str = "img",
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            image_column: pa.array(
                [{"bytes": data, "path": None} for data in images],
                type=pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "label": pa.array(labels, type=pa.int64()),
        }
    )
    if names is not None:
        info = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, file, row_group_size=5)
    return file


def write_parquet_folder(root: Path) -> Path:
    for part, per_class, seed in (("train", 4, 0), ("test", 2, 7000)):
        labels = [label for _ in range(per_class) for label in range(3)]
        images = [encode(make_pixels(seed + i)) for i in range(len(labels))]
        half = len(labels) // 2
        for shard, part_of in enumerate((slice(0, half), slice(half, None))):
            write_parquet(root / f"{part}-{shard:05d}-of-00002.parquet", images[part_of], labels[part_of])
    return root
