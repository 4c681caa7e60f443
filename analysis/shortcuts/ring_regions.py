"""The region of the outer ring that an arm relies on: a corner, a side, or the whole ring."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from analysis.shortcuts import swaps
from analysis.statistics.metrics import BoolArray, IntArray
from trainables.seeds import numpy_generator

ALL_AROUND = "all around"
# A region is named if swapping it costs this share of the accuracy that swapping the whole ring costs.
SHARE = 0.5
# Every model predicts each image twenty times, hence the limit.
MAX_IMAGES = 400


def split_ring(ring: BoolArray) -> Mapping[str, BoolArray]:
    """Return the four corners and the four sides of an (H, W) ring by name; their union is the ring."""
    rows, columns = (_three_parts(np.asarray((~ring).any(axis=axis))) for axis in (1, 0))
    names = (
        ("top left corner", "top side", "top right corner"),
        ("left side", "", "right side"),
        ("bottom left corner", "bottom side", "bottom right corner"),
    )
    places = [(i, j) for i, j in itertools.product(range(3), repeat=2) if names[i][j]]
    return {names[i][j]: rows[i][:, None] & columns[j][None, :] for i, j in places}


def _three_parts(inside: np.ndarray) -> tuple[BoolArray, ...]:
    first = int(inside.argmax())
    before = np.arange(len(inside)) < first
    return before, inside, ~inside & ~before


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionGaps(swaps.Measurements):
    """Gaps of images by region of the ring.

    Attributes:
        whole: with the whole ring swapped.
        parts: with one corner or side swapped, by its name.
        rests: with the rest of the ring swapped, by the name of the part that is kept; of the parts that may be named.
    """

    whole: swaps.SwapEffects
    parts: Mapping[str, swaps.SwapEffects]
    rests: Mapping[str, swaps.SwapEffects]

    def find_first(self, classes: IntArray) -> tuple[str, str]:
        """Return the two parts with the largest gaps over the images of some classes, the larger first."""
        first, second = sorted(self.parts, key=lambda name: -self.parts[name].of_classes(classes).values.mean())[:2]
        return first, second


def measure_regions(
    classify: swaps.Classify,
    audit_images: swaps.AuditImages,
    ring: BoolArray,
    failing: tuple[IntArray, IntArray],
    *,
    seed: int = 0,
) -> RegionGaps:
    """Return the gaps of images of failing classes when each of the eight regions is swapped alone.

    Args:
        classify: the arm's S models.
        audit_images: images that no model was trained on.
        ring: (H, W) bool, True in the ring.
        failing: classes that fail for all models together, and for the first one alone; not both empty.
        seed: of the choice of donors, which are the same for all regions.
    """
    targets = audit_images.thin(MAX_IMAGES, np.unique(np.concatenate(failing)))

    def measure(region: BoolArray) -> swaps.SwapEffects:
        swap, generator = partial(swaps.swap_ring, ring=region), numpy_generator(seed, "ring region")
        return swaps.measure_gaps(classify, audit_images, swap, generator, targets, num_donors=1)

    parts = split_ring(ring)
    gaps = RegionGaps(whole=measure(ring), parts={name: measure(region) for name, region in parts.items()}, rests={})
    sides = zip((gaps, gaps.take_first()), failing, strict=True)
    named = {side.find_first(classes)[0] for side, classes in sides if len(classes)}
    return replace(gaps, rests={name: measure(ring & ~parts[name]) for name in sorted(named)})


def name_region(gaps: RegionGaps, failing: IntArray) -> str:
    """Return the corner or side of the ring that the models rely on, or "all around".

    The region with the largest gap is named if its gap is at least half of that of the whole ring, if the gap of the rest of the
    ring is smaller than that half, and if its lead over the next region lies above 0 at 95 %, for these models. A model that
    relies on a whole frame may lose most with one side, but it also loses with the rest.

    Args:
        gaps: of the models.
        failing: the classes that fail; images of other classes do not count.
    """
    first, second = gaps.find_first(failing)
    own, next_one, whole, rest = (
        found.of_classes(failing) for found in (gaps.parts[first], gaps.parts[second], gaps.whole, gaps.rests[first])
    )
    lead = swaps.bound_mean(own.minus(next_one)).models
    is_own = own.values.mean() >= SHARE * whole.values.mean() > rest.values.mean()
    return first if is_own and lead.low > 0 else ALL_AROUND
