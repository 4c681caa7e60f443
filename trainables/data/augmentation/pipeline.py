"""Augmentation of a batch: batched tensor operations on the images' device, with random numbers of its own for each image."""

import functools
import math
from dataclasses import replace

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, check_choice
from search_spaces.settings import PRESETS, AugmentationKeys, resolve_preset
from trainables.data.augmentation import crops
from trainables.data.augmentation.colors import jitter_colors, trivially_augment
from trainables.data.augmentation.mixing import mix_images, swap_rings
from trainables.data.padding import find_content
from trainables.seeds import seed_of_state, torch_generator

Channels = tuple[float, float, float]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("bicubic", "bilinear")


class AugmentationSettings(AugmentationKeys):
    """Settings of the preprocessing and augmentation of training images: the declared keys, and what they are used with.

    Attributes:
        image_size: Side S of the model's input, in pixels.
        interpolation: "bicubic" or "bilinear".
        channels_last: Memory layout of the result.
        cutmix_probability: Share of the images that get a box from another image; 0 disables CutMix.
        mean, std: Of the normalization, per channel, of pixels in [0, 1].
    """

    image_size: int
    interpolation: str
    channels_last: bool
    cutmix_probability: float
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    @classmethod
    def from_config(
        cls, config: TrialConfig, mean: Channels = IMAGENET_MEAN, std: Channels = IMAGENET_STD
    ) -> "AugmentationSettings":
        """Read the settings of the same names from `config`, or take them from its preset `augmentation`.

        Mean and standard deviation are those of the backbone.

        Raises:
            UserInputError: For an unknown preset, or settings that cannot be used.
        """
        config = apply_preset(config)
        names = cls.model_fields.keys() - {"mean", "std"}
        try:
            found = cls.model_validate({"mean": mean, "std": std, **{name: config[name] for name in names}})
        except ValidationError as error:
            first = error.errors()[0]
            raise UserInputError(f"{first['loc'][0]}: {first['msg']}, but got {first['input']!r}") from None
        if found.crop_padding >= found.image_size:
            raise UserInputError(
                f"crop_padding < image_size ({found.image_size}) must hold, but got {found.crop_padding}"
            )
        return found


def apply_preset(config: TrialConfig) -> TrialConfig:
    """Return `config` with the values that its preset sets in place of its fixed settings.

    A hyperparameter of the trial has precedence over the preset, which would otherwise leave a searched parameter without effect.

    Raises:
        UserInputError: For an unknown preset, with the nearest one.
    """
    word = config.word("augmentation")
    check_choice("there is no augmentation", word, PRESETS)
    values = resolve_preset(word, config.whole("image_size"))
    own = {name: value for name, value in values.items() if name not in config.hyperparameters}
    return replace(config, fixed={**config.fixed, **own}) if own else config


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
    pixels = resize_batch(images, image_size, interpolation)
    return _layout(_normalize(pixels, mean, std), channels_last)


def augment_batch(
    images: Tensor, labels: Tensor, *, generator: torch.Generator, settings: AugmentationSettings, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return augmented inputs (B, 3, S, S) float32 and their soft targets (B, K) float32, whose rows sum to 1.

    The order is: ring swap, flip, crop, rotation, pad-and-crop, TrivialAugment, brightness, contrast, saturation, hue,
    normalization, random erasing, and CutMix or MixUp, each in its module of this package. Crops are those of torchvision's
    RandomResizedCrop. Rotation mirrors the image at its border, which avoids black corners.

    Random numbers are drawn per image and per transformation, so that disabling one transformation does not change the others
    in the batch, except that CutMix, which draws its partners first, changes the crops. Ring swaps, pad-and-crop, TrivialAugment,
    color jitter, erasing and MixUp each draw from a generator of their own, derived from the state of `generator`, so that they
    change nothing in later batches either.

    Args:
        images: (B, H, W, 3) uint8.
        labels: (B,) int64 in [0, K).
        generator: Generator on the images' device, the only source of randomness.
        settings: Transformations to apply.
        num_classes: K.

    Raises:
        UserInputError: For an unknown interpolation.
    """
    seed = seed_of_state(generator)
    draws = torch.rand((7, len(images)), generator=generator, device=images.device)
    flip, angle, brightness, cutmix = draws[0], draws[1], draws[2], draws[3:]
    boxes = None
    if settings.cutmix_probability > 0:
        partners = torch.randperm(len(images), generator=generator, device=images.device)
        boxes = partners, cutmix, settings.cutmix_probability
    if settings.ring_swap_probability > 0:
        images = swap_rings(images, labels, settings.ring_swap_probability, torch_generator(seed, "ring_swap"))
    flipped = flip < settings.flip_probability
    rotates = settings.rotation_degrees > 0
    if settings.flip_probability > 0 and not rotates:
        images = torch.where(flipped[:, None, None, None], images.flip(2), images)
    pixels = _crop(images, generator, settings)
    if rotates:
        pixels = _rotate(pixels, (2 * angle - 1) * math.radians(settings.rotation_degrees), flipped)
    pixels = _move_and_recolor(pixels, brightness, settings, seed)
    inputs = _normalize(pixels, settings.mean, settings.std)
    if settings.erase_probability > 0:
        inputs = crops.erase_rectangles(inputs, settings.erase_probability, torch_generator(seed, "erasing"))
    targets = functional.one_hot(labels, num_classes).to(torch.float32)
    inputs, targets = mix_images(inputs, targets, boxes, settings, seed)
    return _layout(inputs, settings.channels_last), targets


def _move_and_recolor(pixels: Tensor, brightness: Tensor, settings: AugmentationSettings, seed: int) -> Tensor:
    """Pad and crop, apply TrivialAugment and jitter the colors of (B, 3, S, S) pixels in [0, 255], which may be changed.

    Args:
        pixels: The images.
        brightness: (B,) uniform in [0, 1).
        settings: Transformations to apply.
        seed: Of the draws of the other transformations.
    """
    if settings.crop_padding > 0:
        generator = torch_generator(seed, "pad_and_crop")
        pixels = crops.pad_and_crop(pixels, settings.crop_padding, settings.crop_padding_mode, generator)
    if settings.trivial_augment:
        pixels = trivially_augment(pixels, torch_generator(seed, "trivial_augment"))
    if settings.brightness_fraction > 0:
        factors = 1 + (2 * brightness - 1) * settings.brightness_fraction
        pixels = pixels.mul_(factors[:, None, None, None]).clamp_(max=255.0)
    if max(settings.contrast_fraction, settings.saturation_fraction, settings.hue_fraction) == 0:
        return pixels
    return jitter_colors(pixels, settings, torch_generator(seed, "color_jitter"))


def _crop(images: Tensor, generator: torch.Generator, settings: AugmentationSettings) -> Tensor:
    """Return a random crop of each image, or all of it if crops are disabled: a new (B, 3, S, S) float32 tensor in [0, 255]."""
    if settings.crop_min_area >= 1:
        return resize_batch(images, settings.image_size, settings.interpolation)
    check_choice("there is no interpolation", settings.interpolation, INTERPOLATIONS)
    draws = torch.rand((crops.NUM_CROP_DRAWS, len(images)), generator=generator, device=images.device)
    (height, width), area, ratio = images.shape[1:3], settings.crop_min_area, settings.crop_max_ratio
    boxes = crops.choose_crops(draws, height, width, min_area=area, max_ratio=ratio, content=find_content(images))
    return crops.resize_crops(images, boxes, settings.image_size, settings.interpolation)


def resize_batch(images: Tensor, image_size: int, interpolation: str) -> Tensor:
    """Return a new (B, 3, S, S) float32 tensor in [0, 255] of (B, H, W, 3) images, resized with antialiasing."""
    check_choice("there is no interpolation", interpolation, INTERPOLATIONS)
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
