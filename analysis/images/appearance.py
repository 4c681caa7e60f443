"""What images look like: their colors and what these alone predict, those that stand out, and what networks see of them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from analysis.images.probe import ProbeImages, compute_chance_macro_f1, fit_probe
from analysis.images.values import ODDITY_THRESHOLD, ColorProbe, Examples, Oddities, Spectra
from analysis.statistics.metrics import FloatArray, IntArray
from trainables.data.augmentation import pipeline
from trainables.data.image_array import ImageArray, cut_content, read_images
from trainables.data.images import ImageSet
from trainables.data.splits import Splits
from trainables.seeds import numpy_generator, torch_generator

BINS = 8
# Few features need little regularization.
STRENGTH = 1.0


def compute_class_colors(images: ImageArray, ids: IntArray, labels: IntArray, num_classes: int) -> FloatArray:
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


def compute_mean_colors(images: ImageArray, ids: IntArray) -> FloatArray:
    """Return (M, 3) mean red, green and blue of images in [0, 255]."""
    return np.array(
        [cut_content(image).reshape(-1, 3).mean(axis=0) for image in read_images(images, ids)], dtype=np.float64
    ).reshape(-1, 3)


def compute_color_histograms(images: ImageArray, ids: IntArray) -> FloatArray:
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
    probes = {name: fit_probe(values, chosen, strength=STRENGTH) for name, values in features.items()}
    return tuple(
        ColorProbe(features=name, macro_f1=probe.macro_f1, chance=compute_chance_macro_f1(probe))
        for name, probe in probes.items()
    )


NUM_LISTED = 6
# Expected median and mean absolute deviation of a normal distribution with standard deviation 1.
_MEDIAN_DEVIATION, _MEAN_DEVIATION = 0.6745, 0.7979


def compute_sharpness(images: ImageArray, used: IntArray) -> FloatArray:
    """Return (M,) variances of the Laplacian of the used images' gray levels; low values are blurred or empty images."""
    return np.array([cv2.Laplacian(gray, cv2.CV_64F).var() for gray in _read_gray(images, used)], dtype=np.float64)


def compute_brightness(images: ImageArray, used: IntArray) -> FloatArray:
    """Return (M,) mean gray levels of the used images, in [0, 255]."""
    return np.array([gray.mean() for gray in _read_gray(images, used)], dtype=np.float64)


def _read_gray(images: ImageArray, used: IntArray) -> Iterator[cv2.typing.MatLike]:
    contents = map(cut_content, read_images(images, used))
    return (cv2.cvtColor(np.ascontiguousarray(content), cv2.COLOR_RGB2GRAY) for content in contents)


def compute_robust_z(values: FloatArray) -> FloatArray:
    """Return modified z-scores: distances from the median in units of the scaled median absolute deviation.

    Where more than half of the values are equal, the mean absolute deviation is used, as Iglewicz and Hoaglin advise; where all
    are, the scores are 0.
    """
    deviations = values - np.median(values)
    spread = np.median(np.abs(deviations)) / _MEDIAN_DEVIATION or np.mean(np.abs(deviations)) / _MEAN_DEVIATION
    return np.asarray(deviations / spread) if spread > 0 else np.zeros_like(values)


def find_oddities(images: ImageArray, used: IntArray, sizes: NDArray[np.int32] | None) -> tuple[Oddities, ...]:
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
        scale, kinds = _MEASURES[name]
        scores = compute_robust_z(scale(values))
        for kind, sign in kinds.items():
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


# Scale of each measure, and what images are at its ends: -1 is the lower one.
_MEASURES: Mapping[str, tuple[Callable[[FloatArray], FloatArray], Mapping[str, int]]] = {
    "sharpness": (np.log1p, {"blurred": -1}),
    "brightness": (np.asarray, {"dark": -1, "bright": 1}),
    "size": (np.log, {"small": -1, "large": 1}),
    "shape": (np.log, {"wide": 1, "tall": -1}),
}


MAX_CLASSES = 20
NUM_EXAMPLES = 4


def draw_examples(image_set: ImageSet, splits: Splits, settings: pipeline.AugmentationSettings, seed: int) -> Examples:
    """Return random training images of the first `MAX_CLASSES` classes that have some, before and after augmentation.

    Args:
        image_set: the images.
        splits: of the images.
        settings: of the augmentation.
        seed: of the draws.
    """
    generator = numpy_generator(seed, "examples")
    labels = image_set.labels[splits.train]
    classes = [int(k) for k in np.unique(labels)[:MAX_CLASSES]]
    members = [splits.train[labels == k] for k in classes]
    chosen = [np.sort(generator.choice(m, size=min(NUM_EXAMPLES, len(m)), replace=False)) for m in members]
    ids = np.concatenate(chosen)
    images = np.array(image_set.images[ids])
    inputs, _ = pipeline.augment_batch(
        torch.from_numpy(images),
        torch.from_numpy(np.array(image_set.labels[ids])),
        generator=torch_generator(seed, "examples"),
        settings=settings,
        num_classes=image_set.num_classes,
    )
    pixels = inputs.permute(0, 2, 3, 1).numpy() * np.array(settings.std) + np.array(settings.mean)
    augmented = np.rint(255 * pixels.clip(0, 1)).astype(np.uint8)
    ends = np.cumsum([len(c) for c in chosen])[:-1]
    return Examples(
        classes=tuple(classes),
        before=tuple(np.split(images, ends)),
        after=tuple(np.split(augmented, ends)),
        cutmix_probability=settings.cutmix_probability,
        mixup_fraction=(1 - settings.cutmix_probability) * settings.mixup_probability,
    )


LUMA = np.array([0.299, 0.587, 0.114])
# Images that are shown under both interpolations.
NUM_RESIZED = 3
MAX_SPECTRUM_IMAGES = 256


def resize_images(images: NDArray[np.uint8], image_size: int, interpolation: str) -> FloatArray:
    """Return (N, S, S, 3) pixel values in [0, 255] of the model's input, before they are normalized."""
    inputs = pipeline.prepare_batch(
        torch.from_numpy(np.array(images)), image_size=image_size, interpolation=interpolation, channels_last=False
    )
    mean, std = np.array(pipeline.IMAGENET_MEAN), np.array(pipeline.IMAGENET_STD)
    scaled = inputs.permute(0, 2, 3, 1).double().numpy() * std + mean
    return np.asarray(255.0 * scaled, dtype=np.float64)


def resize_examples(images: NDArray[np.uint8], image_size: int) -> dict[str, NDArray[Any]]:
    """Return (n, H, W, 3) images as they are "stored", and (n, S, S, 3) under each interpolation."""
    return {"stored": images} | {name: resize_images(images, image_size, name) for name in pipeline.INTERPOLATIONS}


def compute_spectra(images: NDArray[np.uint8], image_size: int) -> Spectra:
    """Return the spectra of images under each interpolation.

    Args:
        images: (N, H, W, 3) uint8; the first `MAX_SPECTRUM_IMAGES` count.
        image_size: side S of the model's input.
    """
    found = {
        name: compute_radial_power(resize_images(images[:MAX_SPECTRUM_IMAGES], image_size, name) @ LUMA)
        for name in pipeline.INTERPOLATIONS
    }
    first = found[pipeline.INTERPOLATIONS[0]][0]
    return Spectra(frequencies=first, power={name: power for name, (_, power) in found.items()})


def compute_radial_power(gray: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return frequencies and the power averaged over rings of the Fourier plane and over images; without the mean gray level.

    Images are weighted by a Hann window, because the jump between opposite borders would add power at all frequencies.

    Args:
        gray: (N, S, S) gray levels.

    Returns:
        (F,) cycles per pixel in (0, 1/2], and (F,) power.
    """
    side = gray.shape[-1]
    window = np.hanning(side + 2)[1:-1]
    weights = np.outer(window, window)
    centered = gray - gray.mean(axis=(1, 2), keepdims=True)
    power = (np.abs(np.fft.fft2(centered * weights)) ** 2).mean(axis=0) / (weights**2).sum()
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    ring = np.rint(radius * side).astype(int)
    rings = np.arange(1, side // 2 + 1)
    counts = np.bincount(ring.ravel(), minlength=side + 1)[rings]
    sums = np.bincount(ring.ravel(), weights=power.ravel(), minlength=side + 1)[rings]
    return rings / side, sums / counts
