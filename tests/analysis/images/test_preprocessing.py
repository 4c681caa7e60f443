"""Color predicts color-coded classes and nothing else; spectra show a planted wave, and what bilinear interpolation removes."""

import numpy as np
import pytest

from analysis.images.appearance import (
    compute_class_colors,
    compute_color_histograms,
    compute_mean_colors,
    compute_radial_power,
    compute_spectra,
    find_oddities,
    probe_colors,
)
from analysis.images.probe import choose_images
from trainables.data.image_array import PAD_COLOR


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
