"""Inputs of a configuration's model: its size, interpolation and layout, and the normalization of its backbone."""

from torch import Tensor

from search_spaces.config import TrialConfig
from trainables.data.augmentation.pipeline import AugmentationSettings, prepare_batch
from trainables.models.catalog import read_backbone


def prepare_inputs(images: Tensor, config: TrialConfig) -> Tensor:
    """Return (B, 3, S, S) float32 inputs for evaluation.

    Args:
        images: (B, H, W, 3) uint8.
        config: Reads `backbone`, `image_size`, `interpolation` and `channels_last`.
    """
    backbone = read_backbone(config)
    return prepare_batch(
        images,
        image_size=config.whole("image_size"),
        interpolation=config.word("interpolation"),
        channels_last=bool(config["channels_last"]),
        mean=backbone.mean,
        std=backbone.std,
    )


def read_augmentation(config: TrialConfig) -> AugmentationSettings:
    """Return the augmentation of a configuration, with the normalization of its backbone."""
    backbone = read_backbone(config)
    return AugmentationSettings.from_config(config, backbone.mean, backbone.std)
