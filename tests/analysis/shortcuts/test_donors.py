"""Several donors per image: who gives to whom, and intervals that know that images and donors are a sample both."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from analysis.shortcuts.swaps import (
    AuditImages,
    SwapEffects,
    average_effects,
    bound_classes,
    bound_mean,
    draw_donors,
    measure_gaps,
)
from search_spaces.errors import UserInputError
from trainables.data.augmentation.mixing import make_ring

K, SIDE = 4, 8
NAMES = ("a", "b", "c", "d")
RING, CENTER = make_ring(SIDE, SIDE, 1 / 8), (SIDE // 2, SIDE // 2)


def draw_images(generator: np.random.Generator, each: int) -> AuditImages:
    """Return images whose ring and center each hold a class, a strength and a number for chance."""
    labels = np.repeat(np.arange(K), each)
    images = np.zeros((len(labels), SIDE, SIDE, 3), dtype=np.uint8)
    center, ring = generator.integers(256, size=(2, len(labels), 3))
    center[:, 0] = ring[:, 0] = labels
    images[:, *CENTER], images[:, RING] = center, ring[:, None]
    return AuditImages(images=images, labels=labels, class_names=NAMES)


def swap(images: np.ndarray, donors: np.ndarray) -> np.ndarray:
    return np.where(RING[..., None], donors, images)


def classify(images: np.ndarray) -> np.ndarray:
    """Two models, which need a strong center, a ring of its class that is not too weak, and luck that depends on both."""
    center, ring = images[:, *CENTER].astype(int), images[:, 0, 0].astype(int)
    helps = np.where(center[:, 0] == ring[:, 0], 1, -1)
    luck = (37 * center[:, 2] + 101 * ring[:, 2] + 7 * center[:, 2] * ring[:, 2]) % 256
    scores = [center[:, 1] + 2 * helps * (ring[:, 1] - 40) + weight * (luck - 128) for weight in (0.2, 0.3)]
    return np.stack([np.where(score > 60, center[:, 0], (center[:, 0] + 1) % K) for score in scores])


def simulate(num_donors: int, change: Callable[[SwapEffects], SwapEffects], number: int = 100) -> Iterator[SwapEffects]:
    for seed in range(number):
        generator = np.random.default_rng(seed)
        audited = draw_images(generator, 60)
        yield change(measure_gaps(classify, audited, swap, generator, num_donors=num_donors))


def measure_coverage(num_donors: int, *, ignores_donors: bool = False) -> tuple[float, float]:
    """Return the coverage of the intervals of the classes for these models, at 95 % each, and their mean width."""
    generator = np.random.default_rng(12345)
    many = draw_images(generator, 5000)
    truth = [
        measure_gaps(classify, many, swap, generator, num_donors=4).values[:, many.labels == c].mean() for c in range(K)
    ]
    hits, widths = [], []
    for effects in simulate(num_donors, lambda found: replace(found, by_donor=None) if ignores_donors else found):
        for true, found in zip(truth, bound_classes(effects, is_simultaneous=False).values(), strict=True):
            hits.append(found.models.low <= true <= found.models.high)
            widths.append(found.models.high - found.models.low)
    return float(np.mean(hits)), float(np.mean(widths))


def test_intervals_with_eight_donors_cover_and_are_narrower() -> None:
    coverage, width = measure_coverage(8)
    assert 0.925 <= coverage <= 0.985
    of_one, wide = measure_coverage(1)
    assert of_one >= 0.925
    assert width < 0.8 * wide
    too_sure, _ = measure_coverage(8, ignores_donors=True)
    assert too_sure < 0.94, "without the donors' part, the interval holds for other images with the same donors"


def test_the_error_of_the_mean_falls_with_the_donors_as_the_interval_says() -> None:
    for num_donors in (1, 8):
        found = list(simulate(num_donors, lambda effects: effects))
        spread = np.std([effects.values.mean() for effects in found])
        half = np.mean([bound_mean(effects).models.high - effects.values.mean() for effects in found])
        assert half == pytest.approx(1.96 * spread, rel=0.2)


def test_donors_are_other_images_each_of_as_many() -> None:
    labels = np.repeat(np.arange(3), [2, 5, 9])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        same, other = (draw_donors(labels, rng, 4, same_class=is_same) for is_same in (True, False))
        assert same.shape == other.shape == (4, len(labels))
        assert (labels[same] == labels).all()
        assert (same != np.arange(len(labels))).all()
        assert (labels[other] != labels).all()
        assert (np.bincount(same.ravel()) == 4).all()
        assert all(len(set(column)) == 4 for column in same[:, labels > 0].T.tolist()), "four others, all different"
        assert (same[:, 0] == 1).all(), "a class of two images has one donor for each"
    balanced = np.arange(60) % 3
    donors = draw_donors(balanced, np.random.default_rng(0), 5, same_class=False)
    assert (np.bincount(donors.ravel()) == 5).all()
    assert (balanced[donors] != balanced).all()


def test_every_class_without_donors_is_named() -> None:
    with pytest.raises(UserInputError, match="class 1, 3 has one"):
        draw_donors(np.array([0, 0, 1, 2, 2, 3]), np.random.default_rng(0), 8, same_class=True)
    with pytest.raises(UserInputError, match="only one class"):
        draw_donors(np.zeros(4, dtype=int), np.random.default_rng(0), 8, same_class=False)


def test_differences_and_means_of_effects_keep_what_each_donor_adds() -> None:
    generator = np.random.default_rng(0)
    audited = draw_images(generator, 30)

    def measure(models: slice) -> SwapEffects:
        return measure_gaps(lambda images: classify(images)[models], audited, swap, np.random.default_rng(1))

    first, second, both = (measure(models) for models in (slice(0, 1), slice(1, 2), slice(0, 2)))
    difference, mean = first.minus(second), average_effects([first, second])
    assert difference.by_donor is not None
    np.testing.assert_allclose(difference.by_donor.values.sum(axis=2), difference.values, atol=1e-12)
    np.testing.assert_allclose(mean.values[0], both.values.mean(axis=0))
    assert bound_mean(mean).models.low == pytest.approx(bound_mean(both).models.low)
    assert bound_mean(first.minus(first)).estimate == 0.0


def test_groups_of_copies_add_no_certainty() -> None:
    """Four copies of each image, in a group: as wide as the images alone, and twice as wide as if the copies were others."""
    generator = np.random.default_rng(3)
    alone = draw_images(generator, 40)
    copied = alone.take(np.repeat(np.arange(len(alone.labels)), 4))
    grouped = replace(copied, groups=np.repeat(np.arange(len(alone.labels)), 4))
    widths = []
    for audited in (alone, grouped, copied):
        found = bound_mean(measure_gaps(classify, audited, swap, np.random.default_rng(0))).models
        widths.append(found.high - found.low)
    assert widths[1] > 0.8 * widths[0]
    assert widths[2] < 0.7 * widths[1]
