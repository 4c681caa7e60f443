"""Color: the mean of each class, and what color alone predicts."""

import numpy as np
from numpy.typing import NDArray

from analysis.findings.image_findings import ColorProbe
from analysis.images.probe import ProbeImages, compute_chance_macro_f1, fit_probe
from trainables.data.image_array import ImageArray, read_images

BINS = 8
# Few features need little regularization.
STRENGTH = 1.0


def compute_class_colors(
    images: ImageArray, ids: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int
) -> NDArray[np.float64]:
    """Return (K, 3) mean red, green and blue of each class in [0, 255]; NaN for a class without images.

    Args:
        images: (N, H, W, 3) uint8.
        ids: (M,) sample ids that count.
        labels: (N,) classes.
        num_classes: K.
    """
    means = compute_mean_colors(images, ids)
    found = np.full((num_classes, 3), np.nan)
    for label in np.unique(labels[ids]):
        found[label] = means[labels[ids] == label].mean(axis=0)
    return found


def compute_mean_colors(images: ImageArray, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (M, 3) mean red, green and blue of images in [0, 255]."""
    return np.array(
        [image.reshape(-1, 3).mean(axis=0) for image in read_images(images, ids)], dtype=np.float64
    ).reshape(-1, 3)


def compute_color_histograms(images: ImageArray, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (M, 3 * BINS) shares of an image's pixels whose red, green or blue lies in each of `BINS` equal ranges."""
    found = np.empty((len(ids), 3 * BINS))
    offsets = BINS * np.arange(3)
    for place, image in enumerate(read_images(images, ids)):
        bins = image.reshape(-1, 3) // (256 // BINS) + offsets
        found[place] = np.bincount(bins.ravel(), minlength=3 * BINS) * 3 / bins.size
    return found


def probe_colors(images: ImageArray, chosen: ProbeImages) -> tuple[ColorProbe, ...]:
    """Return what the mean color and the histograms of the three colors predict, without any position or shape."""
    ids = chosen.sample_ids
    features = {
        "mean color": compute_mean_colors(images, ids),
        f"color histogram, {BINS} bins each of red, green and blue": compute_color_histograms(images, ids),
    }
    found = []
    for name, values in features.items():
        probe = fit_probe(values, chosen, strength=STRENGTH)
        chance = compute_chance_macro_f1(probe)
        found.append(ColorProbe(features=name, macro_f1=probe.macro_f1, chance=chance))
    return tuple(found)
