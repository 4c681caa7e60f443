"""The frequency audit on images with and without class-specific waves, for models that are known."""

from collections.abc import Callable

import numpy as np
import pytest

from analysis.shortcuts.frequency_audit import FrequencyMeasurement, find_waves, judge_frequencies, swap_waves
from analysis.shortcuts.swaps import AuditImages, SwapEffects
from analysis.shortcuts.values import AuditVerdict, FrequencyAudit
from tests.analysis.shortcuts.audited import audit_frequencies, audit_rings, with_errors
from trainables.data.sources.planted_scenes import make_planted_scenes

K, SIDE = 4, 32
PERIODS = np.array([3, 5, 7, 9])


def make_images(num_images: int = 480, amplitude: float = 8.0, seed: int = 0) -> AuditImages:
    """Return noise with a faint vertical wave of the class's own frequency, at a random phase."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % K
    y = np.arange(SIDE) / SIDE
    phase = rng.random(num_images)
    waves = np.sin(2 * np.pi * (PERIODS[labels][:, None] * y + phase[:, None]))
    gray = 128 + amplitude * waves[:, :, None] + rng.normal(0, 12, (num_images, SIDE, SIDE))
    images = np.repeat(np.clip(np.rint(gray), 0, 255).astype(np.uint8)[..., None], 3, axis=3)
    return AuditImages(images=images, labels=labels, class_names=("a", "b", "c", "d"))


def predict_by_wave(images: np.ndarray) -> np.ndarray:
    """Return the predictions of three models that classify by the wave, with random errors."""
    power = np.abs(np.fft.fft(images[..., 0].mean(axis=2), axis=1))[:, PERIODS]
    return with_errors(power.argmax(axis=1), K)


def audit(audit_images: AuditImages, classify: Callable[[np.ndarray], np.ndarray] = predict_by_wave) -> FrequencyAudit:
    """Return the audit of a sufficient number of images."""
    found = audit_frequencies(classify, audit_images)
    assert found is not None
    return found


def test_the_waves_that_separate_classes_are_found() -> None:
    chosen = find_waves(make_images(), 4)
    assert sorted(zip(*np.nonzero(chosen), strict=True)) == sorted((u % SIDE, 0) for p in PERIODS for u in (p, -p))


def test_a_model_that_relies_on_waves_fails_and_the_ring_audit_finds_less() -> None:
    found = audit(make_images())
    assert found.verdict is AuditVerdict.FAIL
    assert found.gap.models is not None
    assert found.gap.models.low > 0.5
    assert {(int(p), 0) for p in PERIODS} <= set(found.waves)
    assert audit_rings(predict_by_wave, make_images())[0].gap.estimate < found.gap.estimate / 2


def test_a_model_that_ignores_waves_passes_on_the_same_images() -> None:
    def guess(images: np.ndarray) -> np.ndarray:
        return np.tile(images[:, 0, 0, 0] % K, (3, 1)).astype(np.int64)

    # The corner pixel changes with the waves, but does not depend on the class.
    gaps = [audit(make_images(240, seed=seed), guess).gap.estimate for seed in range(12)]
    assert np.mean(gaps) == pytest.approx(0.0, abs=0.05)


def test_only_the_chosen_waves_are_swapped() -> None:
    audit_images = make_images(20)
    chosen = find_waves(make_images(), 4)
    donors = np.roll(audit_images.images, 1, axis=0)
    mixed = swap_waves(audit_images.images, donors, waves=chosen)
    spectra = [np.fft.fft2(x[..., 0].astype(float)) for x in (audit_images.images, donors, mixed)]
    # These waves are constant along a row, and so is the error of rounding to whole gray levels: 0.3 * 32 * sqrt(32).
    assert np.median(np.abs(spectra[2] - spectra[1])[:, chosen]) < 100
    assert np.median(np.abs(spectra[2] - spectra[0])[:, ~chosen]) < 15
    assert np.median(np.abs(spectra[1] - spectra[0])[:, chosen]) > 1000


def test_planted_sinusoids_are_found_among_objects() -> None:
    scenes = make_planted_scenes(seed=1, num_images=800, shortcuts={"sinusoid": 1.0}).image_set
    audit_images = AuditImages(images=scenes.images, labels=scenes.labels, class_names=scenes.class_names)
    chosen = find_waves(audit_images, 10)
    expected = {(p, 0) for p in (3, 5, 7, 9, 11)} | {(0, p) for p in (3, 5, 7, 9, 11)}
    assert sum(bool(chosen[u, v]) for u, v in expected) >= 9


def test_too_few_images_are_not_audited() -> None:
    assert audit_frequencies(predict_by_wave, make_images(3 * K)) is None
    assert audit_frequencies(predict_by_wave, make_images(4 * K)) is not None


def test_a_shortcut_of_one_class_in_ten_fails_although_the_mean_over_classes_passes() -> None:
    """40 pp in one of ten classes are 4 pp on average, below the tolerance."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 400)
    gaps = np.zeros((3, len(labels)))
    gaps[:, labels == 7] = rng.random((3, 400)) < 0.4
    effects = SwapEffects(values=gaps, labels=labels, class_names=tuple("abcdefghij"))
    found = judge_frequencies(FrequencyMeasurement(waves=((3, 0),), gaps=effects))
    assert found.gap.models.high < 0.05
    assert [c.class_name for c in found.classes if c.verdict is AuditVerdict.FAIL] == ["h"]
    assert [c.class_name for c in found.classes if c.verdict is AuditVerdict.PASS] == list("abcdefgij")
    assert (found.verdict, found.recipe_verdict) == (AuditVerdict.FAIL, AuditVerdict.FAIL)


def test_the_wave_of_one_class_in_ten_is_found() -> None:
    """Its F statistic over all classes is a tenth of that of waves that all classes have."""
    rng = np.random.default_rng(1)
    labels = np.arange(250) % 10
    y = np.arange(SIDE) / SIDE
    # All images have noise that fades horizontally; one class has a faint wave besides.
    wave = 3 * np.sin(2 * np.pi * (7 * y[None] + rng.random((250, 1)))) * (labels == 4)[:, None]
    gray = 128 + rng.normal(0, 12, (250, SIDE, SIDE)) + wave[:, :, None]
    images = np.repeat(np.clip(np.rint(gray), 0, 255).astype(np.uint8)[..., None], 3, axis=3)
    chosen = find_waves(AuditImages(images=images, labels=labels, class_names=tuple("abcdefghij")), 1)
    assert np.argwhere(chosen).tolist() == [[7, 0], [SIDE - 7, 0]]


def test_one_model_is_audited_for_itself() -> None:
    found = audit(make_images(), lambda images: predict_by_wave(images)[:1])
    assert (found.verdict, found.recipe_verdict) == (AuditVerdict.FAIL, None)
    assert found.gap.recipe is None
