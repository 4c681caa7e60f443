"""Batched augmentation: effect of each transformation, independence of images, correct targets."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from search_spaces.errors import UserInputError
from tests.trainables.data.augmentation.changed_settings import change
from trainables.data.augmentation import pipeline

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
