"""The region of the outer ring that an arm relies on: a corner, a side, or the whole ring."""

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from analysis.audits.ring_swaps import swap_ring
from analysis.audits.swap_effects import AuditImages, Classify, compute_mean_interval, measure_gaps
from analysis.statistics.metrics import FloatArray
from trainables.seeds import numpy_generator

ALL_AROUND = "all around"
# A region is named if swapping it costs this share of the accuracy that swapping the whole ring costs.
SHARE = 0.5
# Every model predicts each image twenty times, hence the limit.
MAX_IMAGES = 400


def split_ring(ring: NDArray[np.bool_]) -> Mapping[str, NDArray[np.bool_]]:
    """Return the four corners and the four sides of an (H, W) ring by name; their union is the ring."""
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


def find_region(classify: Classify, audit_images: AuditImages, ring: NDArray[np.bool_], *, seed: int = 0) -> str:
    """Return the corner or side of the ring that an arm relies on, or "all around".

    Each of the eight regions is swapped alone, with the donors of the whole ring. The region with the largest gap is named if
    its gap is at least half of that of the whole ring, if the gap of the rest of the ring is smaller than that half, and if its
    lead over the next region lies above 0 at 95 %. A model that relies on a whole frame may lose most with one side, but it
    also loses with the rest.

    Args:
        classify: the arm's S >= 2 models.
        audit_images: images that no model was trained on.
        ring: (H, W) bool, True in the ring.
        seed: of the choice of donors.
    """
    audit_images = audit_images.take(audit_images.thin(MAX_IMAGES))

    def measure(region: NDArray[np.bool_]) -> FloatArray:
        return measure_gaps(
            classify, audit_images, partial(swap_ring, ring=region), numpy_generator(seed, "ring region")
        )

    whole = float(measure(ring).mean())
    parts = split_ring(ring)
    gaps = {name: measure(region) for name, region in parts.items()}
    first, second = sorted(gaps, key=lambda name: -gaps[name].mean())[:2]
    lead = compute_mean_interval(gaps[first] - gaps[second], audit_images.labels, len(audit_images.class_names))
    rest = float(measure(ring & ~parts[first]).mean())
    return first if gaps[first].mean() >= SHARE * whole > rest and lead.low > 0 else ALL_AROUND
