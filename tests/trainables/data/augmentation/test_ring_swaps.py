"""Ring swaps in training: rings of the audit's widths, from images of other classes, in the declared share of the images."""

from collections import Counter

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from analysis.shortcuts.swaps import swap_ring
from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from tests.trainables.data.augmentation.changed_settings import change
from tests.trainables.data.augmentation.test_pipeline import EVERYTHING, OFF, augment, make_images, prepare
from trainables.data.augmentation.mixing import RING_FRACTIONS, choose_donors, make_ring, swap_rings
from trainables.data.augmentation.pipeline import AugmentationSettings, augment_batch
from trainables.data.image_array import PAD_COLOR
from trainables.data.padding import find_content

SIZE = 32
# Unequal classes, not in their order.
LABELS = torch.tensor([3, 0, 0, 1, 0, 0, 1, 0, 0, 3, 0, 0])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def number_pixels(num_images: int) -> Tensor:
    """Return images whose pixels all have the image's number as their value."""
    return torch.arange(num_images, dtype=torch.uint8)[:, None, None, None].expand(-1, SIZE, SIZE, 3).contiguous()


@pytest.mark.parametrize("seed", range(20))
def test_the_ring_is_another_class_and_the_inside_is_the_image(seed: int) -> None:
    images = number_pixels(len(LABELS))
    swapped = swap_rings(images, LABELS, 0.7, generator(seed))
    masks = [torch.from_numpy(make_ring(SIZE, SIZE, fraction)) for fraction in RING_FRACTIONS]
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


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (20, 33)])
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
    images = torch.randint(0, 256, (len(LABELS), SIZE, SIZE, 3), dtype=torch.uint8, generator=generator(1))
    for number in range(len(images)):
        lost = torch.arange(SIZE).sub(SIZE // 2).abs() > 4 + number
        images[number][lost if number % 2 else slice(0)] = torch.tensor(PAD_COLOR, dtype=torch.uint8)
    swapped = swap_rings(images, LABELS, 1.0, generator())
    for number, image in enumerate(swapped):
        assert torch.equal(find_content(image[None]), find_content(images[number, None]))
        audits = [
            swap_ring(images[number, None].numpy(), images[donor, None].numpy(), make_ring(SIZE, SIZE, fraction))[0]
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
    numbers = torch.arange(4000, dtype=torch.int32)[:, None, None, None].expand(-1, SIZE, SIZE, 3)
    swapped = (swap_rings(numbers, labels, 0.3, generator(2)) != numbers)[..., 0]
    assert float(swapped[:, 0, 0].float().mean()) == pytest.approx(0.3, abs=0.03)
    wide = swapped[swapped[:, 0, 0]][:, 5, 5].float().mean()
    assert float(wide) == pytest.approx(0.5, abs=0.06)


def test_a_batch_of_one_class_stays_as_it_is() -> None:
    images = make_images(6, SIZE)
    assert torch.equal(swap_rings(images, torch.full((6,), 4), 1.0, generator()), images)


def test_labels_stay_and_the_swap_comes_before_everything_else() -> None:
    """Without other transformations the inputs are those of the swapped images; with them, swapped images are augmented."""
    images, labels = make_images(24, SIZE), torch.arange(24) % 4
    for settings in (OFF, EVERYTHING):
        with_swaps = change(settings, image_size=SIZE, cutmix_probability=0.0, ring_swap_probability=1.0)
        inputs, targets = augment_batch(images, labels, generator=generator(3), settings=with_swaps, num_classes=4)
        assert torch.equal(targets.argmax(1), labels)
        assert torch.equal(targets.max(1).values, torch.ones(24))
        plain = augment(images, change(with_swaps, ring_swap_probability=0.0), seed=3)[0]
        # A flip and a rotation leave the middle in the middle.
        assert not torch.equal(inputs, plain)
        torch.testing.assert_close(inputs[..., 15:17, 15:17], plain[..., 15:17, 15:17])
        if settings is OFF:
            assert torch.equal(inputs[..., 6:-6, 6:-6], prepare(images, SIZE)[..., 6:-6, 6:-6])


@pytest.mark.parametrize("word", ["none", "light", "trivial", "strong"])
def test_presets_switch_it_off_unless_the_trial_searches_it(word: str) -> None:
    fixed = {"image_size": SIZE, "interpolation": "bicubic", "channels_last": True, "augmentation": word}

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
    images, labels = make_images(64, SIZE), torch.arange(64) % 5
    on_gpu = swap_rings(images.cuda(), labels.cuda(), 0.6, generator())
    assert torch.equal(on_gpu.cpu(), swap_rings(images, labels, 0.6, generator()))
