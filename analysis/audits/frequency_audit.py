"""The frequency audit: does an arm rely on faint periodic patterns that cover the whole image?

Such a pattern concentrates in a single Fourier coefficient of the image, while an object, being bounded, spreads over
neighboring coefficients. On one half of the images, the audit selects the coefficients whose power separates the classes
better than that of their neighbors. On the other half, it swaps these coefficients between images. The gap is accuracy after
swaps within the class minus accuracy after swaps across classes. The ring audit cannot detect such a pattern, because the
center of the image contains it too.
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

MAX_WAVES = 10
# Images of a class: two in each half.
MIN_IMAGES = 4
BLOCK = 512


def audit_frequencies(classify: Classify, audit_images: AuditImages, *, seed: int = 0) -> FrequencyAudit | None:
    """Return the accuracy that an arm loses when class-specific frequency components are swapped across classes.

    Args:
        classify: the arm's S >= 2 models.
        audit_images: images that no model was trained on.
        seed: of the halves and of the donors.

    Returns:
        The audit; None if a class has fewer than `MIN_IMAGES` images.

    Raises:
        UserInputError: for one seed.
    """
    if np.unique(audit_images.labels, return_counts=True)[1].min() < MIN_IMAGES:
        return None
    generator = numpy_generator(seed, "frequency audit")
    searched, measured = _split_evenly(audit_images, generator)
    waves = find_waves(audit_images.take(searched), MAX_WAVES)
    kept = audit_images.take(measured)
    gaps = measure_gaps(classify, kept, partial(swap_waves, waves=waves), generator)
    gap = compute_mean_interval(gaps, kept.labels, len(kept.class_names))
    listed = {_count_periods(u, v, waves.shape) for u, v in np.argwhere(waves).tolist()}
    return FrequencyAudit(waves=tuple(sorted(listed)), gap=gap, verdict=judge_gap(gap))


def _count_periods(u: int, v: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the vertical and horizontal periods of a coefficient.

    The horizontal one is not negative; where it is 0, neither is the vertical one.
    """
    down, across = (u + shape[0] // 2) % shape[0] - shape[0] // 2, (v + shape[1] // 2) % shape[1] - shape[1] // 2
    return (-down, -across) if across < 0 or (across == 0 and down < 0) else (down, across)


def find_waves(audit_images: AuditImages, number: int) -> NDArray[np.bool_]:
    """Return the Fourier coefficients whose power separates the classes best, relative to their neighbors.

    The criterion is the F statistic of an analysis of variance of the log power of the gray image over the classes, divided
    by the median F of the surrounding coefficients.

    Args:
        audit_images: at least two images of each class.
        number: of coefficients to select.

    Returns:
        (H, W) bool, True at the selected coefficients and their conjugates.
    """
    height, width = audit_images.images.shape[1:3]
    power = np.concatenate(
        [
            np.log(np.abs(np.fft.fft2(audit_images.images[i : i + BLOCK].astype(np.float64) @ LUMA)) ** 2 + 1e-3)
            for i in range(0, len(audit_images.labels), BLOCK)
        ]
    )
    f = np.nan_to_num(f_classif(power.reshape(len(power), -1), audit_images.labels)[0]).reshape(power.shape[1:])
    around = generic_filter(f, np.median, size=5, mode="wrap")
    beyond = f / np.maximum(around, 1.0)
    # The mean gray value is no wave, and one of two conjugates is enough.
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
    """Return images whose selected Fourier coefficients come from donors, in every channel.

    Args:
        images: (n, H, W, 3) uint8.
        donors: (n, H, W, 3) uint8.
        waves: (H, W) bool, True at the coefficients to swap.
    """
    return np.concatenate(
        [_swap_block(images[i : i + BLOCK], donors[i : i + BLOCK], waves) for i in range(0, len(images), BLOCK)]
    )


def _swap_block(images: Images, donors: Images, waves: NDArray[np.bool_]) -> Images:
    own, other = (np.fft.fft2(x.astype(np.float64), axes=(1, 2)) for x in (images, donors))
    mixed: FloatArray = np.fft.ifft2(np.where(waves[None, :, :, None], other, own), axes=(1, 2)).real
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _split_evenly(
    audit_images: AuditImages, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of two halves, stratified by class."""
    order = generator.permutation(len(audit_images.labels))
    order = order[np.argsort(audit_images.labels[order], kind="stable")]
    return np.sort(order[::2]), np.sort(order[1::2])
