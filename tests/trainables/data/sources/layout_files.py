"""Folders of tiny images in the layouts that people have."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search_spaces.errors import UserInputError
from trainables.data.sources import load_image_set

SIZE = 8
MASK_WIDTH, MASK_HEIGHT = 48, 32


def refuse_source(source: str, path: Path | str | None, *words: str, **options: Any) -> str:
    """Assert that loading is refused with a message that contains `words`; return the message."""
    with pytest.raises(UserInputError) as caught:
        load_image_set(source, path, **options)
    message = str(caught.value)
    assert all(word in message for word in words), message
    return message


def write_image(file: Path, number: int, size: int = SIZE) -> Path:
    """Write a square image that is like no other."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file


def write_classes(
    root: Path,
    classes: Sequence[str] | Mapping[str, int] = ("cat", "dog"),
    per_class: int = 20,
    start: int = 0,
    size: int = SIZE,
) -> Path:
    """Write <class>/<number>.png for each class, of which a mapping has the numbers of images."""
    for number, name in enumerate(classes):
        for i in range(classes[name] if isinstance(classes, Mapping) else per_class):
            write_image(root / name / f"{i:03d}.png", start + 1000 * number + i, size)
    return root


def write_splits(root: Path, per_class: dict[str, int]) -> Path:
    """Write class folders below one folder per split, with so many images of each class."""
    for start, (folder, count) in enumerate(per_class.items()):
        write_classes(root / folder, per_class=count, start=100_000 * start)
    return root


def write_table(file: Path, header: Sequence[str], rows: Sequence[Sequence[object]], delimiter: str = ",") -> Path:
    """Write a csv file, or JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows))
        return file
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened, delimiter=delimiter).writerows([header, *rows])
    return file


def write_listed(root: Path, count: int = 40, per_group: int = 4, splits: bool = False) -> Path:
    """Write images/<number>.png and labels.csv with their classes, groups, and (if asked for) splits; return the csv."""
    rows = []
    for i in range(count):
        write_image(root / "images" / f"{i:03d}.png", i)
        split = ["train", "train", "valid", "test"][i // per_group % 4]
        rows.append([f"images/{i:03d}.png", ["cat", "dog"][i % 2], f"p{i // per_group}", *([split] if splits else [])])
    return write_table(root / "labels.csv", ["path", "label", "patient", *(["split"] if splits else [])], rows)


def write_imagefolder(root: Path, per_split: dict[str, int], name: str = "metadata.csv") -> Path:
    """Write <split>/<number>.png and <split>/metadata.csv, as Hugging Face's imagefolder has them."""
    for start, (folder, count) in enumerate(per_split.items()):
        for i in range(count):
            write_image(root / folder / f"{i:03d}.png", 100_000 * start + i)
        rows = [[f"{i:03d}.png", ["cat", "dog"][i % 2]] for i in range(count)]
        write_table(root / folder / name, ["file_name", "label"], rows)
    return root


def draw_tile(number: int) -> Image.Image:
    """Return a photograph that is like no other."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (MASK_HEIGHT, MASK_WIDTH, 3), dtype=np.uint8))


def draw_mask(left: int, right: int, value: int = 255) -> Image.Image:
    """Return a mask of some columns."""
    pixels = np.zeros((MASK_HEIGHT, MASK_WIDTH), dtype=np.uint8)
    pixels[:, left:right] = value
    return Image.fromarray(pixels)


def write_tiles(root: Path, per_class: int = 8, name: str = "{}.png", suffix: str = ".jpg") -> Path:
    """Write photographs of tiles with a crack or none, and beside each a mask."""
    for start, label in enumerate(("crack", "free")):
        folder = root / label / "Imgs"
        folder.mkdir(parents=True)
        for i in range(per_class):
            draw_tile(1000 * start + i).save(folder / f"{i}{suffix}")
            draw_mask(20, 28 if label == "crack" else 20).save(folder / name.format(i))
    return root
