"""What images look like: the colors of each class and what they alone predict; images that stand out."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from analysis.images.probe import ProbeImages, compute_chance_macro_f1, fit_probe
from analysis.images.values import ODDITY_THRESHOLD, ColorProbe, Oddities
from trainables.data.image_array import ImageArray, cut_content, read_images

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
        [cut_content(image).reshape(-1, 3).mean(axis=0) for image in read_images(images, ids)], dtype=np.float64
    ).reshape(-1, 3)


def compute_color_histograms(images: ImageArray, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (M, 3 * BINS) shares of an image's pixels whose red, green or blue lies in each of `BINS` equal ranges."""
    found = np.empty((len(ids), 3 * BINS))
    offsets = BINS * np.arange(3)
    for place, image in enumerate(read_images(images, ids)):
        bins = cut_content(image).reshape(-1, 3) // (256 // BINS) + offsets
        found[place] = np.bincount(bins.ravel(), minlength=3 * BINS) * 3 / bins.size
    return found


def probe_colors(images: ImageArray, chosen: ProbeImages, *, are_gray: bool) -> tuple[ColorProbe, ...]:
    """Return what the mean color and the histograms of the three colors predict, without any position or shape."""
    ids = chosen.sample_ids
    names = ("mean color", f"color histogram, {BINS} bins each of red, green and blue")
    if are_gray:
        names = ("mean gray level", f"histogram of gray levels, {BINS} bins")
    features = dict(zip(names, (compute_mean_colors(images, ids), compute_color_histograms(images, ids)), strict=True))
    found = []
    for name, values in features.items():
        probe = fit_probe(values, chosen, strength=STRENGTH)
        chance = compute_chance_macro_f1(probe)
        found.append(ColorProbe(features=name, macro_f1=probe.macro_f1, chance=chance))
    return tuple(found)


NUM_LISTED = 6
# Expected median and mean absolute deviation of a normal distribution with standard deviation 1.
_MEDIAN_DEVIATION, _MEAN_DEVIATION = 0.6745, 0.7979


def compute_sharpness(images: ImageArray, used: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (M,) variances of the Laplacian of the used images' gray levels; low values are blurred or empty images."""
    return np.array([cv2.Laplacian(gray, cv2.CV_64F).var() for gray in _read_gray(images, used)], dtype=np.float64)


def compute_brightness(images: ImageArray, used: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (M,) mean gray levels of the used images, in [0, 255]."""
    return np.array([gray.mean() for gray in _read_gray(images, used)], dtype=np.float64)


def _read_gray(images: ImageArray, used: NDArray[np.int64]) -> Iterator[cv2.typing.MatLike]:
    return (
        cv2.cvtColor(np.ascontiguousarray(cut_content(image)), cv2.COLOR_RGB2GRAY)
        for image in read_images(images, used)
    )


def compute_robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return modified z-scores: distances from the median in units of the scaled median absolute deviation.

    Where more than half of the values are equal, the mean absolute deviation is used, as Iglewicz and Hoaglin advise; where all
    are, the scores are 0.
    """
    deviations = values - np.median(values)
    spread = np.median(np.abs(deviations)) / _MEDIAN_DEVIATION or np.mean(np.abs(deviations)) / _MEAN_DEVIATION
    return np.asarray(deviations / spread) if spread > 0 else np.zeros_like(values)


def find_oddities(images: ImageArray, used: NDArray[np.int64], sizes: NDArray[np.int32] | None) -> tuple[Oddities, ...]:
    """Return the images that stand out by sharpness, brightness, size and shape.

    Sharpness, size and shape are compared on a logarithmic scale.

    Args:
        images: (N, H, W, 3) uint8.
        used: (M,) sample ids that are looked at.
        sizes: (N, 2) width and height in pixels of the files; None where there are none.
    """
    if not len(used):
        return ()
    measures = {"sharpness": compute_sharpness(images, used), "brightness": compute_brightness(images, used)}
    if sizes is not None:
        width, height = sizes[used, 0].astype(np.float64), sizes[used, 1].astype(np.float64)
        measures |= {"size": np.sqrt(width * height), "shape": width / height}
    found = []
    for name, values in measures.items():
        scores = compute_robust_z(_SCALES[name](values))
        for kind, sign in _KINDS[name]:
            order = np.argsort(-sign * scores, kind="stable")
            beyond = order[sign * scores[order] > ODDITY_THRESHOLD]
            found.append(
                Oddities(
                    kind=kind,
                    num_beyond=len(beyond),
                    sample_ids=tuple(int(i) for i in used[beyond[:NUM_LISTED]]),
                    values=tuple(float(v) for v in values[beyond[:NUM_LISTED]]),
                    median=float(np.median(values)),
                )
            )
    return tuple(found)


_KINDS: Mapping[str, tuple[tuple[str, int], ...]] = MappingProxyType(
    {
        "sharpness": (("blurred", -1),),
        "brightness": (("dark", -1), ("bright", 1)),
        "size": (("small", -1), ("large", 1)),
        "shape": (("wide", 1), ("tall", -1)),
    }
)
_SCALES: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = MappingProxyType(
    {"sharpness": np.log1p, "brightness": np.asarray, "size": np.log, "shape": np.log}
)
