"""Where in the ring a model reads, for models that read a known part of it."""

from collections.abc import Callable

import numpy as np
import pytest

from analysis.audits.ring_regions import ALL_AROUND, find_region, split_ring
from analysis.audits.ring_swaps import make_ring
from analysis.audits.swap_effects import AuditImages

K, SIDE = 4, 32
LEVELS = np.array([40, 100, 160, 220])
RING = make_ring(SIDE, SIDE, 4 / 32)


def make_images(num_images: int = 400) -> AuditImages:
    """Return images of one grey level each, their class's."""
    labels = np.arange(num_images) % K
    images = np.tile(LEVELS[labels][:, None, None, None], (1, SIDE, SIDE, 3)).astype(np.uint8)
    images[:, 10:22, 10:22] = np.random.default_rng(0).integers(0, 255, (num_images, 12, 12, 3))
    return AuditImages(images=images, labels=labels, class_names=("a", "b", "c", "d"))


def read_at(rows: slice | np.ndarray, columns: slice | np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return three models that say the class by the mean grey level of a place, wrong by chance now and then."""

    def classify(images: np.ndarray) -> np.ndarray:
        level = images[:, rows, columns, 0].reshape(len(images), -1).mean(axis=1)
        answer = np.abs(level[:, None] - LEVELS).argmin(axis=1)
        answers = []
        for seed in range(3):
            rng = np.random.default_rng(seed)
            answers.append(np.where(rng.random(len(images)) < 0.1, rng.integers(K, size=len(images)), answer))
        return np.stack(answers)

    return classify


def test_eight_parts_make_up_the_ring() -> None:
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
def test_the_part_that_is_read_is_named(rows: slice, columns: slice, region: str) -> None:
    assert find_region(read_at(rows, columns), make_images(), RING) == region


def test_a_model_that_reads_the_whole_ring_reads_all_around() -> None:
    rows, columns = np.nonzero(RING)
    assert find_region(read_at(rows, columns), make_images(), RING) == ALL_AROUND


def test_a_model_that_reads_one_side_first_but_the_rest_too_reads_all_around() -> None:
    """It reads the top side, and where that is swapped alone it is lost; but a swap of all the rest confuses it as well."""
    top, rest = read_at(slice(0, 4), slice(8, 24)), read_at(slice(8, 24), slice(0, 3))

    def classify(images: np.ndarray) -> np.ndarray:
        draw = np.random.default_rng(7).random(len(images)) < 0.55
        return np.where(draw, top(images), rest(images))

    assert find_region(classify, make_images(), RING) == ALL_AROUND


def test_swapping_the_rest_of_the_ring_costs_a_reader_of_one_corner_nothing() -> None:
    assert find_region(read_at(slice(0, 4), slice(28, 32)), make_images(), RING) == "top right corner"
