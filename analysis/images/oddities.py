"""Images that stand out: blurred, dark, bright, or of an odd size or shape. They are worth a look; nothing is decided."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from analysis.findings.image_findings import ODDITY_THRESHOLD, Oddities
from trainables.data.image_array import ImageArray, read_images

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
    return (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in read_images(images, used))


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
