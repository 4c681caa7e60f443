"""Photographs whose texture misleads: in training it tells two classes apart, and half of those to audit have the other's.

Beside the planted texture that two classes share (`planted_photographs`), which separates nothing, this one is what the classes
are confused by.
"""

from dataclasses import dataclass

import numpy as np

from analysis.shortcuts.swaps import Images
from analysis.statistics.metrics import IntArray
from benchmarks.validation.planted_photographs import PhotographOutcome, PhotographWorld, judge_photographs
from trainables.seeds import numpy_generator

# Height of the waves in gray levels and their period in pixels. Both were chosen, as what is planted was, on the first three
# worlds, which must not count; benchmarks/PHOTOGRAPHS.md says how the others that were tried fared.
HEIGHT, PERIOD = 25.0, 4.0
FIRST_TEXTURE = 3
# Share of audited photographs of the two classes that have the texture of the other.
MISLED = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TextureWorld(PhotographWorld):
    """A set of photographs in which those of two classes have a texture each; all others are as they were taken.

    `rho` is the share of the photographs to train on that have the texture of their own class; the rest have the other's.
    """

    def plant(
        self, images: Images, labels: IntArray, num_classes: int, seed: int, part: str
    ) -> tuple[Images, IntArray]:
        """Return (n, H, W, 3) photographs with the textures, and their (n,) labels; arguments as of `PhotographWorld`."""
        pair = self.find_classes(num_classes, seed)
        is_pair = np.isin(labels, pair)
        share = MISLED if part == "audit" else 1 - self.rho
        is_misled = numpy_generator(seed, "textures", part).random(len(labels)) < share
        shown = np.where(is_pair & is_misled, sum(pair) - labels, labels)
        y, x = np.indices(images.shape[1:3])
        angle = (np.pi * shown / num_classes)[:, None, None]
        waves = np.where(
            is_pair[:, None, None], np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / PERIOD), 0
        )
        return np.clip(np.rint(images + HEIGHT * waves[..., None]), 0, 255).astype(np.uint8), labels


def judge_textures(world: TextureWorld, seed: int) -> PhotographOutcome:
    """Train the networks of a world and ask for the cause of the confusion of its pair."""
    return judge_photographs(world, FIRST_TEXTURE + seed)
