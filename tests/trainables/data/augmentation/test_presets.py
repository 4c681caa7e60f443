"""Presets of the augmentation: what a word sets, and what has precedence over it."""

from typing import Any

import pytest

from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError
from search_spaces.settings import PRESET_KEYS, PRESETS
from trainables.data.augmentation.pipeline import AugmentationSettings

FIXED: dict[str, Value] = {
    "image_size": 64,
    "interpolation": "bicubic",
    "channels_last": True,
    "crop_min_area": 0.5,
    "flip_probability": 0.5,
    "rotation_degrees": 10.0,
    "brightness_fraction": 0.2,
}


def read(fixed: dict[str, Value], **hyperparameters: Value) -> dict[str, Any]:
    """Return the settings of a configuration that differ from no augmentation at all."""
    config = TrialConfig(arm="a", seed=0, hyperparameters=hyperparameters, fixed=fixed)
    found = AugmentationSettings.from_config(config).model_dump()
    del found["mean"], found["std"]
    none = {**dict.fromkeys(found, False), **PRESETS["none"], **{k: FIXED[k] for k in list(FIXED)[:3]}}
    return {name: value for name, value in found.items() if value != none[name]}


def test_default_leaves_the_keys_as_they_are() -> None:
    given = {"crop_min_area": 0.5, "flip_probability": 0.5, "rotation_degrees": 10.0, "brightness_fraction": 0.2}
    assert read(FIXED, cutmix_probability=0.3) == {**given, "cutmix_probability": 0.3}
    assert read({**FIXED, "augmentation": "default"}, cutmix_probability=0.3) == {**given, "cutmix_probability": 0.3}


TRIVIAL = {"flip_probability": 0.5, "trivial_augment": True, "erase_probability": 0.1}


@pytest.mark.parametrize("in_hyperparameters", [False, True])
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("none", {}),
        ("light", {"flip_probability": 0.5, "crop_padding": 8}),
        ("trivial", TRIVIAL),
        ("strong", {**TRIVIAL, "mixup_probability": 0.5, "cutmix_probability": 0.5}),
    ],
)
def test_a_word_sets_every_key_whether_it_is_fixed_or_a_hyperparameter(
    word: str, expected: dict[str, Value], in_hyperparameters: bool
) -> None:
    if in_hyperparameters:
        assert read(FIXED, augmentation=word) == expected
    else:
        assert read({**FIXED, "augmentation": word}) == expected


def test_every_preset_sets_every_key_of_the_augmentation() -> None:
    sizes = {"image_size", "interpolation", "channels_last", "mean", "std"}
    assert set(AugmentationSettings.model_fields) == PRESET_KEYS | sizes
    for word, values in PRESETS.items():
        assert set(values) == (set() if word == "default" else PRESET_KEYS)


def test_a_hyperparameter_of_the_trial_has_precedence_over_the_preset() -> None:
    found = read({**FIXED, "augmentation": "strong"}, cutmix_probability=0.25, trivial_augment=False)
    assert found == {
        "flip_probability": 0.5,
        "erase_probability": 0.1,
        "mixup_probability": 0.5,
        "cutmix_probability": 0.25,
    }


def test_an_unknown_word_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserInputError, match=r"there is no augmentation 'strnog' \(did you mean 'strong'\?\)"):
        read({**FIXED, "augmentation": "strnog"})
