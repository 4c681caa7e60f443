"""Blurred, dark, bright and odd-sized images stand out; an even set has none."""

import numpy as np
import pytest

from analysis.images.appearance import compute_robust_z, find_oddities


def test_planted_images_stand_out() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(90, 166, size=(60, 24, 24, 3), dtype=np.uint8)
    images[5] = 128  # without any edge
    images[6] = images[6] // 20
    images[7] = 255 - images[7] // 20
    sizes = np.tile(np.array([[400, 300]], dtype=np.int32), (60, 1)) + generator.integers(
        -20, 20, size=(60, 2), dtype=np.int32
    )
    sizes[8], sizes[9], sizes[10] = (40, 30), (900, 100), (100, 900)
    found = {odd.kind: odd for odd in find_oddities(images, np.arange(60), sizes)}
    assert found["blurred"].sample_ids[0] == 5
    assert found["dark"].sample_ids == (6,)
    assert found["bright"].sample_ids == (7,)
    assert found["small"].sample_ids[0] == 8
    assert found["wide"].sample_ids == (9,)
    assert found["tall"].sample_ids == (10,)
    assert found["small"].values[0] == pytest.approx(1200**0.5)
    assert found["large"].num_beyond == 0


def test_images_of_one_size_have_no_odd_size_and_without_files_none_is_computed() -> None:
    images = np.random.default_rng(1).integers(0, 256, size=(30, 8, 8, 3), dtype=np.uint8)
    found = find_oddities(images, np.arange(30), np.full((30, 2), 8, dtype=np.int32))
    assert {odd.kind: odd.num_beyond for odd in found if odd.kind in ("small", "large", "wide", "tall")} == {
        "small": 0,
        "large": 0,
        "wide": 0,
        "tall": 0,
    }
    assert [odd.kind for odd in find_oddities(images, np.arange(30), None)] == ["blurred", "dark", "bright"]


def test_robust_scores_keep_the_outlier_visible() -> None:
    values = np.append(np.random.default_rng(2).normal(size=200), [50.0, 60.0])
    scores = compute_robust_z(values)
    assert scores[-2:].min() > 30
    assert np.std(scores[:-2]) == pytest.approx(1, abs=0.2)
    # More than half of the values are equal.
    assert compute_robust_z(np.array([1.0, 1.0, 1.0, 9.0]))[3] > 3
    assert compute_robust_z(np.ones(4)).tolist() == [0, 0, 0, 0]
