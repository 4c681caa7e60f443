"""Batched augmentation: effect of each transformation, independence of images, correct targets."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from analysis.shortcuts.swaps import swap_ring
from search_spaces.config import TrialConfig, Value
from search_spaces.designs import Arm
from search_spaces.errors import UserInputError
from search_spaces.settings import PRESET_KEYS, PRESETS
from search_spaces.space import CategoricalParameter, SearchSpace
from study.spec.setting_places import fix_what_presets_set
from tests.trainables.data.augmentation.changed_settings import change
from trainables.data.augmentation import pipeline
from trainables.data.augmentation.mixing import RING_FRACTIONS, choose_donors, make_ring, swap_rings
from trainables.data.augmentation.pipeline import AugmentationSettings, augment_batch
from trainables.data.image_array import PAD_COLOR
from trainables.data.padding import find_content

SIZE = 16
NUM_CLASSES = 4
OFF = pipeline.AugmentationSettings(
    image_size=SIZE,
    interpolation="bicubic",
    channels_last=True,
    crop_min_area=1.0,
    crop_max_ratio=4 / 3,
    flip_probability=0.0,
    rotation_degrees=0.0,
    brightness_fraction=0.0,
    cutmix_probability=0.0,
)
EVERYTHING = change(OFF, flip_probability=0.5, rotation_degrees=20.0, brightness_fraction=0.3, cutmix_probability=0.5)


def make_images(num_images: int = 12, size: int = SIZE, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_images, size, size, 3), dtype=torch.uint8, generator=generator)


def make_labels(num_images: int = 12) -> Tensor:
    return torch.arange(num_images) % NUM_CLASSES


def augment(images: Tensor, changes: pipeline.AugmentationSettings, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = make_labels(len(images))
    return pipeline.augment_batch(images, labels, generator=generator, settings=changes, num_classes=NUM_CLASSES)


def prepare(images: Tensor, size: int = SIZE, interpolation: str = "bicubic", channels_last: bool = True) -> Tensor:
    return pipeline.prepare_batch(images, image_size=size, interpolation=interpolation, channels_last=channels_last)


def to_pixels(inputs: Tensor) -> Tensor:
    mean, std = torch.tensor(pipeline.IMAGENET_MEAN)[:, None, None], torch.tensor(pipeline.IMAGENET_STD)[:, None, None]
    return (inputs * std + mean) * 255


def test_native_size_is_only_normalized() -> None:
    images = make_images()
    torch.testing.assert_close(to_pixels(prepare(images)), images.permute(0, 3, 1, 2).float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("size", [SIZE, 24])
def test_layout_shape_and_dtype_match_the_settings(channels_last: bool, size: int) -> None:
    evaluated = prepare(make_images(), size, channels_last=channels_last)
    changes = change(EVERYTHING, channels_last=channels_last, image_size=size)
    trained, targets = augment(make_images(), changes)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for inputs in (evaluated, trained):
        assert inputs.shape == (12, 3, size, size)
        assert inputs.dtype == torch.float32
        assert inputs.is_contiguous(memory_format=layout)
    assert targets.shape == (12, NUM_CLASSES)


def test_bicubic_stays_within_the_range_it_would_overshoot() -> None:
    edge = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    edge[:, :, 4:] = 255
    free = torch.nn.functional.interpolate(
        edge.permute(0, 3, 1, 2).float(), size=(32, 32), mode="bicubic", antialias=True
    )
    assert free.min() < -1
    assert free.max() > 256
    pixels = to_pixels(prepare(edge, 32))
    assert pixels.min() >= -1e-3
    assert pixels.max() <= 255 + 1e-3


def test_downsampling_is_antialiased() -> None:
    stripes = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    stripes[:, :, ::4] = 255  # the two columns around each output position are black
    for interpolation in ("bicubic", "bilinear"):
        inner = to_pixels(prepare(stripes, 8, interpolation))[..., 2:-2]
        torch.testing.assert_close(inner, torch.full_like(inner, 255 / 4), rtol=0, atol=12)


def test_interpolations_differ_and_unknown_ones_are_refused() -> None:
    images = make_images()
    assert (prepare(images, 24, "bicubic") - prepare(images, 24, "bilinear")).abs().max() > 0.1
    with pytest.raises(UserInputError, match="did you mean 'bicubic'"):
        prepare(images, 24, "bicubik")


def test_without_augmentation_training_inputs_equal_evaluation_inputs() -> None:
    images = make_images()
    inputs, targets = augment(images, change(OFF, image_size=24))
    assert torch.equal(inputs, prepare(images, 24))
    assert torch.equal(targets, torch.nn.functional.one_hot(make_labels(), NUM_CLASSES).float())


def test_input_images_and_labels_are_not_changed() -> None:
    images = make_images()
    before = images.clone()
    augment(images, EVERYTHING)
    assert torch.equal(images, before)


def test_flip_twice_is_identity() -> None:
    images = make_images()
    once, _ = augment(images, change(OFF, flip_probability=1.0))
    twice, _ = augment(images.flip(2), change(OFF, flip_probability=1.0))
    assert torch.equal(once, prepare(images).flip(3))
    assert torch.equal(twice, prepare(images))


def test_flips_are_per_sample() -> None:
    images = make_images(400)
    plain = prepare(images)
    inputs, _ = augment(images, change(OFF, flip_probability=0.3))
    kept = (inputs == plain).flatten(1).all(1)
    flipped = (inputs == plain.flip(3)).flatten(1).all(1)
    assert (kept ^ flipped).all()
    assert 80 <= int(flipped.sum()) <= 160


def test_flip_with_rotation_is_the_same_flip() -> None:
    images = make_images()
    tiny = change(OFF, flip_probability=0.5, rotation_degrees=1e-4)
    rotated, _ = augment(images, tiny)
    plain, _ = augment(images, change(OFF, flip_probability=0.5))
    torch.testing.assert_close(rotated, plain, rtol=0, atol=1e-2)


@pytest.mark.parametrize("flip_probability", [0.0, 0.5, 1.0])
def test_rotation_turns_each_image_by_its_own_angle_about_the_center(flip_probability: float) -> None:
    dot = torch.zeros(200, 33, 33, 3, dtype=torch.uint8)
    dot[:, 15:18, 26:29] = 255  # 11 px right of the center
    inputs, _ = augment(dot, change(OFF, image_size=33, rotation_degrees=30.0, flip_probability=flip_probability))
    weight = to_pixels(inputs).mean(1).clamp_min(0)
    position = torch.arange(33) - 16.0
    total = weight.sum((1, 2))
    x = (weight.sum(1) * position).sum(1) / total
    y = (weight.sum(2) * position).sum(1) / total
    angles = torch.rad2deg(torch.atan2(y, x.abs()))
    assert (x < 0).float().mean() == pytest.approx(flip_probability, abs=0.1)
    torch.testing.assert_close(torch.hypot(x, y), torch.full((200,), 11.0), rtol=0, atol=0.3)
    assert angles.abs().max() <= 31
    assert angles.max() > 20
    assert angles.min() < -20
    assert len(angles.round().unique()) > 30


def test_rotation_leaves_no_black_corners() -> None:
    white = torch.full((20, SIZE, SIZE, 3), 255, dtype=torch.uint8)
    inputs, _ = augment(white, change(OFF, rotation_degrees=45.0))
    torch.testing.assert_close(to_pixels(inputs), torch.full((20, 3, SIZE, SIZE), 255.0), rtol=0, atol=1e-2)


def test_brightness_multiplies_each_image_by_its_own_factor() -> None:
    images = make_images(300) // 2 + 20  # at most 147, so that 1.3 x stays below 255
    inputs, _ = augment(images, change(OFF, brightness_fraction=0.3))
    ratios = to_pixels(inputs) / images.permute(0, 3, 1, 2)
    factors = ratios.mean((1, 2, 3))
    torch.testing.assert_close(ratios, factors[:, None, None, None].expand_as(ratios), rtol=0, atol=1e-3)
    assert 0.7 - 1e-3 <= factors.min() < 0.75
    assert 1.25 < factors.max() <= 1.3 + 1e-3


def test_brightness_saturates() -> None:
    inputs, _ = augment(make_images(), change(OFF, brightness_fraction=0.9))
    assert to_pixels(inputs).max() <= 255 + 1e-3
    assert to_pixels(inputs).min() >= -1e-3


def test_images_do_not_influence_each_other_without_cutmix() -> None:
    images = make_images()
    changes = change(EVERYTHING, cutmix_probability=0.0, image_size=24)
    before, _ = augment(images, changes)
    images[3] = 0
    after, _ = augment(images, changes)
    same = (before == after).flatten(1).all(1)
    assert same.tolist() == [i != 3 for i in range(12)]


@given(size=st.sampled_from([8, 15, 32]), probability=st.sampled_from([0.3, 1.0]), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_cutmix_label_fraction_is_the_pixel_fraction(size: int, probability: float, seed: int) -> None:
    """Image i has the color i, which identifies the source of each pixel."""
    num_images = 24
    images = torch.arange(num_images, dtype=torch.uint8)[:, None, None, None].expand(-1, size, size, 3) * 10
    changes = change(OFF, image_size=size, cutmix_probability=probability)
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = pipeline.augment_batch(
        images, torch.arange(num_images), generator=generator, settings=changes, num_classes=num_images
    )
    origin = (to_pixels(inputs)[:, 0] / 10).round().long()
    shares = torch.nn.functional.one_hot(origin, num_images).sum((1, 2)) / size**2
    torch.testing.assert_close(targets, shares.float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(targets.sum(1), torch.ones(num_images), rtol=0, atol=1e-6)
    for i in range(num_images):
        foreign = origin[i] != i
        rows, columns = foreign.any(1).sum(), foreign.any(0).sum()
        assert int(foreign.sum()) == int(rows * columns), "a box is a rectangle"
        assert len(origin[i][foreign].unique()) <= 1, "a box comes from one image"


def test_cutmix_mixes_the_configured_share_of_images() -> None:
    images = make_images(2000, size=8)
    changes = change(OFF, image_size=8, cutmix_probability=0.25)
    inputs, _ = augment(images, changes)
    share = float((inputs != prepare(images, 8)).flatten(1).any(1).float().mean())
    assert 0.15 < share < 0.27  # a quarter, less the boxes of no pixels


def test_cutmix_area_follows_beta_1_1_clipped_at_the_border() -> None:
    """Lambda is uniform, but boxes are clipped at the border, so their mean area is below one half."""
    images = make_images(4000, size=32)
    _, targets = pipeline.augment_batch(
        images,
        torch.arange(4000),
        generator=torch.Generator().manual_seed(1),
        settings=change(OFF, image_size=32, cutmix_probability=1.0),
        num_classes=4000,
    )
    area = 1 - targets.diagonal()
    root = torch.linspace(0, 1, 20001).sqrt()  # side of the box over the image's
    expected = float(((root - root**2 / 4) ** 2).mean())
    assert float(area.mean()) == pytest.approx(expected, abs=0.03)


def test_results_depend_on_the_generator_alone() -> None:
    images = make_images()
    first, second, other = augment(images, EVERYTHING), augment(images, EVERYTHING), augment(images, EVERYTHING, 1)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_disabling_one_transformation_keeps_the_draws_of_the_others() -> None:
    images = make_images(64)
    without, _ = augment(images, change(OFF, flip_probability=0.5))
    mixed, _ = augment(images, change(OFF, flip_probability=0.5, cutmix_probability=0.2))
    assert (mixed == without).flatten(1).all(1).sum() > 40


def test_global_random_state_is_not_changed() -> None:
    before = torch.get_rng_state()
    augment(make_images(), EVERYTHING)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_gpu_evaluation_inputs_equal_the_cpus() -> None:
    images = make_images()
    for size in (SIZE, 24):
        torch.testing.assert_close(prepare(images.cuda(), size).cpu(), prepare(images, size), rtol=0, atol=1e-3)


RING_SIZE = 32
# Unequal classes, not in their order.
LABELS = torch.tensor([3, 0, 0, 1, 0, 0, 1, 0, 0, 3, 0, 0])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def number_pixels(num_images: int) -> Tensor:
    """Return images whose pixels all have the image's number as their value."""
    return (
        torch.arange(num_images, dtype=torch.uint8)[:, None, None, None]
        .expand(-1, RING_SIZE, RING_SIZE, 3)
        .contiguous()
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_ring_is_another_class_and_the_inside_is_the_image(seed: int) -> None:
    images = number_pixels(len(LABELS))
    swapped = swap_rings(images, LABELS, 0.7, generator(seed))
    masks = [torch.from_numpy(make_ring(RING_SIZE, RING_SIZE, fraction)) for fraction in RING_FRACTIONS]
    assert torch.equal(images, number_pixels(len(LABELS)))
    for number, image in enumerate(swapped):
        corner = int(image[0, 0, 0])
        if corner == number:
            assert torch.equal(image, images[number])
            continue
        assert LABELS[corner] != LABELS[number]
        found = (image != number).all(2)
        assert any(torch.equal(found, mask) for mask in masks)
        assert (image[found] == corner).all()


@pytest.mark.parametrize("shape", [(RING_SIZE, RING_SIZE), (20, 33)])
def test_a_swapped_image_is_the_one_that_the_audit_would_make(shape: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (len(LABELS), *shape, 3), dtype=torch.uint8, generator=generator(1))
    swapped = swap_rings(images, LABELS, 1.0, generator())
    rings = [make_ring(*shape, fraction) for fraction in RING_FRACTIONS]
    widths = Counter[int]()
    for number, image in enumerate(swapped):
        others = (LABELS[number] != LABELS).nonzero()[:, 0].tolist()
        audits = [
            (width, swap_ring(images[number, None].numpy(), images[donor, None].numpy(), ring)[0])
            for donor in others
            for width, ring in enumerate(rings)
        ]
        (width,) = [width for width, audit in audits if (image.numpy() == audit).all()]
        widths[width] += 1
    assert set(widths) == {0, 1}


def test_a_swapped_image_with_padding_is_the_one_that_the_audit_would_make() -> None:
    images = torch.randint(0, 256, (len(LABELS), RING_SIZE, RING_SIZE, 3), dtype=torch.uint8, generator=generator(1))
    for number in range(len(images)):
        lost = torch.arange(RING_SIZE).sub(RING_SIZE // 2).abs() > 4 + number
        images[number][lost if number % 2 else slice(0)] = torch.tensor(PAD_COLOR, dtype=torch.uint8)
    swapped = swap_rings(images, LABELS, 1.0, generator())
    for number, image in enumerate(swapped):
        assert torch.equal(find_content(image[None]), find_content(images[number, None]))
        audits = [
            swap_ring(
                images[number, None].numpy(), images[donor, None].numpy(), make_ring(RING_SIZE, RING_SIZE, fraction)
            )[0]
            for donor in (LABELS[number] != LABELS).nonzero()[:, 0].tolist()
            for fraction in RING_FRACTIONS
        ]
        assert any((image.numpy() == audit).all() for audit in audits)


def test_donors_are_uniform_over_the_images_of_other_classes() -> None:
    draws = torch.rand((4000, len(LABELS)), generator=generator())
    donors = torch.stack([choose_donors(LABELS, row)[0] for row in draws])
    for number, label in enumerate(LABELS):
        counts = torch.bincount(donors[:, number], minlength=len(LABELS))
        assert not counts[label == LABELS].any()
        assert chisquare(counts[label != LABELS].numpy()).pvalue > 1e-3


def test_draws_at_both_ends_stay_within_the_batch() -> None:
    for draw in (0.0, 1.0 - 2**-24):
        for num_images in (2, 3, 7, 128, 1000):
            labels = torch.arange(num_images) % 2
            donors, has_donor = choose_donors(labels, torch.full((num_images,), draw))
            assert has_donor.all()
            assert (labels[donors] != labels).all()


def test_the_share_of_images_and_the_widths_are_as_declared() -> None:
    labels = torch.arange(4000) % 10
    numbers = torch.arange(4000, dtype=torch.int32)[:, None, None, None].expand(-1, RING_SIZE, RING_SIZE, 3)
    swapped = (swap_rings(numbers, labels, 0.3, generator(2)) != numbers)[..., 0]
    assert float(swapped[:, 0, 0].float().mean()) == pytest.approx(0.3, abs=0.03)
    wide = swapped[swapped[:, 0, 0]][:, 5, 5].float().mean()
    assert float(wide) == pytest.approx(0.5, abs=0.06)


def test_a_batch_of_one_class_stays_as_it_is() -> None:
    images = make_images(6, RING_SIZE)
    assert torch.equal(swap_rings(images, torch.full((6,), 4), 1.0, generator()), images)


def test_labels_stay_and_the_swap_comes_before_everything_else() -> None:
    """Without other transformations the inputs are those of the swapped images; with them, swapped images are augmented."""
    images, labels = make_images(24, RING_SIZE), torch.arange(24) % 4
    for start in (OFF, EVERYTHING):
        with_swaps = change(start, image_size=RING_SIZE, cutmix_probability=0.0, ring_swap_probability=1.0)
        inputs, targets = augment_batch(images, labels, generator=generator(3), settings=with_swaps, num_classes=4)
        assert torch.equal(targets.argmax(1), labels)
        assert torch.equal(targets.max(1).values, torch.ones(24))
        plain = augment(images, change(with_swaps, ring_swap_probability=0.0), seed=3)[0]
        # A flip and a rotation leave the middle in the middle.
        assert not torch.equal(inputs, plain)
        torch.testing.assert_close(inputs[..., 15:17, 15:17], plain[..., 15:17, 15:17])
        if start is OFF:
            assert torch.equal(inputs[..., 6:-6, 6:-6], prepare(images, RING_SIZE)[..., 6:-6, 6:-6])


@pytest.mark.parametrize("word", ["none", "light", "trivial", "strong"])
def test_presets_switch_it_off_unless_the_trial_searches_it(word: str) -> None:
    fixed = {"image_size": RING_SIZE, "interpolation": "bicubic", "channels_last": True, "augmentation": word}

    def read(hyperparameters: dict[str, float], **more: float) -> float:
        config = TrialConfig(arm="a", seed=0, hyperparameters=hyperparameters, fixed={**fixed, **more})
        return AugmentationSettings.from_config(config).ring_swap_probability

    assert read({}, ring_swap_probability=0.5) == 0.0
    assert read({"ring_swap_probability": 0.5}) == 0.5


def test_images_without_an_inside_are_refused() -> None:
    with pytest.raises(UserInputError, match="a ring of 1 pixels covers the whole image of 2x2"):
        swap_rings(make_images(4, 2), torch.arange(4), 1.0, generator())


@pytest.mark.gpu
def test_swaps_on_a_gpu_equal_the_cpus() -> None:
    images, labels = make_images(64, RING_SIZE), torch.arange(64) % 5
    on_gpu = swap_rings(images.cuda(), labels.cuda(), 0.6, generator())
    assert torch.equal(on_gpu.cpu(), swap_rings(images, labels, 0.6, generator()))


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


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("word", sorted(set(PRESETS) - {"default"}))
def test_the_pipeline_does_what_a_study_records_of_a_preset(word: str, size: int) -> None:
    """Every key that an arm's space names is fixed to the value that the pipeline takes."""
    fixed = {**FIXED, "image_size": size, "augmentation": word}
    found = AugmentationSettings.from_config(TrialConfig(arm="a", seed=0, hyperparameters={}, fixed=fixed))
    done = {name: getattr(found, name) for name in PRESET_KEYS}
    parameters = tuple(CategoricalParameter(name=name, choices=(value, "another")) for name, value in done.items())
    arm = Arm(name="a", space=SearchSpace(name="all", parameters=parameters))
    assert dict(fix_what_presets_set(arm, [word], [size], given=()).space.fixed) == done
    left = dict(fix_what_presets_set(arm, [word], [size, 2 * size], given=()).space.fixed)
    assert done.keys() - left.keys() == ({"crop_padding"} if word == "light" else set()), "it depends on the size"


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
