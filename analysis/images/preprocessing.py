"""What networks get to see: examples before and after augmentation, and both interpolations side by side."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.images.values import Examples, Spectra
from analysis.statistics.metrics import FloatArray
from trainables.data.augmentation.pipeline import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATIONS,
    AugmentationSettings,
    augment_batch,
    prepare_batch,
)
from trainables.data.images import ImageSet
from trainables.data.splits import Splits
from trainables.seeds import numpy_generator, torch_generator

MAX_CLASSES = 20
NUM_EXAMPLES = 4


def draw_examples(image_set: ImageSet, splits: Splits, settings: AugmentationSettings, seed: int) -> Examples:
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
    inputs, _ = augment_batch(
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
    inputs = prepare_batch(
        torch.from_numpy(np.array(images)), image_size=image_size, interpolation=interpolation, channels_last=False
    )
    scaled = inputs.permute(0, 2, 3, 1).double().numpy() * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)
    return np.asarray(255.0 * scaled, dtype=np.float64)


def resize_examples(images: NDArray[np.uint8], image_size: int) -> dict[str, NDArray[Any]]:
    """Return (n, H, W, 3) images as they are "stored", and (n, S, S, 3) under each interpolation."""
    return {"stored": images} | {name: resize_images(images, image_size, name) for name in INTERPOLATIONS}


def compute_spectra(images: NDArray[np.uint8], image_size: int) -> Spectra:
    """Return the spectra of images under each interpolation.

    Args:
        images: (N, H, W, 3) uint8; the first `MAX_SPECTRUM_IMAGES` count.
        image_size: side S of the model's input.
    """
    found = {
        name: compute_radial_power(resize_images(images[:MAX_SPECTRUM_IMAGES], image_size, name) @ LUMA)
        for name in INTERPOLATIONS
    }
    first = found[INTERPOLATIONS[0]][0]
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
