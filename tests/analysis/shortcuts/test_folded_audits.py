"""Audits of the models of folds: each image is judged by the model that has not seen it, with donors of its own fold."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.shortcuts.ring_audit import measure_pull
from analysis.shortcuts.swap_audits import judge_swaps, measure_swaps
from analysis.shortcuts.swaps import AuditImages, draw_donors
from search_spaces.errors import UserInputError

K, SIDE, N = 3, 32, 240
# Gray levels of the images of the two folds, so that a corner shows the fold that a ring came from.
LEVELS = ((20, 60), (180, 220))


@pytest.fixture(scope="module")
def folded() -> AuditImages:
    generator = np.random.default_rng(0)
    folds = np.arange(N) // K % 2
    images = np.stack([generator.integers(*LEVELS[fold], (SIDE, SIDE, 3), dtype=np.uint8) for fold in folds])
    return AuditImages(images=images, labels=np.arange(N) % K, class_names=("a", "b", "c"), folds=folds)


def judge(images: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return (1, n) classes by one pixel of the ring, whose fold must be that of the model."""
    assert np.array_equal(images[:, 0, 0].mean(axis=1) > 120, folds == 1)
    return images[None, :, 0, 0, 0].astype(np.int64) % K


def test_every_image_is_judged_once_by_the_model_of_its_fold_with_donors_of_its_fold(folded: AuditImages) -> None:
    measured = measure_swaps(judge, folded, [(0, 1), (2, 0)])
    for ring in measured.rings:
        assert ring.gaps.values.shape == ring.ring_only.values.shape == (1, N)
        assert np.array_equal(ring.gaps.labels, folded.labels)
    assert [pull.pulls.values.shape for pull in measured.pulls] == [(1, N // K)] * 2
    assert measured.colors is not None
    assert measured.colors.values.shape == (1, N)
    assert measured.frequencies is not None
    found = judge_swaps(measured)
    assert {audit.recipe_verdict for audit in found.ring_audits} == {None}, "one model in all"


def test_donors_are_of_the_fold_and_a_fold_without_one_is_named(folded: AuditImages) -> None:
    assert folded.folds is not None
    for same_class in (True, False):
        donors = draw_donors(folded.labels, np.random.default_rng(1), 3, same_class=same_class, folds=folded.folds)
        assert (folded.folds[donors] == folded.folds).all()
        assert ((folded.labels[donors] == folded.labels) == same_class).all()
    labels, folds = np.array([0, 0, 1, 1, 0, 1, 1]), np.array([0, 0, 0, 0, 1, 1, 1])
    draw_donors(labels, np.random.default_rng(0), 1, same_class=True)
    with pytest.raises(UserInputError, match="class 0 has one"):
        draw_donors(labels, np.random.default_rng(0), 1, same_class=True, folds=folds)
    alone = AuditImages(images=folded.images[:7], labels=labels, class_names=("a", "b"), folds=folds)
    assert alone.find_partnered().tolist() == [0, 1, 2, 3]


def test_a_pull_is_measured_where_a_fold_has_both_rings(folded: AuditImages) -> None:
    assert folded.folds is not None
    one_sided = folded.take(np.flatnonzero((folded.folds == 0) | (folded.labels != 1)))
    assert measure_pull(judge, one_sided, 0, 1).pulls.values.shape == (1, N // K // 2)


def test_without_folds_models_are_asked_for_all_images(folded: AuditImages) -> None:
    def classify(images: np.ndarray) -> np.ndarray:
        return np.zeros((2, len(images)), dtype=np.int64)

    assert measure_swaps(classify, replace(folded, folds=None), []).rings[0].gaps.values.shape == (2, N)
    assert [len(own) for own in replace(folded, folds=None).divide(2)] == [N, N]
    assert np.array_equal(np.sort(np.concatenate(folded.divide(2))), np.arange(N))
