"""A folder of 700 scenes of six very unequal classes: ``python -m tests.unequal_folder TO``."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.data.sources.planted_scenes import make_planted_scenes

COUNTS = (300, 180, 110, 60, 40, 10)
SIDE, SEED, QUALITY = 96, 0, 90


def write_unequal_folder(root: Path, counts: tuple[int, ...] = COUNTS, side: int = SIDE) -> Path:
    """Write <class>/<number>.jpg below `root`, squares of `side` pixels, and return it."""
    # The ten classes of the scenes are equally frequent.
    scenes = make_planted_scenes(seed=SEED, num_images=10 * max(counts), image_size=side).image_set
    for label, count in enumerate(counts):
        folder = root / scenes.class_names[label]
        folder.mkdir(parents=True)
        for number, index in enumerate(np.flatnonzero(scenes.labels == label)[:count]):
            Image.fromarray(scenes.images[index]).save(folder / f"{number:04}.jpg", quality=QUALITY)
    return root


if __name__ == "__main__":
    write_unequal_folder(Path(sys.argv[1]))
