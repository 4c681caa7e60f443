"""Resizing, random crops, flips, rotation, brightness and CutMix as batched tensor operations on the images' device."""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, nearest_name
from trainables.data.random_crops import NUM_DRAWS, choose_crops, resize_crops

Channels = tuple[float, float, float]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("bicubic", "bilinear")


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSettings:
    """Settings of the preprocessing and augmentation of training images.

    Attributes:
        image_size: Side S of the model's input, in pixels.
        interpolation: "bicubic" or "bilinear".
        channels_last: Memory layout of the result.
        crop_min_area: Smallest share of the area that a random crop keeps; 1 disables crops.
        crop_max_ratio: Largest aspect ratio of a crop; the smallest is its inverse.
        flip_probability: Probability of a horizontal flip.
        rotation_degrees: The angle is uniform in +- this value; 0 disables rotation.
        brightness_fraction: The factor is uniform in 1 +- this value; 0 disables brightness changes.
        cutmix_probability: Share of the images that get a box from another image; 0 disables CutMix.
        mean, std: Of the normalization, per channel, of pixels in [0, 1].
    """

    image_size: int
    interpolation: str
    channels_last: bool
    crop_min_area: float
    crop_max_ratio: float
    flip_probability: float
    rotation_degrees: float
    brightness_fraction: float
    cutmix_probability: float
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    @classmethod
    def from_config(
        cls, config: TrialConfig, mean: Channels = IMAGENET_MEAN, std: Channels = IMAGENET_STD
    ) -> "AugmentationSettings":
        """Read the settings of the same names from `config`; mean and standard deviation are those of the backbone."""
        return cls(
            mean=mean,
            std=std,
            image_size=config.whole("image_size"),
            interpolation=config.word("interpolation"),
            channels_last=bool(config["channels_last"]),
            crop_min_area=config.number("crop_min_area"),
            crop_max_ratio=config.number("crop_max_ratio"),
            flip_probability=config.number("flip_probability"),
            rotation_degrees=config.number("rotation_degrees"),
            brightness_fraction=config.number("brightness_fraction"),
            cutmix_probability=config.number("cutmix_probability"),
        )


def prepare_batch(
    images: Tensor,
    *,
    image_size: int,
    interpolation: str,
    channels_last: bool,
    mean: Channels = IMAGENET_MEAN,
    std: Channels = IMAGENET_STD,
) -> Tensor:
    """Return (B, 3, S, S) float32 inputs for evaluation: resized with antialiasing and normalized.

    Args:
        images: (B, H, W, 3) uint8.
        image_size: S in pixels; images of this size are not resampled.
        interpolation: "bicubic" (clamped to [0, 255], which it may overshoot) or "bilinear".
        channels_last: Memory layout of the result.
        mean: Of the normalization, per channel, of pixels in [0, 1].
        std: As `mean`.

    Raises:
        UserInputError: For an unknown interpolation.
    """
    pixels = _resize(images, image_size, interpolation)
    return _layout(_normalize(pixels, mean, std), channels_last)


def augment_batch(
    images: Tensor, labels: Tensor, *, generator: torch.Generator, settings: AugmentationSettings, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return augmented inputs (B, 3, S, S) float32 and their soft targets (B, K) float32, whose rows sum to 1.

    Random numbers are drawn per image and per transformation, so that disabling one transformation does not change the
    others in the batch. Crops are those of torchvision's RandomResizedCrop (`trainables.data.random_crops`). Rotation mirrors
    the image at its border, which avoids black corners. CutMix follows Yun et al. 2019
    (https://arxiv.org/abs/1905.04899, section 3.1 and algorithm A1), decided per image: a box of area fraction
    1 - lambda, lambda ~ Beta(1, 1), is copied from the image's partner under a random permutation, and lambda is
    recomputed from the box as clipped at the border.

    Args:
        images: (B, H, W, 3) uint8.
        labels: (B,) int64 in [0, K).
        generator: Generator on the images' device, the only source of randomness.
        settings: Transformations to apply.
        num_classes: K.

    Raises:
        UserInputError: For an unknown interpolation.
    """
    draws = torch.rand((7, len(images)), generator=generator, device=images.device)
    flip, angle, brightness, mix = draws[0], draws[1], draws[2], draws[3:]
    partner = None
    if settings.cutmix_probability > 0:
        partner = torch.randperm(len(images), generator=generator, device=images.device)
    flipped = flip < settings.flip_probability
    rotates = settings.rotation_degrees > 0
    if settings.flip_probability > 0 and not rotates:
        images = torch.where(flipped[:, None, None, None], images.flip(2), images)
    pixels = _crop(images, generator, settings)
    if rotates:
        pixels = _rotate(pixels, (2 * angle - 1) * math.radians(settings.rotation_degrees), flipped)
    if settings.brightness_fraction > 0:
        factors = 1 + (2 * brightness - 1) * settings.brightness_fraction
        pixels = pixels.mul_(factors[:, None, None, None]).clamp_(max=255.0)
    inputs = _normalize(pixels, settings.mean, settings.std)
    targets = functional.one_hot(labels, num_classes).to(torch.float32)
    if partner is not None:
        inputs, targets = _cutmix(inputs, targets, partner, mix, settings.cutmix_probability)
    return _layout(inputs, settings.channels_last), targets


def _crop(images: Tensor, generator: torch.Generator, settings: AugmentationSettings) -> Tensor:
    """Return a random crop of each image, or all of it if crops are disabled: a new (B, 3, S, S) float32 tensor in [0, 255]."""
    if settings.crop_min_area >= 1:
        return _resize(images, settings.image_size, settings.interpolation)
    _check_interpolation(settings.interpolation)
    draws = torch.rand((NUM_DRAWS, len(images)), generator=generator, device=images.device)
    height, width = images.shape[1:3]
    boxes = choose_crops(draws, height, width, min_area=settings.crop_min_area, max_ratio=settings.crop_max_ratio)
    return resize_crops(images, boxes, settings.image_size, settings.interpolation)


def _check_interpolation(interpolation: str) -> None:
    if interpolation not in INTERPOLATIONS:
        raise UserInputError(
            f"there is no interpolation {interpolation!r}{nearest_name(interpolation, INTERPOLATIONS)}"
        )


def _resize(images: Tensor, image_size: int, interpolation: str) -> Tensor:
    """Return a new (B, 3, S, S) float32 tensor in [0, 255]."""
    _check_interpolation(interpolation)
    pixels = images.permute(0, 3, 1, 2).to(torch.float32)
    if pixels.shape[2:] == (image_size, image_size):
        return pixels
    resized = functional.interpolate(
        pixels, size=(image_size, image_size), mode=interpolation, antialias=True, align_corners=False
    )
    return resized.clamp_(0.0, 255.0) if interpolation == "bicubic" else resized


def _normalize(pixels: Tensor, mean: Channels, std: Channels) -> Tensor:
    """Normalize values in [0, 255], in place."""
    center, scale = _mean_and_std(mean, std, pixels.device)
    return pixels.sub_(center).div_(scale)


@functools.lru_cache(maxsize=64)
def _mean_and_std(mean: Channels, std: Channels, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (3, 1, 1) on the scale of uint8, copied to `device` once."""
    center = torch.tensor(mean, device=device)[:, None, None] * 255.0
    scale = torch.tensor(std, device=device)[:, None, None] * 255.0
    return center, scale


def _layout(inputs: Tensor, channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return inputs.contiguous(memory_format=layout)


def _rotate(pixels: Tensor, radians: Tensor, flipped: Tensor) -> Tensor:
    """Rotate (and flip, where `flipped`) each image about its center, bilinearly, in one pass."""
    sign = 1.0 - 2.0 * flipped.to(torch.float32)
    cosine, sine = torch.cos(radians), torch.sin(radians)
    theta = pixels.new_zeros((len(pixels), 2, 3))
    theta[:, 0, 0], theta[:, 0, 1] = sign * cosine, -sine
    theta[:, 1, 0], theta[:, 1, 1] = sign * sine, cosine
    grid = functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _cutmix(
    inputs: Tensor, targets: Tensor, partner: Tensor, draws: Tensor, probability: float
) -> tuple[Tensor, Tensor]:
    """Paste a box of each chosen image's partner, in place; draws (4, B): decision, lambda, center x, center y."""
    size = inputs.shape[-1]
    side = (size * torch.sqrt(1.0 - draws[1])).floor()
    side = torch.where(draws[0] < probability, side, 0.0)
    inside_x = _inside_box((draws[2] * size).floor(), side, size)
    inside_y = _inside_box((draws[3] * size).floor(), side, size)
    box = (inside_y[:, :, None] & inside_x[:, None, :]).to(inputs.dtype)[..., None]
    fraction = inside_x.sum(1, keepdim=True) * inside_y.sum(1, keepdim=True) / size**2
    # A lerp by 0 or 1 is exact, and in the memory's own order it is several times faster than `where` on NCHW.
    pixels = inputs.permute(0, 2, 3, 1)
    mixed = pixels.lerp_(pixels.index_select(0, partner), box).permute(0, 3, 1, 2)
    return mixed, targets * (1.0 - fraction) + targets[partner] * fraction


def _inside_box(center: Tensor, side: Tensor, size: int) -> Tensor:
    """Return (B, S) bool: the positions of an interval of length `side` around `center` that lie in the image."""
    position = torch.arange(size, device=center.device)[None]
    start = center - (side / 2).floor()
    return (position >= start[:, None]) & (position < (start + side)[:, None])
