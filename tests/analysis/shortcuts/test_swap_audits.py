"""All audits of an arm: one set of forward passes serves the arm and its first model, and nothing leaves its range."""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from analysis.shortcuts.swap_audits import judge_swaps, measure_swaps
from analysis.shortcuts.swaps import AuditImages
from analysis.shortcuts.values import NUM_DONORS, AuditVerdict, SwapAudits
from analysis.statistics.interval import TwoIntervals
from trainables.data.augmentation.mixing import make_ring

K, SIDE = 5, 24
LEVELS = np.array([30, 80, 130, 180, 230])
NAMES = ("a", "b", "c", "d", "e")
PULLS = ((0, 1), (1, 0), (2, 3))


def make_images(num_images: int) -> AuditImages:
    """Return images whose ring and center both show the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(num_images) % K
    pixels = LEVELS[labels][:, None, None, None] + rng.normal(0, 5, (num_images, SIDE, SIDE, 1))
    images = np.repeat(np.clip(pixels, 0, 249).astype(np.uint8), 3, axis=3)
    images[..., 1] += 6  # Gray images have no color to remove.
    return AuditImages(images=images, labels=labels, class_names=NAMES)


def read_ring(shares: tuple[float, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """Return models that classify a share of the images by their ring, and the others by their center."""
    ring, center = make_ring(SIDE, SIDE, 4 / 32), ~make_ring(SIDE, SIDE, 8 / 32)

    def classify(images: np.ndarray) -> np.ndarray:
        levels = [images[:, region, 0].mean(axis=1) for region in (ring, center)]
        by_ring, by_center = (np.abs(level[:, None] - LEVELS).argmin(axis=1) for level in levels)
        uses_ring = images[:, SIDE // 2, SIDE // 2, 0] % 10
        return np.stack([np.where(uses_ring < 10 * share, by_ring, by_center) for share in shares])

    return classify


def audit(shares: tuple[float, ...], num_images: int = 300) -> SwapAudits:
    return judge_swaps(measure_swaps(read_ring(shares), make_images(num_images), PULLS))


def find_intervals(value: object) -> Iterator[TwoIntervals]:
    """Return all intervals in a finding."""
    if isinstance(value, TwoIntervals):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from find_intervals(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from find_intervals(getattr(value, field.name))


def test_the_first_model_of_three_is_audited_as_if_it_were_alone() -> None:
    """Its region, verdicts and intervals are those of its own audit, in which it fails although the arm does not."""
    measured = measure_swaps(read_ring((0.5, 0.0, 0.0)), make_images(300), PULLS)
    alone = judge_swaps(measured.take_first())
    assert alone == audit((0.5,))
    assert alone.ring_audits[0].verdict is AuditVerdict.FAIL
    assert alone.ring_audits[0].region != ""
    arm = judge_swaps(measured)
    assert alone.ring_audits[0].gap.estimate > arm.ring_audits[0].gap.estimate
    assert all(found.recipe is None for found in find_intervals(alone))
    assert all(found.recipe is not None for found in find_intervals(arm))


def test_the_first_model_needs_no_forward_pass_of_its_own() -> None:
    passes = []

    def classify(images: np.ndarray) -> np.ndarray:
        passes.append(len(images))
        return read_ring((0.0, 0.0))(images)

    measured = measure_swaps(classify, make_images(300), PULLS)
    # Rings: swaps with donors of the class and of others, of all images and of those with few edges, and the filled center.
    # Pulls: two rings, of as many donors each. Color: with and without. Waves: swaps on one half.
    each = 2 * NUM_DONORS
    assert passes == 2 * [*each * [300], *each * [100], 300] + 3 * each * [60] + [300, 300] + each * [150]
    judge_swaps(measured)
    judge_swaps(measured.take_first())
    assert len(passes) == 8 * each + 4, "judging needs none"


@pytest.mark.parametrize("shares", [(0.3, 0.5, 0.9), (0.0, 1.0), (1.0, 1.0, 1.0), (0.0,)])
def test_every_interval_is_inside_its_range_with_few_images_and_seeds(shares: tuple[float, ...]) -> None:
    """Ten images of each class: a crossed t interval of one class would reach beyond 100 pp."""
    found = audit(shares, 50)
    intervals = [i for two in find_intervals(found) for i in (two.models, two.recipe) if i is not None]
    assert len(intervals) > 30
    assert all(-1 <= i.low <= i.estimate <= i.high <= 1 for i in intervals)
    assert all(i.low < i.high for i in intervals)
    assert found.frequency_audit is not None
    assert len(found.frequency_audit.classes) == len(found.color_losses) == K


def test_the_color_audit_of_gray_images_is_left_out() -> None:
    images = make_images(100)
    gray = replace(images, images=np.repeat(images.images[..., :1], 3, axis=3))
    passes = []

    def classify(shown: np.ndarray) -> np.ndarray:
        passes.append(len(shown))
        return read_ring((0.0, 0.0))(shown)

    assert measure_swaps(classify, images, ()).colors is not None
    with_color = len(passes)
    measured = measure_swaps(classify, gray, ())
    assert measured.colors is None
    assert len(passes) - with_color == with_color - 2, "no forward pass with and without color"
    assert judge_swaps(measured).color_losses == judge_swaps(measured.take_first()).color_losses == ()


def test_classes_with_the_same_gap_decide_with_three_seeds() -> None:
    """The crossed t interval with two degrees of freedom is undecided; the moderated one is not."""
    (narrow, _) = audit((0.3, 0.5, 0.4), 600).ring_audits
    assert [c.recipe_verdict for c in narrow.classes] == [AuditVerdict.FAIL] * K
