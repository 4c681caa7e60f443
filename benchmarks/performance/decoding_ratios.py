"""P13 and P14: decoding a folder of photographs, and starting a study on it again."""

import dataclasses
import io
import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from joblib import Parallel, cpu_count, delayed
from PIL import Image

from benchmarks.ratios import Ratio, compare_sides, measure_seconds
from study.inputs.preparation import prepare
from study.spec.reading import parse_spec
from trainables.data.decoding.decode_set import DecodeRequest
from trainables.data.decoding.decoded_images import decode_files
from trainables.data.decoding.encoded_files import DiskImages
from trainables.data.image_memory import ImageMemoryBudget

PHOTOGRAPHS = Path(".venv/cache/photographs")
NUM_IMAGES, NUM_BARE_IMAGES = 20_000, 2_000
WIDTH, HEIGHT, SIDE = 500, 375, 256
MEMORY_BYTES = 64 * 10**9  # The images stay below it, as most sets do.
SPEC = """
name = "photographs"
data = {{ source = "folder", path = "{path}", options = {{ native_size = 256 }} }}
model = {{ weights = "none" }}
train = {{ image_size = 224 }}
search.factor = "interpolation"
search.fixed = {{ class_weighting = "none", backbone = "resnet18" }}
resources = {{ image_folder = "{folder}", image_memory_gb = 64 }}
"""


class Photograph(NamedTuple):
    """A file and its name in messages."""

    name: str
    path: Path


def write_photographs(root: Path, number: int) -> list[Photograph]:
    """Write JPEGs of 500 x 375 px and about 75 kB with structure of every scale, in two classes; those that exist stay."""
    paths = [root / f"class-{i % 2}" / f"{i:06d}.jpg" for i in range(number)]
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    missing = [(path, seed) for seed, path in enumerate(paths) if not path.exists()]
    Parallel(n_jobs=cpu_count())(delayed(_write_photograph)(path, seed) for path, seed in missing)
    return [Photograph(str(path.relative_to(root)), path) for path in paths]


def _write_photograph(path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    layers = []
    for columns, contrast in ((6, 110), (24, 80), (96, 50)):
        shape = (columns * HEIGHT // WIDTH, columns, 3)
        coarse = generator.integers(128 - contrast, 128 + contrast, shape, dtype=np.uint8)
        layers.append(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    image = Image.blend(Image.blend(layers[0], layers[1], 0.5), layers[2], 0.35)
    grain = generator.integers(0, 25, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    image = Image.fromarray(np.asarray(image) // 10 * 9 + grain)
    aside = path.with_suffix(".new")
    image.save(aside, "JPEG", quality=90)
    aside.replace(path)


def measure_decoding(
    root: Path = PHOTOGRAPHS, num_images: int = NUM_IMAGES, num_bare: int = NUM_BARE_IMAGES
) -> list[Ratio]:
    """P13: images per second and core of `decode_files`, kept file included, against a bare loop of Pillow on one core."""
    root = root / str(num_images)
    files = write_photographs(root, num_images)
    sample = files[:: max(1, len(files) // num_bare)]

    def decode() -> float:
        with TemporaryDirectory(dir=root.parent) as folder:
            budget = ImageMemoryBudget(MEMORY_BYTES, Path(folder))
            seconds = measure_seconds(
                lambda: decode_files(DiskImages.of_files(files), DecodeRequest(SIDE, None, "crop"), budget)
            )
        return len(files) / seconds / cpu_count()

    name = f"images/s and core, decoding a folder to {SIDE} px / a bare loop of Pillow on one core"
    sides = {"decode_files": decode, "bare loop": lambda: len(sample) / measure_seconds(partial(_decode_bare, sample))}
    row = compare_sides("P13", name, ">= 0.8", sides, "images/s and core")
    return [dataclasses.replace(row, note=f"{row.note}; {_describe(files)}")]


def _decode_bare(files: list[Photograph]) -> None:
    """Decode each file to SIDE x SIDE with Pillow alone."""
    long_side = SIDE * WIDTH // HEIGHT
    left = (long_side - SIDE) // 2
    for file in files:
        image = Image.open(io.BytesIO(file.path.read_bytes())).convert("RGB")
        image = image.resize((long_side, SIDE), Image.Resampling.BICUBIC)
        np.asarray(image.crop((left, 0, left + SIDE, SIDE)))


def measure_second_start(root: Path = PHOTOGRAPHS, num_images: int = NUM_IMAGES) -> list[Ratio]:
    """P14: seconds of `prepare` (images, splits, audit, models) with the image folder of an earlier start, and without."""
    root = root / str(num_images)
    files = write_photographs(root, num_images)
    with TemporaryDirectory(dir=root.parent) as folder:
        spec = parse_spec(SPEC.format(path=root, folder=folder), "photographs")

        def start_first() -> float:
            shutil.rmtree(folder, ignore_errors=True)
            return measure_seconds(partial(prepare, spec))

        sides = {"again": lambda: measure_seconds(partial(prepare, spec)), "first": start_first}
        start_first()
        row = compare_sides("P14", "seconds of a study's start, again / first", "<= 0.05", sides, "s")
    return [dataclasses.replace(row, note=f"{row.note}; {_describe(files)}")]


def _describe(files: list[Photograph]) -> str:
    kilobytes = sum(file.path.stat().st_size for file in files) / len(files) / 1000
    return f"{len(files)} JPEGs of {WIDTH} x {HEIGHT} px, {kilobytes:.0f} kB, {cpu_count()} cores"
