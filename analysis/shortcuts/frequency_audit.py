"""The frequency audit: does an arm rely on faint periodic patterns that cover the whole image?

Such a pattern concentrates in a single Fourier coefficient of the image, while an object, being bounded, spreads over
neighboring coefficients. On one half of the images, the audit selects the coefficients whose power separates a class from the
others better than that of their neighbors. On the other half, it swaps these coefficients between images. The gap of a class is
its accuracy after swaps within the class minus that after swaps across classes. The ring audit cannot detect such a pattern,
because the center of the image contains it too.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.ndimage import median_filter
from sklearn.feature_selection import f_classif

from analysis.shortcuts import swaps
from analysis.shortcuts.values import ClassGap, ColorLoss, FrequencyAudit
from analysis.statistics.metrics import BoolArray, FloatArray, IntArray
from trainables.data.image_audit import are_gray
from trainables.data.padding import lay_content, lay_mask, move_content
from trainables.seeds import numpy_generator

MAX_WAVES = 10
# Images of a class: two in each half.
MIN_IMAGES = 4
BLOCK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequencyMeasurement(swaps.Measurements):
    """What S models predict for N images with swapped Fourier coefficients.

    Attributes:
        waves: as in `FrequencyAudit`.
        gaps: as in `measure_gaps`.
    """

    waves: tuple[tuple[int, int], ...]
    gaps: swaps.SwapEffects


def measure_frequencies(
    classify: swaps.Classify, audit_images: swaps.AuditImages, *, seed: int = 0
) -> FrequencyMeasurement | None:
    """Return what an arm predicts when class-specific frequency components are swapped within and across classes.

    Args:
        classify: the arm's S models; one is enough.
        audit_images: images that no model was trained on.
        seed: of the halves and of the donors.

    Returns:
        The measurement on one half of the images; None if a class has fewer than `MIN_IMAGES` images, or fewer in a fold.
    """
    if np.unique(audit_images.strata, return_counts=True)[1].min() < MIN_IMAGES:
        return None
    generator = numpy_generator(seed, "frequency audit")
    searched, measured = _split_evenly(audit_images, generator)
    found, kept = audit_images.take(searched), audit_images.take(measured)
    # The border of padding is a wave that tells shapes, not content, apart.
    waves = find_waves(replace(found, images=move_content(found.images)), MAX_WAVES)
    gaps = swaps.measure_gaps(classify, kept, partial(swap_waves, waves=waves), generator)
    listed = {_count_periods(u, v, waves.shape) for u, v in np.argwhere(waves).tolist()}
    return FrequencyMeasurement(waves=tuple(sorted(listed)), gaps=gaps)


def judge_frequencies(measured: FrequencyMeasurement) -> FrequencyAudit:
    """Return the audit: the gap of each class, simultaneous over the classes, and the verdicts.

    Raises:
        UserInputError: for a class with one image.
    """
    classes = []
    for name, gap in swaps.bound_classes(measured.gaps).items():
        verdict, recipe_verdict = swaps.judge_both(gap)
        classes.append(ClassGap(class_name=name, gap=gap, verdict=verdict, recipe_verdict=recipe_verdict))
    return FrequencyAudit(
        waves=measured.waves,
        gap=swaps.bound_mean(measured.gaps),
        verdict=swaps.judge_classes(c.verdict for c in classes),
        recipe_verdict=swaps.judge_classes(c.recipe_verdict for c in classes),
        classes=tuple(classes),
    )


def _count_periods(u: int, v: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the vertical and horizontal periods of a coefficient.

    The horizontal one is not negative; where it is 0, neither is the vertical one.
    """
    down, across = (u + shape[0] // 2) % shape[0] - shape[0] // 2, (v + shape[1] // 2) % shape[1] - shape[1] // 2
    return (-down, -across) if across < 0 or (across == 0 and down < 0) else (down, across)


def find_waves(audit_images: swaps.AuditImages, number: int) -> BoolArray:
    """Return the Fourier coefficients whose power separates one class from the others best, relative to their neighbors.

    The criterion is the F statistic of the log power of the gray image in one class against all others, divided by the median F
    of the surrounding coefficients; each coefficient counts for the class that it separates best. One F statistic over all
    classes would dilute a wave that only one of them has.

    Args:
        audit_images: at least two images of each class.
        number: of coefficients to select.

    Returns:
        (H, W) bool, True at the selected coefficients and their conjugates.
    """
    height, width = audit_images.images.shape[1:3]
    # Of two conjugates one is enough, and the mean gray value is no wave.
    rows, columns = np.indices((height, width))
    conjugates = np.ravel_multi_index((-rows % height, -columns % width), (height, width)).ravel()
    kept = np.flatnonzero(np.arange(height * width) <= conjugates)
    power = np.concatenate(
        [_compute_power(audit_images.images[i : i + BLOCK])[:, kept] for i in range(0, len(audit_images.labels), BLOCK)]
    )
    beyond = np.zeros(height * width)
    for label in np.unique(audit_images.labels):
        f = np.empty(height * width)
        f[kept] = np.nan_to_num(f_classif(power, audit_images.labels == label)[0])
        f[conjugates[kept]] = f[kept]
        around = median_filter(f.reshape(height, width), size=5, mode="wrap").ravel()
        beyond[kept] = np.maximum(beyond[kept], f[kept] / np.maximum(around[kept], 1.0))
    beyond[0] = 0.0
    chosen = np.zeros(height * width, dtype=bool)
    best = np.argsort(-beyond, kind="stable")[:number]
    chosen[best] = chosen[conjugates[best]] = True
    return chosen.reshape(height, width)


def _compute_power(images: swaps.Images) -> FloatArray:
    """Return the (n, H * W) log power of the Fourier coefficients of gray images."""
    spectrum = np.fft.fft2(images.astype(np.float64) @ swaps.LUMA)
    return np.asarray(np.log(np.abs(spectrum) ** 2 + 1e-3).reshape(len(images), -1))


def swap_waves(images: swaps.Images, donors: swaps.Images, *, waves: BoolArray) -> swaps.Images:
    """Return images whose selected Fourier coefficients come from donors, in every channel; of padded ones, those of the content.

    Args:
        images: (n, H, W, 3) uint8.
        donors: (n, H, W, 3) uint8.
        waves: (H, W) bool, True at the coefficients to swap.
    """
    blocks = (slice(i, i + BLOCK) for i in range(0, len(images), BLOCK))
    return np.concatenate([_swap_block(images[block], donors[block], waves) for block in blocks])


def _swap_block(images: swaps.Images, donors: swaps.Images, waves: BoolArray) -> swaps.Images:
    own, other = (np.fft.fft2(move_content(x).astype(np.float64), axes=(1, 2)) for x in (images, donors))
    mixed: FloatArray = np.fft.ifft2(np.where(waves[None, :, :, None], other, own), axes=(1, 2)).real
    return lay_content(np.clip(np.rint(mixed), 0, 255).astype(np.uint8), images)


def _split_evenly(audit_images: swaps.AuditImages, generator: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Return the indices of two halves, stratified by class and fold."""
    order = generator.permutation(len(audit_images.labels))
    order = order[np.argsort(audit_images.strata[order], kind="stable")]
    return np.sort(order[::2]), np.sort(order[1::2])


def audit_colors(classify: swaps.Classify, audit_images: swaps.AuditImages) -> swaps.SwapEffects | None:
    """Return what `measure_color_losses` does; None where the images are gray, so that there is no color to remove."""
    is_gray = are_gray(audit_images.images, np.arange(len(audit_images.labels)))
    return None if is_gray else measure_color_losses(classify, audit_images)


def measure_color_losses(classify: swaps.Classify, audit_images: swaps.AuditImages) -> swaps.SwapEffects:
    """Return what gray images cost an arm's S models: 1 where one is correct only with color, -1 where only without.

    Args:
        classify: the arm's S models.
        audit_images: images that no model was trained on.
    """
    images, labels = audit_images.images, audit_images.labels
    gray = np.repeat((images.astype(np.float32) @ swaps.LUMA).round().astype(np.uint8)[..., None], 3, axis=3)
    gray = np.where(lay_mask(np.ones(images.shape[1:3], dtype=bool), images)[..., None], gray, images)
    correct, correct_gray = (
        np.asarray(audit_images.classify(classify, shown) == labels, dtype=np.float64) for shown in (images, gray)
    )
    return audit_images.effects(correct - correct_gray)


def bound_color_losses(losses: swaps.SwapEffects) -> tuple[ColorLoss, ...]:
    """Return the loss of each present class, with intervals that are simultaneous over the classes.

    Raises:
        UserInputError: for a class with one image.
    """
    return tuple(ColorLoss(class_name=name, loss=loss) for name, loss in swaps.bound_classes(losses).items())
