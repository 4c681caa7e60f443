"""Spec files as people have them: saved on Windows, or a folder of images in place of a spec."""

from pathlib import Path

import pytest

from search_spaces.errors import UserInputError
from study.spec.reading import dump_spec, load_spec, parse_spec

SPEC = 'name = "s"\n[data]\nsource = "planted"\n'


def test_a_byte_order_mark_is_no_part_of_a_spec(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(SPEC, encoding="utf-8-sig")
    assert load_spec(str(tmp_path / "s.toml"))[0].name == "s"


def test_a_folder_of_images_is_no_spec_and_init_makes_one(tmp_path: Path) -> None:
    (tmp_path / "my photos").mkdir()
    with pytest.raises(
        UserInputError, match=r"is a folder, not a spec; `study init '.*my photos'` writes a spec for its images"
    ):
        load_spec(str(tmp_path / "my photos"))


WORDS = ("default", "none", "light", "trivial", "strong")


@pytest.fixture
def small(tmp_path: Path) -> str:
    file = tmp_path / "small.toml"
    file.write_text('name = "small"\n[data]\nsource = "planted"\n')
    return str(file)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.augmentation=trivail"], r"train.augmentation must be 'default', .*did you mean 'trivial'"),
        (["train.crop_padding=-1"], "train.crop_padding must be greater than or equal to 0, but got -1"),
        (["train.crop_padding=32", "train.image_size=32"], r"crop_padding < image_size \(32\) must hold"),
        (["train.crop_padding_mode=mirror"], "train.crop_padding_mode must be 'reflect' or 'zero'"),
        (["train.trivial_augment=2"], "train.trivial_augment must be a valid boolean"),
        (["train.hue_fraction=0.6"], "train.hue_fraction must be less than or equal to 0.5, but got 0.6"),
        (["train.contrast_fraction=1.0"], "train.contrast_fraction must be less than 1, but got 1.0"),
        (["train.saturation_fraction=-0.1"], "train.saturation_fraction must be greater than or equal to 0"),
        (["train.erase_probability=1.5"], "train.erase_probability must be less than or equal to 1, but got 1.5"),
        (["train.mixup_probability=1.5"], "train.mixup_probability must be less than or equal to 1, but got 1.5"),
        (["train.ring_swap_probability=-0.1"], "train.ring_swap_probability must be greater than or equal to 0"),
        (["train.mixup_alpha=0.0"], "train.mixup_alpha must be greater than 0, but got 0.0"),
    ],
)
def test_values_that_cannot_be_used_are_named_with_their_range(small: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        load_spec(small, overrides)


def test_keys_beside_a_preset_are_refused_even_at_their_default_values(small: str) -> None:
    overrides = ["train.flip_probability=0.5", "train.crop_padding=4", "train.momentum=0.8"]
    expected = (
        r'small.toml: augmentation "none" sets every key of the augmentation; remove {}, or use augmentation "default"$'
    )
    with pytest.raises(UserInputError, match=expected.format("train.crop_padding")):
        load_spec(small, ["train.augmentation=none", *overrides[1:]])
    with pytest.raises(UserInputError, match=expected.format("train.flip_probability")):
        load_spec(small, ["train.augmentation=none", overrides[0]])
    assert load_spec(small, overrides)[0].train.crop_padding == 4
    spec, text = load_spec(small, ["train.augmentation=none", overrides[2]])
    assert parse_spec(text, "spec.toml") == spec


def test_the_spec_of_a_study_holds_all_keys_and_can_be_launched_again(small: str, tmp_path: Path) -> None:
    again = tmp_path / "spec.toml"
    again.write_text(dump_spec(load_spec(small, ["train.augmentation=none"])[0]))
    assert load_spec(str(again))[0].train.augmentation == "none"


def test_keys_that_an_arm_with_default_uses_are_not_refused(small: str) -> None:
    overrides = ["search.factor=augmentation", "train.rotation_degrees=0.0"]
    spec, _ = load_spec(small, overrides)
    assert tuple(arm.name for arm in spec.arms()) == WORDS
    with pytest.raises(UserInputError, match=r'augmentation "none" and "light" sets .* remove train.rotation_degrees'):
        load_spec(small, [*overrides, 'search.ranges.augmentation=["none", "light"]'])


def test_a_preset_fixes_cutmix_in_its_arm_unless_the_spec_gives_it(small: str) -> None:
    overrides = ["search.factor=augmentation"]
    spaces = {arm.name: arm.space for arm in load_spec(small, overrides)[0].arms()}
    assert {name: dict(space.fixed).get("cutmix_probability") for name, space in spaces.items()} == {
        "default": None,
        "none": 0.0,
        "light": 0.0,
        "trivial": 0.0,
        "strong": 0.5,
    }
    assert "cutmix_probability" in spaces["default"].names
    given = load_spec(small, [*overrides, "search.ranges.cutmix_probability=[0.2, 0.4]"])[0].arms()
    assert all("cutmix_probability" in arm.space.names for arm in given)
    constant = load_spec(small, ["train.augmentation=none"])[0].arms()
    assert [dict(arm.space.fixed)["cutmix_probability"] for arm in constant] == [0.0, 0.0]
    pooled = load_spec(small, ['search.ranges.augmentation=["none", "strong"]', "search.allocation=pooled"])[0].arms()
    assert {"augmentation", "cutmix_probability"} <= set(pooled[0].space.names)
