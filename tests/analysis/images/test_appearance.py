"""Blurred, dark, bright and odd-sized images stand out; an even set has none."""

import numpy as np
import pytest

from analysis.images.appearance import (
    compute_class_colors,
    compute_color_histograms,
    compute_mean_colors,
    compute_radial_power,
    compute_robust_z,
    compute_spectra,
    find_oddities,
    probe_colors,
)
from analysis.images.probe import choose_images
from trainables.data.image_array import PAD_COLOR


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


def test_color_coded_classes_are_predicted_by_color_and_shuffled_labels_are_not() -> None:
    generator = np.random.default_rng(0)
    labels = np.tile([0, 1], 60)
    images = generator.integers(60, 196, size=(120, 6, 6, 3), dtype=np.uint8)
    images[labels == 1, :, :, 0] += 50
    chosen = choose_images(np.arange(120), labels, None, num_images=120, seed=0)
    assert chosen is not None
    for found in probe_colors(images, chosen, are_gray=False):
        assert found.macro_f1.low > 0.9 > found.chance
    shuffled = choose_images(np.arange(120), generator.permutation(labels), None, num_images=120, seed=0)
    assert shuffled is not None
    for found in probe_colors(images, shuffled, are_gray=False):
        assert found.macro_f1.low < found.chance + 0.05


def test_class_colors_and_histograms_are_those_of_the_pixels() -> None:
    images = np.zeros((3, 2, 2, 3), dtype=np.uint8)
    images[0], images[1] = (200, 100, 0), (100, 100, 40)
    colors = compute_class_colors(images, np.arange(2), np.array([0, 0, 1]), 2)
    assert colors[0].tolist() == [150, 100, 20]
    assert np.isnan(colors[1]).all()
    histogram = compute_color_histograms(images, np.array([0]))[0]
    assert np.flatnonzero(histogram).tolist() == [6, 8 + 3, 16]
    assert histogram.sum() == 3


def test_padding_has_no_color() -> None:
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    images[:], images[1, 2:6] = PAD_COLOR, (200, 100, 0)
    images[0, :, 3:5] = (200, 100, 0)
    assert compute_mean_colors(images, np.arange(2)).tolist() == [[200, 100, 0]] * 2
    np.testing.assert_array_equal(*compute_color_histograms(images, np.arange(2)))
    brightness = next(odd for odd in find_oddities(images, np.arange(2), None) if odd.kind == "dark")
    assert brightness.median == pytest.approx(0.299 * 200 + 0.587 * 100, abs=1)


def test_the_power_of_a_wave_lies_at_its_frequency() -> None:
    columns = np.arange(64)
    wave = np.broadcast_to(100 + 50 * np.sin(2 * np.pi * columns / 8), (4, 64, 64))
    frequencies, power = compute_radial_power(wave)
    assert frequencies[power.argmax()] == 1 / 8
    assert power[frequencies > 0.2].max() < 1e-3 * power.max()


def test_bicubic_leaves_more_of_the_high_frequencies_than_bilinear() -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(8, 32, 32, 3), dtype=np.uint8)
    spectra = compute_spectra(images, 64)
    middle = (spectra.frequencies > 0.12) & (spectra.frequencies < 0.25)
    assert (spectra.gain()[middle] > 1.1).all()
