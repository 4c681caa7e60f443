"""Pad-and-crop, TrivialAugment, color jitter and random erasing: equal to torchvision's, drawn per image, off by default."""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import chisquare, kstest
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from search_spaces.settings import AugmentationKeys
from tests.trainables.data.augmentation.changed_settings import change
from tests.trainables.data.augmentation.test_crops import assert_same_boxes
from tests.trainables.data.augmentation.test_pipeline import (
    EVERYTHING,
    NUM_CLASSES,
    OFF,
    SIZE,
    augment,
    make_images,
    make_labels,
    to_pixels,
)
from trainables.data.augmentation import colors
from trainables.data.augmentation.crops import (
    NUM_RECTANGLE_DRAWS,
    choose_rectangles,
    crop_padded,
    erase_rectangles,
    pad_and_crop,
)
from trainables.data.augmentation.pipeline import AugmentationSettings, augment_batch

NUM_BOXES = 4000
ADDITIONS: dict[str, Any] = {
    "crop_padding": 2,
    "trivial_augment": True,
    "contrast_fraction": 0.4,
    "saturation_fraction": 0.4,
    "hue_fraction": 0.1,
    "erase_probability": 0.5,
    "mixup_probability": 0.5,
    "ring_swap_probability": 0.5,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_pixels(num_images: int = 12, size: int = SIZE) -> Tensor:
    return make_images(num_images, size).permute(0, 3, 1, 2).float()


def test_without_additions_the_first_releases_pixels_and_random_numbers_come_out_bit_for_bit() -> None:
    """The digests are those of the code before the additions; none of these steps depends on the processor."""
    source, inputs = generator(5), []
    settings = change(EVERYTHING, rotation_degrees=0.0)
    for seed in range(2):
        images, labels = make_images(24, seed=seed), make_labels(24)
        inputs += augment_batch(images, labels, generator=source, settings=settings, num_classes=NUM_CLASSES)
    pixels = b"".join(tensor.contiguous().numpy().tobytes() for tensor in inputs)
    assert hashlib.sha256(pixels).hexdigest()[:16] == "4c6d1664b1226ab1"
    assert float(torch.rand((), generator=source)) == 0.6482668519020081


def test_resampling_without_additions_has_the_first_releases_brightness() -> None:
    """Means of the images of the second batch; interpolation may differ in the last bits from processor to processor."""
    source = generator(5)
    for seed in range(2):
        images = make_images(24, seed=seed)
        settings = change(EVERYTHING, crop_min_area=0.3)
        inputs, _ = augment_batch(images, make_labels(24), generator=source, settings=settings, num_classes=NUM_CLASSES)
    torch.testing.assert_close(
        inputs.mean((1, 2, 3))[:4], torch.tensor([0.8559, -0.334, 0.6713, 0.0184]), rtol=0, atol=2e-4
    )


@pytest.mark.parametrize("name", ADDITIONS)
def test_an_addition_changes_no_random_number_of_the_others(name: str) -> None:
    """In the same batch and in the next; the images that erasing and MixUp leave alone stay as they are."""
    others = {k: v for k, v in ADDITIONS.items() if k != name and k in ("erase_probability", "mixup_probability")}
    without = change(EVERYTHING, **others)
    with_it = change(without, **{name: ADDITIONS[name]})
    first, second = generator(3), generator(3)
    for seed in range(2):
        images, labels = make_images(32, seed=seed), torch.arange(32)
        kept, targets = augment_batch(images, labels, generator=first, settings=without, num_classes=32)
        changed, new = augment_batch(images, labels, generator=second, settings=with_it, num_classes=32)
        assert torch.equal(first.get_state(), second.get_state())
        assert (changed != kept).any()
        if name == "mixup_probability":
            same = (targets == new).all(1)
            assert 5 < int(same.sum()) < 32
            assert torch.equal(changed[same], kept[same])
        else:
            assert torch.equal(targets, new)
        if name == "erase_probability":
            assert 0.05 < float(((changed == 0) & (kept != 0)).float().mean()) < 0.3


@pytest.mark.parametrize("name", ADDITIONS)
def test_additions_are_drawn_again_in_each_batch_and_continue_with_a_restored_state(name: str) -> None:
    settings = change(OFF, **{name: ADDITIONS[name]})
    source, images, labels = generator(1), make_images(24), make_labels(24)
    first, _ = augment_batch(images, labels, generator=source, settings=settings, num_classes=NUM_CLASSES)
    state = source.get_state()
    second, _ = augment_batch(images, labels, generator=source, settings=settings, num_classes=NUM_CLASSES)
    restored = torch.Generator()
    restored.set_state(state)
    again, _ = augment_batch(images, labels, generator=restored, settings=settings, num_classes=NUM_CLASSES)
    assert not torch.equal(first, second)
    assert torch.equal(second, again)


def test_with_all_additions_layout_range_and_input_are_as_without() -> None:
    images = make_images()
    before = images.clone()
    for channels_last in (True, False):
        settings = change(EVERYTHING, **ADDITIONS, channels_last=channels_last, image_size=24)
        inputs, targets = augment(images, settings)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert inputs.shape == (12, 3, 24, 24)
        assert inputs.dtype == torch.float32
        assert inputs.is_contiguous(memory_format=layout)
        assert to_pixels(inputs).min() >= -1e-3
        assert to_pixels(inputs).max() <= 255 + 1e-3
        torch.testing.assert_close(targets.sum(1), torch.ones(12), rtol=0, atol=1e-6)
    assert torch.equal(images, before)


@pytest.mark.parametrize("mode", ["reflect", "zero"])
@pytest.mark.parametrize("padding", [1, 5, SIZE - 1])
def test_pad_and_crop_equals_torchvisions_at_the_same_position(mode: str, padding: int) -> None:
    pixels = make_pixels(40)
    offsets = torch.randint(0, 2 * padding + 1, (2, 40), generator=generator())
    offsets[:, 0], offsets[:, 1] = 0, 2 * padding
    padded = functional.pad(pixels, [padding], padding_mode="reflect" if mode == "reflect" else "constant")
    for image, (top, left), found in zip(
        padded, offsets.T.tolist(), crop_padded(pixels, offsets, padding, mode), strict=True
    ):
        assert torch.equal(found, functional.crop(image, top, left, SIZE, SIZE))


def test_positions_of_pad_and_crop_are_uniform_as_torchvisions() -> None:
    """A pixel whose value is its index tells the position of the crop."""
    padding, place = 3, torch.arange(SIZE * SIZE, dtype=torch.float32).view(1, 1, SIZE, SIZE)
    found = pad_and_crop(place.expand(NUM_BOXES, 3, -1, -1), padding, "zero", generator())[:, 0, 8, 8].long()
    counts = Counter((divmod(value, SIZE)) for value in found.tolist())
    assert set(counts) == {(8 + y, 8 + x) for y in range(-padding, padding + 1) for x in range(-padding, padding + 1)}
    assert chisquare(list(counts.values())).pvalue > 0.01


def test_a_padding_that_cannot_be_used_is_refused() -> None:
    def read(**changes: Any) -> AugmentationSettings:
        values = {"interpolation": "bicubic", "cutmix_probability": 0.0, "image_size": SIZE, **changes}
        return AugmentationSettings.from_config(TrialConfig(arm="a", seed=0, hyperparameters={}, fixed=values))

    with pytest.raises(
        UserInputError, match=r"crop_padding_mode: Input should be 'reflect' or 'zero', but got 'reflekt'"
    ):
        read(crop_padding_mode="reflekt")
    with pytest.raises(UserInputError, match=r"crop_padding < image_size \(16\) must hold, but got 16"):
        read(crop_padding=SIZE)
    assert read(crop_padding=SIZE - 1).crop_padding == SIZE - 1


def apply_published(image: Tensor, name: str, magnitude: float) -> Tensor:
    """Return torchvision's operation on a (3, S, S) uint8 image."""
    published = v2.TrivialAugmentWide()
    changed: Tensor = published._apply_image_or_video_transform(
        image, name, magnitude, published.interpolation, published._fill
    )
    return changed


@pytest.mark.parametrize("size", [20, 33, 40])
@pytest.mark.parametrize("number", range(len(colors.OPERATIONS)), ids=lambda number: colors.OPERATIONS[number].name)
def test_an_operation_equals_torchvisions(number: int, size: int) -> None:
    """At every strength, but for rounding in 1 of 10,000 values: there by one gray level, or a pixel beside it.

    Of "Color" in 1 of 1,000: a value that equals the gray stays, where torchvision may round it down.
    """
    operation = colors.OPERATIONS[number]
    strengths = sorted({s * m for m in operation.magnitudes for s in ((1, -1) if operation.signed else (1,))})
    images = make_images(len(strengths), size).permute(0, 3, 1, 2)
    images[0, 0] = 7
    found = colors.apply_operations(images.float(), [(number, strength) for strength in strengths])
    expected = torch.stack(
        [apply_published(image, operation.name, strength) for image, strength in zip(images, strengths, strict=True)]
    )
    differs = found != expected
    if operation.name not in colors.MOVES:
        assert (found - expected.float()).abs().max() <= 1
    assert float(differs.float().mean()) <= (1e-3 if operation.name == "Color" else 1e-4)


def test_operations_and_strengths_are_drawn_uniformly() -> None:
    drawn = colors.draw_operations(colors.NUM_BINS * 400, generator())
    assert chisquare(list(Counter(number for number, _ in drawn).values())).pvalue > 0.01
    assert {number for number, _ in drawn} == set(range(len(colors.OPERATIONS)))
    for number, operation in enumerate(colors.OPERATIONS):
        strengths = [magnitude for other, magnitude in drawn if other == number]
        if len(operation.magnitudes) == 1:
            assert set(strengths) == {0.0}
            continue
        expected = Counter(abs(m) for m in operation.magnitudes)
        counts = Counter(abs(m) for m in strengths)
        scale = len(strengths) / colors.NUM_BINS
        observed = [counts[value] for value in expected]
        assert chisquare(observed, [scale * share for share in expected.values()]).pvalue > 1e-3, operation.name
        negative = sum(m < 0 for m in strengths) / len(strengths)
        assert negative == pytest.approx(0.5 if operation.signed else 0.0, abs=0.07)


def test_each_image_passes_through_its_own_operation() -> None:
    pixels = make_pixels(100, 20) + 0.3
    found = colors.trivially_augment(pixels, generator(2))
    drawn = colors.draw_operations(100, generator(2))
    assert len({number for number, _ in drawn}) == len(colors.OPERATIONS)
    for image, operation, result in zip(pixels, drawn, found, strict=True):
        assert torch.equal(result, colors.apply_operations(image[None], [operation])[0])


@pytest.mark.parametrize(
    ("adjust", "published", "low", "high"),
    [
        (colors.adjust_contrast, functional.adjust_contrast, 0.0, 2.0),
        (colors.adjust_saturation, functional.adjust_saturation, 0.0, 2.0),
        (colors.adjust_hue, functional.adjust_hue, -0.5, 0.5),
    ],
)
def test_colors_are_adjusted_as_by_torchvision(
    adjust: Callable[[Tensor, Tensor], Tensor], published: Callable[[Tensor, float], Tensor], low: float, high: float
) -> None:
    """Within 0.01 of 255 gray levels, gray and saturated pixels included."""
    pixels = make_pixels(30)
    pixels[0] = pixels[0, :1]
    pixels[1] = (pixels[1] > 127) * 255.0
    factors = torch.linspace(low, high, 30)
    found = adjust(pixels, factors[:, None, None, None])
    for image, factor, result in zip(pixels, factors.tolist(), found, strict=True):
        torch.testing.assert_close(result, 255 * published(image / 255, factor), rtol=0, atol=0.01)


def test_color_jitter_draws_factors_uniformly_per_image_in_a_fixed_order() -> None:
    pixels = make_pixels(600, 8) / 4 + 96  # 96 to 160, so that nothing saturates

    def jitter(**fractions: float) -> Tensor:
        return colors.jitter_colors(pixels, AugmentationKeys(**fractions), generator(7))

    contrast = jitter(contrast_fraction=0.3).std((1, 2, 3)) / pixels.std((1, 2, 3))
    spread = jitter(saturation_fraction=0.3)
    saturation = (spread[:, 0] - spread[:, 1]).std((1, 2)) / (pixels[:, 0] - pixels[:, 1]).std((1, 2))
    for factors in (contrast, saturation):
        assert kstest(factors.numpy(), "uniform", args=(0.7, 0.6)).pvalue > 0.01
    together = jitter(contrast_fraction=0.3, saturation_fraction=0.3, hue_fraction=0.2)
    shift = (2 * torch.rand((3, 600), generator=generator(7)) - 1)[2] * 0.2
    expected = colors.adjust_saturation(
        colors.adjust_contrast(pixels, contrast[:, None, None, None]), saturation[:, None, None, None]
    )
    torch.testing.assert_close(together, colors.adjust_hue(expected, shift[:, None, None, None]), rtol=0, atol=0.05)


def test_a_gray_image_has_no_hue_and_saturation_to_change() -> None:
    gray = make_pixels()[:, :1].expand(-1, 3, -1, -1)
    changed = colors.jitter_colors(gray, AugmentationKeys(saturation_fraction=0.9, hue_fraction=0.5), generator())
    torch.testing.assert_close(changed, gray.contiguous(), rtol=0, atol=0.03)


@pytest.mark.parametrize("size", [32, 224])
def test_erased_rectangles_are_distributed_as_torchvisions(size: int) -> None:
    draws = torch.rand((NUM_RECTANGLE_DRAWS, NUM_BOXES), generator=generator())
    ours = choose_rectangles(draws, size, 1.0)
    transform, image = v2.RandomErasing(p=1.0), torch.empty(3, size, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        found = [transform.make_params([image]) for _ in range(NUM_BOXES // 2)]
    theirs = torch.tensor([[p["i"], p["j"], p["h"], p["w"]] for p in found], dtype=torch.float32)
    assert (ours[:, 2:] > 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= size).all()
    assert_same_boxes(ours, theirs)


def test_erasing_sets_one_rectangle_of_the_chosen_images_to_the_mean_color() -> None:
    inputs = torch.ones(NUM_BOXES // 4, 3, SIZE, SIZE)
    source = generator(4)
    rectangles = choose_rectangles(torch.rand((NUM_RECTANGLE_DRAWS, len(inputs)), generator=source), SIZE, 0.3)
    erased = erase_rectangles(inputs, 0.3, generator(4)) == 0
    share = float(erased.flatten(1).any(1).float().mean())
    assert share == pytest.approx(0.3, abs=0.05)
    for mask, (top, left, height, width) in zip(erased, rectangles.int().tolist(), strict=True):
        assert mask[:, top : top + height, left : left + width].all()
        assert int(mask.sum()) == 3 * height * width


def test_an_image_on_which_no_rectangle_fits_is_not_erased() -> None:
    """Areas and ratios are the largest: 0.33 of the image at 3.3 is higher than the image."""
    draws = torch.full((NUM_RECTANGLE_DRAWS, 2), 1.0 - 2**-24)
    draws[0] = 0.0
    assert choose_rectangles(draws, SIZE, 1.0).tolist() == [[0.0] * 4] * 2


@pytest.mark.gpu
def test_additions_on_a_gpu_equal_the_cpus() -> None:
    """The draws are the CPU's; nearest-neighbor resampling may take the next pixel where a position falls between two."""
    pixels = make_pixels(64, 24)
    fractions = AugmentationKeys(contrast_fraction=0.4, saturation_fraction=0.4, hue_fraction=0.2)
    steps: list[Callable[[Tensor], Tensor]] = [
        lambda batch: pad_and_crop(batch, 3, "reflect", generator()),
        lambda batch: colors.trivially_augment(batch, generator()),
        lambda batch: colors.jitter_colors(batch, fractions, generator()),
        lambda batch: erase_rectangles(batch.clone(), 0.5, generator()),
    ]
    for step in steps:
        difference = (step(pixels.cuda()).cpu() - step(pixels)).abs()
        assert float((difference > 0.01).float().mean()) < 0.02
