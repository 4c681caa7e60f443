"""The frequency test: does an arm read faint waves that fill the whole picture?

A wave over the whole picture is all in one coefficient of the picture's Fourier transform; an object, which ends somewhere, is
spread over neighbouring ones. On one half of the images the coefficients are found whose power tells the classes apart better
than their neighbours' does. On the other half these waves are exchanged between images: accuracy with waves of the same class
minus accuracy with those of another class is what the arm reads there. The ring audit cannot see such a
wave: the centre holds it too.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import generic_filter
from sklearn.feature_selection import f_classif

from analysis.audits.cues import LUMA
from analysis.audits.ring_swaps import Images
from analysis.audits.swap_effects import AuditImages, Classify, compute_mean_interval, judge_gap, measure_gaps
from analysis.findings.forensic_findings import FrequencyAudit
from analysis.statistics.metrics import FloatArray
from trainables.seeds import numpy_generator

MOST_WAVES = 10
# Of a class: two in either half.
FEWEST_IMAGES = 4
BLOCK = 512


def audit_frequencies(classify: Classify, what: AuditImages, *, seed: int = 0) -> FrequencyAudit | None:
    """Return what an arm of S >= 2 models loses when the tell-tale waves come from another class; None for too few images.

    Args:
        classify: the arm's models.
        what: images that no model was trained on, `FEWEST_IMAGES` of each class at least.
        seed: of the halves and of the donors.

    Raises UserInputError for one seed.
    """
    if np.unique(what.labels, return_counts=True)[1].min() < FEWEST_IMAGES:
        return None
    generator = numpy_generator(seed, "frequency audit")
    searched, measured = _split_evenly(what, generator)
    waves = find_waves(what.take(searched), MOST_WAVES)
    kept = what.take(measured)
    gaps = measure_gaps(classify, kept, partial(swap_waves, waves=waves), generator)
    gap = compute_mean_interval(gaps, kept.labels, len(kept.class_names))
    listed = {_count_periods(u, v, waves.shape) for u, v in np.argwhere(waves).tolist()}
    return FrequencyAudit(waves=tuple(sorted(listed)), gap=gap, verdict=judge_gap(gap))


def _count_periods(u: int, v: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the periods down and across of a coefficient; across is never negative, and down is not where across is 0."""
    down, across = (u + shape[0] // 2) % shape[0] - shape[0] // 2, (v + shape[1] // 2) % shape[1] - shape[1] // 2
    return (-down, -across) if across < 0 or (across == 0 and down < 0) else (down, across)


def find_waves(what: AuditImages, number: int) -> NDArray[np.bool_]:
    """Return (H, W) bool over Fourier coefficients: the `number` whose power says most beyond their neighbours', and conjugates.

    Power of the grey image is compared between classes by the F of an analysis of variance of its logarithm; a coefficient's F
    is divided by the median of the F around it.
    """
    height, width = what.images.shape[1:3]
    power = np.concatenate(
        [
            np.log(np.abs(np.fft.fft2(what.images[i : i + BLOCK].astype(np.float64) @ LUMA)) ** 2 + 1e-3)
            for i in range(0, len(what.labels), BLOCK)
        ]
    )
    f = np.nan_to_num(f_classif(power.reshape(len(power), -1), what.labels)[0]).reshape(power.shape[1:])
    around = generic_filter(f, np.median, size=5, mode="wrap")
    beyond = f / np.maximum(around, 1.0)
    # The mean grey value is no wave, and of two conjugates one is enough.
    rows, columns = np.indices((height, width))
    conjugates = np.ravel_multi_index((-rows % height, -columns % width), (height, width))
    beyond[np.arange(height * width).reshape(height, width) > conjugates] = 0.0
    beyond[0, 0] = 0.0
    chosen = np.zeros((height, width), dtype=bool)
    for place in np.argsort(-beyond, axis=None, kind="stable")[:number]:
        u, v = np.unravel_index(place, beyond.shape)
        chosen[u, v] = chosen[-u % height, -v % width] = True
    return chosen


def swap_waves(images: Images, donors: Images, *, waves: NDArray[np.bool_]) -> Images:
    """Return `images` with the chosen Fourier coefficients of every channel from `donors`, both (n, H, W, 3)."""
    return np.concatenate(
        [_swap_block(images[i : i + BLOCK], donors[i : i + BLOCK], waves) for i in range(0, len(images), BLOCK)]
    )


def _swap_block(images: Images, donors: Images, waves: NDArray[np.bool_]) -> Images:
    own, other = (np.fft.fft2(x.astype(np.float64), axes=(1, 2)) for x in (images, donors))
    mixed: FloatArray = np.fft.ifft2(np.where(waves[None, :, :, None], other, own), axes=(1, 2)).real
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _split_evenly(what: AuditImages, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of two halves with as many images of each class, give or take one."""
    order = generator.permutation(len(what.labels))
    order = order[np.argsort(what.labels[order], kind="stable")]
    return np.sort(order[::2]), np.sort(order[1::2])
