"""The image sets: a drawn part that the sides are given, and other images that judge, each as a folder of class folders."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from search_spaces.errors import UserInputError
from trainables.data.stratified import choose_stratified
from trainables.seeds import numpy_generator

# Folder below data/ and number of images that are given, by name.
SETS = {"refuse-600": ("refuse", 600), "steel-900": ("steel", 900)}
SETS |= {"cifar10-500": ("cifar10", 500), "cifar10-2000": ("cifar10", 2000)}
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NEEDED = ("data/refuse", "data/steel", "data/cifar10", "weights/resnet18.pt", "weights/resnet50.pt")


def find_data() -> Path:
    """Return the folder named by STUDY_DATA.

    Raises:
        UserInputError: If it lacks a set or the weights.
    """
    value = os.environ.get("STUDY_DATA")
    folder = Path(value or "").absolute()
    if missing := [name for name in NEEDED if not value or not (folder / name).exists()]:
        rule = f"STUDY_DATA must name a folder with {', '.join(NEEDED)}"
        raise UserInputError(f"{rule}, but {value!r} has no {', '.join(missing)}; set it to the folder that has them")
    return folder


def draw_set(name: str, split: int, data: Path, work: Path) -> tuple[Path, Path]:
    """Return the folders of the images that the sides are given and of those that judge; they are written the first time.

    Args:
        name: One of SETS. Of CIFAR-10, its test images judge; of the others, the images that were not drawn.
        split: Seeds the draw, which is stratified.
        data: From `find_data`.
        work: Parent of the drawn sets.
    """
    folder, (source, num_given) = work / f"{name}-{split}", SETS[name]
    if not folder.exists():
        files, judging = read_files(data / "data" / source)
        labels = np.unique([path.partition("/")[0] for path, _ in files], return_inverse=True)[1]
        chosen = set(choose_stratified(labels, num_given, numpy_generator(split, "equal-time", name)).tolist())
        partial = folder.with_suffix(f".{os.getpid()}.partial")
        rest = judging or [file for i, file in enumerate(files) if i not in chosen]
        for part, members in (("given", [files[i] for i in sorted(chosen)]), ("judging", rest)):
            for path, content in members:
                (partial / part / path).parent.mkdir(parents=True, exist_ok=True)
                (partial / part / path).write_bytes(content)
        partial.replace(folder)
    return folder / "given", folder / "judging"


def read_files(folder: Path) -> tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]]:
    """Return paths, such as "cat/1.jpg", and contents: of the images to draw from, and of test images, if those are apart."""
    if any(folder.glob("*.parquet")):
        return read_parquet(folder, "train"), read_parquet(folder, "test")
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in sorted(folder.glob("*/*.jpg"))], []


def read_parquet(folder: Path, part: str) -> list[tuple[str, bytes]]:
    """Return the same of CIFAR-10's parquet files."""
    table = pd.concat([pd.read_parquet(file) for file in sorted(folder.glob(f"{part}-*.parquet"))])
    rows = zip(table["img"], table["label"], strict=True)
    return [(f"{CIFAR10_NAMES[label]}/{i:05d}.jpg", image["bytes"]) for i, (image, label) in enumerate(rows)]
