"""The Clever Hans audit on images whose ring and center are known, for models that are known."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from analysis.shortcuts import swaps
from analysis.shortcuts.frequency_audit import bound_color_losses, measure_color_losses
from analysis.shortcuts.ring_audit import bound_pulls, measure_pull
from analysis.shortcuts.values import AuditVerdict
from analysis.statistics.interval import Interval, TwoIntervals
from search_spaces.errors import UserInputError
from tests.analysis.shortcuts.audited import audit_frequencies, audit_rings
from trainables.data.augmentation.mixing import make_ring

K, SIDE = 4, 32
NAMES = ("a", "b", "c", "d")
LEVELS = np.array([40, 100, 160, 220])


def make_images(rho: float, num_images: int = 480, seed: int = 0) -> swaps.AuditImages:
    """Return images whose center always shows the class; the ring shows it with probability rho, else a random class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % K
    shown = np.where(rng.random(num_images) < rho, labels, rng.integers(K, size=num_images))
    images = np.tile(LEVELS[labels][:, None, None, None], (1, SIDE, SIDE, 3)).astype(np.uint8)
    ring = make_ring(SIDE, SIDE, 6 / 32)
    images[:, ring] = LEVELS[shown][:, None, None]
    masks = np.zeros((num_images, SIDE, SIDE), dtype=bool)
    masks[:, 10:22, 10:22] = True
    return swaps.AuditImages(images=images, labels=labels, class_names=NAMES, masks=masks)


def read_ring(ring_share: float, num_seeds: int = 3) -> Callable[[np.ndarray], np.ndarray]:
    """Return models that classify a random share of the images by their ring, and the others by their center."""

    def classify(images: np.ndarray) -> np.ndarray:
        corner_and_center = images[:, [0, SIDE // 2], [0, SIDE // 2], :1].astype(int)
        by_ring, by_center = np.abs(corner_and_center - LEVELS).argmin(axis=2).T
        predictions = []
        for seed in range(num_seeds):
            draw = np.random.default_rng(seed).random(len(images))
            predictions.append(np.where(draw < ring_share, by_ring, by_center))
        return np.stack(predictions)

    return classify


def test_model_that_relies_on_the_ring_fails_and_is_confirmed_on_masks() -> None:
    for audit in audit_rings(read_ring(0.5), make_images(1.0)):
        assert audit.verdict is AuditVerdict.FAIL
        assert audit.gap.estimate == pytest.approx(0.5, abs=0.06)
        assert audit.object_free_by == "masks"
        assert audit.num_object_free == 480
        assert all(c.verdict is AuditVerdict.FAIL and c.is_confirmed for c in audit.classes)
        assert all(c.recipe_verdict is AuditVerdict.FAIL and c.recipe_confirmed for c in audit.classes)
        assert audit.ring_only_accuracy.recipe is not None
        assert audit.ring_only_accuracy.recipe.low > audit.chance
    assert [audit.ring_pixels for audit in audit_rings(read_ring(0.5), make_images(1.0))] == [4, 6]


def test_model_that_relies_on_the_object_passes_for_any_ring() -> None:
    for audit in audit_rings(read_ring(0.0), make_images(1.0)):
        assert audit.verdict is AuditVerdict.PASS
        assert audit.recipe_verdict is AuditVerdict.PASS
        assert audit.gap.estimate == 0.0
        assert all(c.is_confirmed is None and c.recipe_confirmed is None for c in audit.classes)


def test_ring_without_information_gives_no_gap_for_a_model_that_uses_it() -> None:
    """Using a ring that is independent of the class costs accuracy, but is no shortcut."""
    gaps = [audit_rings(read_ring(0.3), make_images(0.0, seed=s))[0].gap for s in range(12)]
    assert np.mean([gap.models.low <= 0 <= gap.models.high for gap in gaps]) >= 0.8
    assert np.mean([gap.estimate for gap in gaps]) == pytest.approx(0.0, abs=0.02)


def test_gap_grows_with_the_correlation() -> None:
    gaps = [audit_rings(read_ring(0.5), make_images(rho))[0].gap.estimate for rho in (0.0, 0.5, 0.8, 1.0)]
    assert gaps == sorted(gaps)


def test_failure_without_object_free_images_is_not_confirmed() -> None:
    audit_images = make_images(1.0)
    everywhere = swaps.AuditImages(
        images=audit_images.images,
        labels=audit_images.labels,
        class_names=NAMES,
        masks=np.ones_like(audit_images.images[..., 0], dtype=bool),
    )
    (narrow, _) = audit_rings(read_ring(0.5), everywhere)
    assert narrow.num_object_free == 0
    assert [c.object_free_gap for c in narrow.classes] == [None] * K
    assert [c.is_confirmed for c in narrow.classes] == [False] * K


def test_without_masks_the_images_with_the_fewest_edges_are_used() -> None:
    audit_images = make_images(1.0)
    noisy = audit_images.images.copy()
    ring = make_ring(SIDE, SIDE, 4 / 32)
    rough = np.arange(len(noisy)) % 3 != 0
    noisy[np.ix_(rough, *(np.arange(n) for n in (SIDE, SIDE, 3)))] += np.where(
        ring[:, :, None], (np.indices((SIDE, SIDE)).sum(axis=0) % 2 * 20)[:, :, None], 0
    ).astype(np.uint8)
    quiet = swaps.find_few_edges(noisy, audit_images.labels, ring)
    assert quiet.sum() == 160
    assert not (quiet & rough).any()
    (narrow, _) = audit_rings(
        read_ring(0.5), swaps.AuditImages(images=noisy, labels=audit_images.labels, class_names=NAMES)
    )
    assert narrow.object_free_by == "fewest edges in the ring"
    assert narrow.num_object_free == 160


def test_without_masks_a_failure_of_the_wide_ring_must_show_in_the_narrow_one() -> None:
    """Models that read an object at the border of the wide ring, where the narrow ring does not reach, are not confirmed."""

    def read_inner_border(images: np.ndarray) -> np.ndarray:
        predicted = np.abs(images[:, 5, 5, :1].astype(int) - LEVELS).argmin(axis=1)
        return np.stack([predicted, predicted, predicted])

    audit_images = make_images(1.0)
    blind = swaps.AuditImages(images=audit_images.images, labels=audit_images.labels, class_names=NAMES)
    for images, is_confirmed in ((blind, False), (audit_images, True)):
        narrow, wide = audit_rings(read_inner_border, images)
        assert narrow.verdict is AuditVerdict.PASS
        assert [c.verdict for c in wide.classes] == [AuditVerdict.FAIL] * K
        assert [c.is_confirmed for c in wide.classes] == [is_confirmed] * K
        assert [c.recipe_confirmed for c in wide.classes] == [is_confirmed] * K
    assert all(c.is_confirmed for ring in audit_rings(read_ring(1.0), blind) for c in ring.classes)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.051, 0.3, AuditVerdict.FAIL),
        (0.05, 0.3, AuditVerdict.UNDECIDED),
        (-0.2, 0.049, AuditVerdict.PASS),
        (-0.2, 0.05, AuditVerdict.UNDECIDED),
    ],
)
def test_verdict_follows_the_rule(low: float, high: float, verdict: AuditVerdict) -> None:
    assert swaps.judge_gap(Interval(estimate=(low + high) / 2, low=low, high=high)) is verdict


def test_pull_is_toward_the_class_of_the_ring() -> None:
    audit_images = make_images(1.0)
    pulls = bound_pulls([measure_pull(read_ring(0.5), audit_images, 0, other) for other in (1, 2)])
    assert [(pull.true_class, pull.ring_class) for pull in pulls] == [("a", "b"), ("a", "c")]
    for pull in pulls:
        assert pull.pull.estimate == pytest.approx(0.5, abs=0.1)
        assert pull.pull.recipe is not None
        assert 0.2 < pull.pull.recipe.low < pull.pull.recipe.high < 0.8
    assert bound_pulls([measure_pull(read_ring(0.0), audit_images, 0, 1)])[0].pull.estimate == 0


def test_ring_is_swapped_and_center_filled_pixel_by_pixel() -> None:
    rng = np.random.default_rng(0)
    images, donors = rng.integers(256, size=(2, 3, 12, 16, 3), dtype=np.uint8)
    ring = make_ring(12, 16, 0.2)
    assert ring.sum() == 12 * 16 - 8 * 12
    swapped = swaps.swap_ring(images, donors, ring)
    assert (swapped[:, ring] == donors[:, ring]).all()
    assert (swapped[:, ~ring] == images[:, ~ring]).all()
    filled = swaps.fill_center(images, ring, np.array([1, 2, 3], dtype=np.uint8))
    assert (filled[:, ~ring] == [1, 2, 3]).all()
    assert (filled[:, ring] == images[:, ring]).all()
    with pytest.raises(UserInputError, match="covers the whole image"):
        make_ring(8, 8, 0.5)


def test_color_loss_is_the_accuracy_that_gray_images_lose() -> None:
    labels = np.arange(240) % K
    hues = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [130, 130, 60]])
    images = np.tile(hues[labels][:, None, None], (1, SIDE, SIDE, 1)).astype(np.uint8)
    audit_images = swaps.AuditImages(images=images, labels=labels, class_names=NAMES)

    def classify(given: np.ndarray) -> np.ndarray:
        predicted = np.abs(given[:, 0, 0, None].astype(int) - hues).sum(axis=2).argmin(axis=1)
        # One model in three returns the labels without using the image.
        return np.stack([predicted, predicted, labels])

    losses = {
        found.class_name: found.loss for found in bound_color_losses(measure_color_losses(classify, audit_images))
    }
    assert set(losses) == set(NAMES)
    assert max(loss.estimate for loss in losses.values()) == pytest.approx(2 / 3)
    blind = bound_color_losses(measure_color_losses(lambda _: np.stack([labels, labels]), audit_images))
    assert {found.loss.estimate for found in blind} == {0.0}


def test_copies_of_an_image_in_one_group_add_no_certainty() -> None:
    labels, values = np.arange(160) % K, np.random.default_rng(0).integers(-1, 2, size=(3, 160)).astype(float)
    copied, groups = np.repeat(values, 4, axis=1), np.repeat(np.arange(160), 4)

    def bound(given: np.ndarray, own: np.ndarray, groups: np.ndarray | None = None) -> list[TwoIntervals]:
        effects = swaps.SwapEffects(values=given, labels=own, class_names=NAMES, groups=groups)
        return [swaps.bound_mean(effects), *swaps.bound_classes(effects).values()]

    alone = bound(values, labels)
    grouped, ignored = (bound(copied, np.repeat(labels, 4), found) for found in (groups, None))
    for one, same, narrow in zip(alone, grouped, ignored, strict=True):
        assert one.models is not None
        assert same.models is not None
        assert narrow.models is not None
        width = one.models.high - one.models.low
        # Not the same: with groups, the variance between them is estimated, and the quantile is that of Student's t.
        assert same.models.high - same.models.low == pytest.approx(width, rel=0.08)
        assert narrow.models.high - narrow.models.low == pytest.approx(width / 2, rel=0.1)


def test_a_class_of_one_group_is_undecided_and_does_not_stop_the_audits() -> None:
    audit_images = make_images(1.0, num_images=160)
    grouped = replace(audit_images, groups=np.where(audit_images.labels == 0, 1000, np.arange(160)))
    classify = read_ring(0.5)
    found = audit_rings(classify, grouped)[0]
    first = found.classes[0]
    assert first.gap.models is not None
    assert (first.gap.models.low, first.gap.models.high, first.verdict) == (-1.0, 1.0, AuditVerdict.UNDECIDED)
    assert found.classes[1].verdict is AuditVerdict.FAIL
    frequencies = audit_frequencies(classify, grouped)
    assert frequencies is not None
    pulls = bound_pulls([measure_pull(classify, grouped, one, 2) for one in (0, 1)])
    losses = bound_color_losses(measure_color_losses(classify, grouped))
    for one, other in (
        [c.gap.models for c in frequencies.classes[:2]],
        [pull.pull.models for pull in pulls],
        [c.loss.models for c in losses[:2]],
    ):
        assert one is not None
        assert other is not None
        assert (one.low, one.high) == (-1.0, 1.0)
        assert other.high - other.low < 1.0


def test_the_accuracy_from_the_ring_is_compared_with_that_of_the_same_answer_for_every_image() -> None:
    audit_images = make_images(0.5)
    many = audit_images.take(np.flatnonzero((audit_images.labels == 0) | (np.arange(480) % 10 == 1)))
    assert audit_rings(read_ring(0.0), many)[0].chance == pytest.approx((many.labels == 0).mean())
    assert audit_rings(read_ring(0.0), audit_images)[0].chance == 0.25
