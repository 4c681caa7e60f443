"""A folder as somebody else has it: gray tiles under six lights, with masks and loose files (``python -m tests.tile_folder TO``).

Its shape is that of a published set of magnetic tiles. Objects, defects and lights are known.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.lit_objects import NUM_LIGHTS, light_surface

# Objects and lights of each class: one class has 30 times the images of another, whose tiles were photographed once.
TILES: Mapping[str, tuple[int, int]] = {
    "MT_Blowhole": (14, NUM_LIGHTS),
    "MT_Break": (14, NUM_LIGHTS),
    "MT_Fray": (8, 1),
    "MT_Free": (40, NUM_LIGHTS),
}
# Sides in pixels, and the share of the width that a defect at an end takes.
HEIGHTS, WIDTHS, END = (36, 48), (60, 140), 0.25
LOOSE = ("contact-sheet.jpg", "logo.png")


@dataclass(frozen=True, slots=True, kw_only=True)
class TileFolder:
    """The folder, and the number of the object that each photograph shows, by its path below the folder."""

    root: Path
    objects: Mapping[str, int]


def write_tile_folder(
    root: Path, tiles: Mapping[str, tuple[int, int]] = TILES, seed: int = 0, strength: float = 1.0
) -> TileFolder:
    """Write MT_<defect>/Imgs/exp<light>_num_<object>.jpg, a mask of the defect beside each, and two loose pictures.

    Defects of a strength below 1 are fainter.
    """
    generator = np.random.default_rng(seed)
    objects: dict[str, int] = {}
    for name, (num_objects, num_lights) in tiles.items():
        folder = root / name / "Imgs"
        folder.mkdir(parents=True)
        for _ in range(num_objects):
            number = 100_000 + len(set(objects.values()))
            surface, mask = _draw_tile(name, generator, strength)
            for light in range(num_lights):
                stem = f"exp{light + 1}_num_{number}"
                photograph = Image.fromarray(light_surface(surface, generator)).convert("L")
                photograph.save(folder / f"{stem}.jpg", quality=92)
                Image.fromarray(mask).save(folder / f"{stem}.png")
                objects[f"{name}/Imgs/{stem}.jpg"] = number
    for name in LOOSE:
        Image.fromarray(generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(root / name)
    return TileFolder(root=root, objects=objects)


def _draw_tile(
    name: str, generator: np.random.Generator, strength: float
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return (H, W, 3) reflectances of a tile with the defect of its class, and its (H, W) mask, 0 or 255.

    A break is dark stripes and a fray bright dots, both at one end, which a crop of the center cuts off; a blowhole is a dark
    spot between the ends. Surfaces vary as much as defects, so that tiles of one class are not alike.
    """
    height, width = int(generator.integers(*HEIGHTS)), int(generator.integers(*WIDTHS))
    field = generator.uniform(0, 255, (9, 9 * width // height)).astype(np.uint8)
    tile = 0.2 + 0.6 * np.asarray(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC)) / 255
    rows, columns = np.indices(tile.shape)
    at_end = (columns if generator.random() < 0.5 else width - 1 - columns) < END * width
    middle, period = generator.uniform(0.45, 0.55, 2) * tile.shape, int(generator.integers(10, 16))
    defects = {
        "MT_Blowhole": (np.hypot(rows - middle[0], columns - middle[1]) < height / 5, 0.2),
        "MT_Break": (at_end & ((rows + generator.integers(period)) % period < period // 2), 0.1),
        "MT_Fray": (at_end & (generator.random(tile.shape) < 0.4), 2.5),
        "MT_Free": (np.zeros(tile.shape, dtype=bool), 1.0),
    }
    is_defect, factor = defects[name]
    tile = np.where(is_defect, (1 + strength * (factor - 1)) * tile, tile)
    return np.repeat(tile[..., None], 3, axis=2), np.where(is_defect, 255, 0).astype(np.uint8)


if __name__ == "__main__":
    write_tile_folder(Path(sys.argv[1]))
