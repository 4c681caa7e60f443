"""Presets of the augmentation: one word, `train.augmentation`, that sets every key of it."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from search_spaces.config import TrialConfig, Value
from search_spaces.errors import check_choice
from search_spaces.settings import DEFAULTS, AugmentationKeys

DEFAULT = "default"

# What is not off by default.
_OFF: Mapping[str, Value] = MappingProxyType(
    dict.fromkeys(("flip_probability", "rotation_degrees", "brightness_fraction", "cutmix_probability"), 0.0)
)
_NONE: Mapping[str, Value] = MappingProxyType({**{n: DEFAULTS[n] for n in AugmentationKeys.model_fields}, **_OFF})
# Flips, TrivialAugmentWide, and erasing with the probability of torchvision's reference recipe.
_TRIVIAL: Mapping[str, Value] = MappingProxyType(
    {**_NONE, "flip_probability": 0.5, "trivial_augment": True, "erase_probability": 0.1}
)
# The words and the values that they set. A fingerprint holds the word alone, so that the values of a word never change.
PRESETS: Mapping[str, Mapping[str, Value]] = MappingProxyType(
    {
        DEFAULT: MappingProxyType({}),
        "none": _NONE,
        "light": MappingProxyType({**_NONE, "flip_probability": 0.5}),
        "trivial": _TRIVIAL,
        "strong": MappingProxyType({**_TRIVIAL, "mixup_probability": 0.5, "cutmix_probability": 0.5}),
    }
)
PRESET_KEYS = frozenset(_NONE)


def preset_values(word: str, image_size: int) -> dict[str, Value]:
    """Return the values that a preset sets: none for "default", all of `PRESET_KEYS` for the others.

    "light" flips, and pads by an eighth of the image's side before it crops: 4 pixels at 32, as He et al. 2016
    (https://arxiv.org/abs/1512.03385, section 4.2) do.

    Args:
        word: A key of `PRESETS`.
        image_size: Side of the model's input, in pixels.

    Raises:
        UserInputError: For an unknown word, with the nearest one.
    """
    check_choice("there is no augmentation", word, PRESETS)
    values = dict(PRESETS[word])
    return {**values, "crop_padding": image_size // 8} if word == "light" else values


def apply_preset(config: TrialConfig) -> TrialConfig:
    """Return `config` with the values that its preset sets in place of its fixed settings.

    A hyperparameter of the trial has precedence over the preset, which would otherwise leave a searched parameter without effect.

    Raises:
        UserInputError: For an unknown preset.
    """
    values = preset_values(config.word("augmentation"), config.whole("image_size"))
    own = {name: value for name, value in values.items() if name not in config.hyperparameters}
    return replace(config, fixed={**config.fixed, **own}) if own else config
