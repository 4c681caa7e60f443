"""Where in the outer ring a model reads: one of its corners or sides, or all around."""

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from analysis.audits.ring_swaps import swap_ring
from analysis.audits.swap_effects import AuditImages, Classify, compute_mean_interval, measure_gaps
from analysis.statistics.metrics import FloatArray
from trainables.seeds import numpy_generator

ALL_AROUND = "all around"
# A part that costs this share of what the whole ring costs is where the model reads.
SHARE = 0.5
# Twenty answers of every model are asked per image, so that many images must do.
MOST_IMAGES = 400


def split_ring(ring: NDArray[np.bool_]) -> Mapping[str, NDArray[np.bool_]]:
    """Return the four corners and the four sides of an (H, W) ring, which together are the ring."""
    rows, columns = (_three_parts(np.asarray((~ring).any(axis=axis))) for axis in (1, 0))
    names = (
        ("top left corner", "top side", "top right corner"),
        ("left side", "", "right side"),
        ("bottom left corner", "bottom side", "bottom right corner"),
    )
    return {
        name: rows[i][:, None] & columns[j][None, :]
        for i, line in enumerate(names)
        for j, name in enumerate(line)
        if name
    }


def _three_parts(inside: np.ndarray) -> tuple[NDArray[np.bool_], ...]:
    first = int(inside.argmax())
    before = np.arange(len(inside)) < first
    return before, inside, ~inside & ~before


def find_region(classify: Classify, what: AuditImages, ring: NDArray[np.bool_], *, seed: int = 0) -> str:
    """Return the corner or side in which an arm reads, or "all around".

    Each of the eight parts is swapped alone, as the whole ring is, with the same donors. The part that costs most is named if it
    costs at least half of what the whole ring costs, if the rest of the ring without it costs less than that half, and if its
    lead over the next part lies above 0 at 95 %. A model that reads a frame may miss one side of it most, but reads the rest too.
    """
    what = what.take(what.thin(MOST_IMAGES))

    def measure(region: NDArray[np.bool_]) -> FloatArray:
        return measure_gaps(classify, what, partial(swap_ring, ring=region), numpy_generator(seed, "ring region"))

    whole = float(measure(ring).mean())
    parts = split_ring(ring)
    gaps = {name: measure(region) for name, region in parts.items()}
    first, second = sorted(gaps, key=lambda name: -gaps[name].mean())[:2]
    lead = compute_mean_interval(gaps[first] - gaps[second], what.labels, len(what.class_names))
    rest = float(measure(ring & ~parts[first]).mean())
    return first if gaps[first].mean() >= SHARE * whole > rest and lead.low > 0 else ALL_AROUND
