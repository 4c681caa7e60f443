"""The images that choose, and predicted changes of targets, with models that rely on one known cue."""

import numpy as np
import pytest

from analysis.interventions.intervention import ChoosingModels
from analysis.interventions.target_predictions import find_choosing, predict_without_cue, predict_without_reliance
from analysis.interventions.values import Target, TargetKind
from analysis.shortcuts.swaps import AuditImages, Images
from trainables.seeds import numpy_generator

NAMES = ("red", "green", "blue")
NUM_SEEDS = 3


def make_images(num: int = 240) -> AuditImages:
    """Return noise whose ring has the color of the class, except that half of the class "red" has the ring of "green"."""
    generator = numpy_generator(0, "images")
    labels = np.arange(num) % 3
    images = generator.integers(90, 160, (num, 32, 32, 3)).astype(np.uint8)
    shown = np.where((labels == 0) & (np.arange(num) % 2 == 0), 1, labels)
    ring = np.ones((32, 32), dtype=bool)
    ring[4:-4, 4:-4] = False
    for image, channel in zip(images, shown, strict=True):
        image[ring, channel] = 250
    return AuditImages(images=images, labels=labels.astype(np.int64), class_names=NAMES)


def read_ring(images: Images) -> np.ndarray:
    """Return (S, n, K) logits of models that read the color of the ring alone."""
    ring = images[:, :4].astype(np.float64).mean(axis=(1, 2))
    return np.stack([ring + 0.01 * seed for seed in range(NUM_SEEDS)])


def read_nothing(images: Images) -> np.ndarray:
    """Return logits of models that call every image "blue"."""
    return np.tile(np.array([0.0, 0.0, 1.0]), (NUM_SEEDS, len(images), 1))


def test_a_gap_that_would_vanish_is_predicted_as_a_reduction_by_all_of_it() -> None:
    target = Target(kind=TargetKind.RING_GAP, classes=("green", "blue"))
    found = predict_without_reliance(
        target, ChoosingModels(audit_images=make_images(), compute_logits=read_ring, seed=1)
    )
    assert found.high < -0.5
    none = predict_without_reliance(
        target, ChoosingModels(audit_images=make_images(), compute_logits=read_nothing, seed=1)
    )
    assert none.estimate == 0


@pytest.mark.parametrize("cue", [None, "context"])
def test_the_rate_without_the_cue_that_causes_the_confusion_falls(cue: str | None) -> None:
    target = Target(kind=TargetKind.CELLS, classes=("red",), cells=(("red", "green"),))
    models = ChoosingModels(audit_images=make_images(), compute_logits=read_ring, seed=1)
    found, removed = predict_without_cue(target, cue, models)
    assert removed in {"context", "color"}
    assert cue in (removed, None)
    assert found.estimate == pytest.approx(-0.5, abs=0.02)
    assert found.low < found.estimate < found.high < 0


def test_a_cue_that_nothing_depends_on_predicts_no_change() -> None:
    target = Target(kind=TargetKind.CELLS, classes=("red",), cells=(("red", "blue"),))
    models = ChoosingModels(audit_images=make_images(), compute_logits=read_nothing, seed=1)
    found, _ = predict_without_cue(target, "shape", models)
    assert found.estimate == 0
    assert found.low < 0 < found.high


def test_the_half_depends_on_seed_and_sample_id_alone() -> None:
    ids = np.arange(4000)
    choosing = find_choosing(ids, None, 5)
    assert abs(choosing.mean() - 0.5) < 0.03
    assert np.array_equal(find_choosing(ids[::-1], None, 5), choosing[::-1])
    assert np.array_equal(find_choosing(ids[100:200], None, 5), choosing[100:200])
    other = find_choosing(ids, None, 6)
    assert abs((other == choosing).mean() - 0.5) < 0.03


def test_images_of_one_group_are_in_one_half() -> None:
    ids = np.arange(1200)
    choosing = find_choosing(ids, ids // 4, 5).reshape(-1, 4)
    assert (choosing == choosing[:, :1]).all()
    assert abs(choosing.mean() - 0.5) < 0.1
