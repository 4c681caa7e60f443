"""The region of the ring that a model relies on, for models that use a known region."""

from collections.abc import Callable

import numpy as np
import pytest

from analysis.shortcuts.ring_regions import ALL_AROUND, measure_regions, name_region, split_ring
from analysis.shortcuts.swaps import AuditImages
from tests.analysis.shortcuts.audited import with_errors
from trainables.data.augmentation.mixing import make_ring

K, SIDE = 4, 32
LEVELS = np.array([40, 100, 160, 220])
RING = make_ring(SIDE, SIDE, 4 / 32)


def make_images(num_images: int = 400) -> AuditImages:
    """Return images whose gray level outside the object is that of their class."""
    labels = np.arange(num_images) % K
    images = np.tile(LEVELS[labels][:, None, None, None], (1, SIDE, SIDE, 3)).astype(np.uint8)
    images[:, 10:22, 10:22] = np.random.default_rng(0).integers(0, 255, (num_images, 12, 12, 3))
    return AuditImages(images=images, labels=labels, class_names=("a", "b", "c", "d"))


def read_at(rows: slice | np.ndarray, columns: slice | np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return three models that classify by the mean gray level of a region, with random errors."""

    def classify(images: np.ndarray) -> np.ndarray:
        level = images[:, rows, columns, 0].reshape(len(images), -1).mean(axis=1)
        return with_errors(np.abs(level[:, None] - LEVELS).argmin(axis=1), K)

    return classify


def find_region(
    classify: Callable[[np.ndarray], np.ndarray], audit_images: AuditImages, classes: tuple[int, ...] = (0, 1, 2, 3)
) -> str:
    """Return the region for models that fail in some classes."""
    failing = np.array(classes)
    return name_region(measure_regions(classify, audit_images, RING, (failing, failing)), failing)


def test_the_union_of_the_eight_regions_is_the_ring() -> None:
    parts = split_ring(RING)
    assert len(parts) == 8
    assert sum(part.astype(int) for part in parts.values()).tolist() == RING.astype(int).tolist()
    assert parts["top left corner"].sum() == 16
    assert parts["bottom side"][31, 16]
    assert parts["right side"][16, 31]


@pytest.mark.parametrize(
    ("rows", "columns", "region"),
    [
        (slice(0, 4), slice(0, 4), "top left corner"),
        (slice(28, 32), slice(28, 32), "bottom right corner"),
        (slice(8, 24), slice(0, 3), "left side"),
        (slice(29, 32), slice(8, 20), "bottom side"),
    ],
)
def test_the_region_in_use_is_named(rows: slice, columns: slice, region: str) -> None:
    assert find_region(read_at(rows, columns), make_images()) == region


def test_a_model_that_uses_the_whole_ring_uses_all_of_it() -> None:
    rows, columns = np.nonzero(RING)
    assert find_region(read_at(rows, columns), make_images()) == ALL_AROUND


def test_a_model_that_prefers_one_side_but_uses_the_rest_too_uses_all_of_it() -> None:
    """It loses when the top side is swapped alone, but also when all the rest is."""
    top, rest = read_at(slice(0, 4), slice(8, 24)), read_at(slice(8, 24), slice(0, 3))

    def classify(images: np.ndarray) -> np.ndarray:
        draw = np.random.default_rng(7).random(len(images)) < 0.55
        return np.where(draw, top(images), rest(images))

    assert find_region(classify, make_images()) == ALL_AROUND


def test_a_model_that_uses_one_corner_loses_nothing_when_the_rest_is_swapped() -> None:
    assert find_region(read_at(slice(0, 4), slice(28, 32)), make_images()) == "top right corner"
