"""Random crops: distributed as torchvision's, resampled as torchvision's, and without influence on the other augmentations."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, RandomResizedCrop, functional

from tests.trainables.data.augmentation.changed_settings import change
from tests.trainables.data.augmentation.test_pipeline import (
    EVERYTHING,
    NUM_CLASSES,
    OFF,
    augment,
    make_images,
    make_labels,
    to_pixels,
)
from trainables.data.augmentation.crops import NUM_CROP_DRAWS, choose_crops, resize_crops
from trainables.data.augmentation.pipeline import augment_batch
from trainables.data.image_array import PAD_COLOR

NUM_BOXES = 4000
CROPS = change(OFF, crop_min_area=0.3)


def choose(num: int, height: int, width: int, min_area: float, max_ratio: float, seed: int = 0) -> Tensor:
    draws = torch.rand((NUM_CROP_DRAWS, num), generator=torch.Generator().manual_seed(seed))
    return choose_crops(draws, height, width, min_area=min_area, max_ratio=max_ratio)


def test_crops_of_padded_images_hold_as_much_content_as_they_can() -> None:
    draws = torch.rand((NUM_CROP_DRAWS, NUM_BOXES), generator=torch.Generator().manual_seed(0))
    content = torch.tensor([[24, 0, 16, 64]]).expand(NUM_BOXES, 4)
    boxes = choose_crops(draws, 64, 64, min_area=0.02, max_ratio=4 / 3, content=content)
    plain = choose_crops(draws, 64, 64, min_area=0.02, max_ratio=4 / 3)
    assert torch.equal(boxes[:, 2:], plain[:, 2:]), "sizes are those of other images"
    assert torch.equal(boxes[:, 1], plain[:, 1]), "nothing is padded from left to right"
    top, height = boxes[:, 0], boxes[:, 2]
    inside = torch.minimum(top + height, torch.tensor(40.0)) - torch.maximum(top, torch.tensor(24.0))
    assert torch.equal(inside, height.clamp(max=16))
    assert ((top >= 0) & (top + height <= 64)).all()
    low, high = torch.stack([torch.full_like(height, 24), 40 - height]).sort(dim=0).values
    low, high = low.clamp(min=0), torch.minimum(high, 64 - height)
    free = (high - low >= 12).numpy()
    places = ((top - low + 0.5) / (high - low + 1)).numpy()[free]
    assert kstest(places, "uniform").statistic < 0.08
    whole = torch.tensor([[0, 0, 64, 64]]).expand(NUM_BOXES, 4)
    assert torch.equal(choose_crops(draws, 64, 64, min_area=0.02, max_ratio=4 / 3, content=whole), plain)


def test_training_sees_crops_of_the_content() -> None:
    """Of crops of a fiftieth of the area at any place, many would be padding alone."""
    images = make_images(64)
    padded = torch.tensor(PAD_COLOR, dtype=torch.uint8).expand(images.shape).clone()
    height = images.shape[1]
    padded[:, height // 2 - 1 : height // 2 + 1] = 255
    settings = change(OFF, crop_min_area=0.02)
    shown, _ = augment(padded, settings)
    assert (to_pixels(shown).flatten(1).amax(dim=1) > 200).all()


def choose_by_torchvision(num: int, height: int, width: int, min_area: float, max_ratio: float) -> Tensor:
    transform = RandomResizedCrop(8, scale=(min_area, 1.0), ratio=(1 / max_ratio, max_ratio))
    image = torch.empty(3, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        found = [transform.make_params([image]) for _ in range(num)]
    return torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in found], dtype=torch.float32)


def assert_same_boxes(ours: Tensor, theirs: Tensor) -> None:
    """Boxes of (top, left, height, width) have the same distribution."""
    for name, of in {
        "area": lambda b: b[:, 2] * b[:, 3],
        "ratio": lambda b: b[:, 3] / b[:, 2],
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
    }.items():
        assert kstest(of(ours).numpy(), of(theirs).numpy()).pvalue > 0.01, name


@pytest.mark.parametrize(
    ("height", "width", "min_area", "max_ratio"),
    [(256, 256, 0.08, 4 / 3), (256, 256, 0.35, 4 / 3), (60, 90, 0.7, 4 / 3), (20, 90, 0.25, 4 / 3)],
)
def test_boxes_are_distributed_as_torchvisions(height: int, width: int, min_area: float, max_ratio: float) -> None:
    """In the last two cases, some or most of the boxes are the fallback."""
    ours = choose(NUM_BOXES, height, width, min_area, max_ratio)
    theirs = choose_by_torchvision(NUM_BOXES // 2, height, width, min_area, max_ratio)
    assert torch.equal(ours, ours.round())
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 2:] >= 1).all()
    assert (ours[:, :2] + ours[:, 2:] <= torch.tensor([height, width])).all()
    assert_same_boxes(ours, theirs)


def test_a_box_that_never_fits_is_the_largest_in_the_center() -> None:
    assert choose(3, 10, 100, 1.0, 4 / 3).tolist() == [[0.0, 43.0, 10.0, 13.0]] * 3
    assert choose(3, 100, 10, 1.0, 4 / 3).tolist() == [[43.0, 0.0, 13.0, 10.0]] * 3


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("height", "width", "size"), [(37, 37, 32), (24, 40, 32), (64, 64, 16)])
def test_a_crop_is_resized_as_by_torchvision(height: int, width: int, size: int, interpolation: str) -> None:
    images = make_images(40, max(height, width))[:, :height, :width]
    boxes = choose(40, height, width, 0.2, 2.0)
    boxes[0] = torch.tensor([0, 0, height, width])
    boxes[1] = torch.tensor([1, 2, 3, 1])
    found = resize_crops(images, boxes, size, interpolation)
    mode = InterpolationMode(interpolation)
    for image, box, crop in zip(images, boxes.int().tolist(), found, strict=True):
        expected = functional.resized_crop(
            image.permute(2, 0, 1).float(), *box, [size, size], interpolation=mode, antialias=True
        )
        torch.testing.assert_close(crop, expected.clamp(0, 255), rtol=0, atol=2e-3)


def test_without_crops_no_random_number_is_drawn_for_them() -> None:
    generator, expected = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    augment_batch(make_images(), make_labels(), generator=generator, settings=EVERYTHING, num_classes=NUM_CLASSES)
    torch.rand((7, 12), generator=expected)
    torch.randperm(12, generator=expected)
    assert torch.equal(generator.get_state(), expected.get_state())


def test_crops_do_not_change_the_draws_of_the_other_augmentations() -> None:
    """The targets show the partners and boxes of CutMix; a nearly whole crop shows flip and rotation."""
    images = make_images(64)
    plain, plain_targets = augment(images, EVERYTHING)
    inputs, targets = augment(images, change(EVERYTHING, crop_min_area=0.999, crop_max_ratio=1.0))
    assert torch.equal(targets, plain_targets)
    torch.testing.assert_close(inputs, plain, rtol=0, atol=1e-2)


def test_crops_differ_between_images_and_stay_in_range() -> None:
    image = make_images(1).expand(50, -1, -1, -1)
    inputs, _ = augment(image, change(CROPS, image_size=24))
    assert len(inputs.flatten(1).unique(dim=0)) > 40
    pixels = to_pixels(inputs)
    assert pixels.min() >= -1e-3
    assert pixels.max() <= 255 + 1e-3
    assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_a_crop_magnifies_its_content() -> None:
    """A horizontal ramp keeps its direction, and its slope shrinks with the crop's width."""
    ramp = torch.arange(32, dtype=torch.uint8)[None, None, :, None].expand(200, 32, 32, 3) * 8
    inputs, _ = augment(ramp, change(CROPS, image_size=32))
    rows = to_pixels(inputs)[:, 0, 16]
    shares = (rows[:, 24] - rows[:, 8]) / (16 * 8)
    assert 0.4 < shares.min() < 0.6
    assert shares.max() <= 1.0 + 1e-4
    assert shares.median() == pytest.approx(math.sqrt(0.65), abs=0.06)
