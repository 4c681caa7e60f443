"""A folder of photographs as people have them: many sizes and modes, damaged and stray files, duplicates, imbalance.

``python -m tests.messy_folder TO`` writes that of docs/tutorial.md.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainables.data.sources.planted_scenes import make_planted_scenes

# Images of the most frequent and of the rarest class in train/; val/ has a quarter of them.
MOST, FEWEST = 400, 20
CLASS_NAMES, NUM_SCENES = ("dog", "cat", "frog", "horse", "deer", "bird"), 5500
MIN_SIDE, MAX_SIDE, MAX_RATIO = 40, 400, 3.0
EXIF_ORIENTATION, ROTATED = 0x0112, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class MessyFolder:
    """What is wrong or unusual in the folder.

    Attributes:
        root: of train/ and val/.
        strays: files that are no images, or not of a kind that is read.
        damaged: files that cannot be decoded.
        duplicates: pairs of files with the same bytes, one in train/ and one in val/.
        near_duplicates: pairs of files with the same content at another size and quality.
    """

    root: Path
    strays: tuple[Path, ...]
    damaged: tuple[Path, ...]
    duplicates: tuple[tuple[Path, Path], ...]
    near_duplicates: tuple[tuple[Path, Path], ...]


def write_messy_folder(
    root: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], class_names: Sequence[str], most: int = MOST
) -> MessyFolder:
    """Write train/<class>/ and val/<class>/ with `most` images of the first class and a twentieth of the last in train/.

    Args:
        root: folder to write into.
        images: (N, H, W, 3) uint8, at least 1.25 times as many of each class as are written to train/.
        labels: (N,) int64 in [0, K).
        class_names: K names.
        most: images of the first class in train/, at least 100.
    """
    generator = np.random.default_rng(0)
    counts = np.geomspace(most, most * FEWEST / MOST, len(class_names)).round().astype(int)
    for label, (name, count) in enumerate(zip(class_names, counts, strict=True)):
        of_class = np.flatnonzero(labels == label)
        for split, members in (("train", of_class[:count]), ("val", of_class[count : count + count // 4])):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number, index in enumerate(members):
                _draw_photograph(images[index], generator).save(folder / f"{name}_{number:04}.jpg", quality=90)
    train, val = root / "train" / class_names[0], root / "val" / class_names[0]
    _write_modes(train, class_names[0], generator)
    strays = _write_strays(train, class_names[0])
    broken = train / "truncated.jpg"
    broken.write_bytes((train / f"{class_names[0]}_0000.jpg").read_bytes()[:-400])
    duplicates = [(train / f"{class_names[0]}_{i:04}.jpg", val / f"copy_{i}.jpg") for i in (10, 11, 12)]
    for original, copy in duplicates:
        copy.write_bytes(original.read_bytes())
    near = [(train / f"{class_names[0]}_{i:04}.jpg", val / f"resized_{i}.jpg") for i in (13, 14)]
    for original, copy in near:
        image = Image.open(original)
        image.resize((image.width * 9 // 10, image.height * 9 // 10)).save(copy, quality=80)
    return MessyFolder(
        root=root, strays=strays, damaged=(broken,), duplicates=tuple(duplicates), near_duplicates=tuple(near)
    )


def _draw_photograph(pixels: NDArray[np.uint8], generator: np.random.Generator) -> Image.Image:
    """Return a square image enlarged to a random size, and mirrored at its sides to a random aspect ratio."""
    ratio = MAX_RATIO ** generator.uniform(-1, 1)
    longer = int(generator.integers(MIN_SIDE * MAX_RATIO, MAX_SIDE + 1))
    shorter = max(MIN_SIDE, round(longer / max(ratio, 1 / ratio)))
    square = np.asarray(Image.fromarray(pixels).resize((shorter, shorter), Image.Resampling.BICUBIC))
    left = (longer - shorter) // 2
    sides, none = (left, longer - shorter - left), (0, 0)
    return Image.fromarray(np.pad(square, (none, sides, none) if ratio >= 1 else (sides, none, none), "symmetric"))


def _write_modes(folder: Path, name: str, generator: np.random.Generator) -> None:
    """Convert some images of a class to other modes, and let EXIF rotate one."""
    for number, mode, suffix in (
        (1, "L", "jpg"),
        (2, "P", "png"),
        (3, "CMYK", "jpg"),
        (4, "RGBA", "png"),
        (5, "LA", "png"),
    ):
        file = folder / f"{name}_{number:04}.jpg"
        image = Image.open(file).convert(mode)
        file.unlink()
        image.save(file.with_suffix(f".{suffix}"))
    deep = generator.integers(0, 2**16, (90, 120), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "sixteen_bits.png")
    file = folder / f"{name}_0006.jpg"
    image = Image.open(file)
    exif = image.getexif()
    exif[EXIF_ORIENTATION] = ROTATED
    image.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)


def _write_strays(folder: Path, name: str) -> tuple[Path, ...]:
    gif, text = folder / "animated.gif", folder / "notes.txt"
    Image.open(folder / f"{name}_0007.jpg").save(gif)
    text.write_text("taken in spring\n")
    return gif, text


if __name__ == "__main__":
    scenes = make_planted_scenes(seed=0, num_images=NUM_SCENES).image_set
    write_messy_folder(Path(sys.argv[1]), scenes.images, scenes.labels, CLASS_NAMES)
