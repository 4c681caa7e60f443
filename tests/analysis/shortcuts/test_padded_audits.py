"""The audits of padded images, for models that see the padding or the ring of the content: padding is no background."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.causes.cues import CUES, prepare_removal, remove_cues, remove_every_set
from analysis.shortcuts.frequency_audit import measure_color_losses
from analysis.shortcuts.ring_audit import judge_ring, measure_pull, measure_rings
from analysis.shortcuts.swaps import AuditImages, find_few_edges, swap_ring
from analysis.shortcuts.values import AuditVerdict
from tests.analysis.shortcuts.audited import audit_frequencies
from trainables.data.augmentation.mixing import make_ring
from trainables.data.image_array import PAD_COLOR, cut_content
from trainables.data.padding import find_content, lay_mask

K, SIDE = 4, 32
NAMES = ("a", "b", "c", "d")
# The height of the content, which is as wide as the image, is the class.
HEIGHTS = np.array([10, 16, 22, 32])
LEVELS = np.array([30, 90, 150, 210])


def make_padded(num_images: int = 240, *, ring_shows: bool = False, by_class: bool = True) -> AuditImages:
    """Return images of noise, or with a ring in the content that shows the class, whose padding shows the class or nothing."""
    rng = np.random.default_rng(0)
    labels = np.arange(num_images) % K
    images = np.tile(np.array(PAD_COLOR, dtype=np.uint8), (num_images, SIDE, SIDE, 1))
    for number, label in enumerate(labels):
        height = HEIGHTS[label if by_class else rng.integers(K)]
        top = (SIDE - height) // 2
        content = images[number, top : top + height]
        content[:] = rng.integers(0, 256, content.shape, dtype=np.uint8)
        if ring_shows:
            edge = round(6 / 32 * height)
            content[edge:-edge, 6:-6] = LEVELS[rng.integers(K)]
            for side in (content[:edge], content[-edge:], content[:, :6], content[:, -6:]):
                side[:] = LEVELS[label]
    return AuditImages(images=images, labels=labels, class_names=NAMES)


def read_padding(images: np.ndarray) -> np.ndarray:
    """Return what two models predict that see nothing but the height of the content."""
    heights = find_content(torch.from_numpy(images))[:, 2].numpy()
    return np.tile(np.abs(heights[:, None] - HEIGHTS).argmin(axis=1), (2, 1))


def read_corner(images: np.ndarray) -> np.ndarray:
    """Return what two models predict that see nothing but the corner of the content."""
    corners = np.array([int(cut_content(image)[0, 0, 0]) for image in images])
    return np.tile(np.abs(corners[:, None] - LEVELS).argmin(axis=1), (2, 1))


def test_models_that_see_the_padding_alone_have_no_gap_in_any_audit() -> None:
    images = make_padded()
    assert (read_padding(images.images) == images.labels).all()
    for measured in measure_rings(read_padding, images):
        found = judge_ring(measured)
        assert found.gap.estimate == 0.0
        assert found.verdict is not AuditVerdict.FAIL
    frequencies = audit_frequencies(read_padding, images)
    assert frequencies is not None
    assert frequencies.gap.estimate == 0.0
    assert not measure_color_losses(read_padding, images).values.any()
    assert not measure_pull(read_padding, images, 0, 3).pulls.values.any()


def test_models_that_see_the_ring_of_the_content_fail() -> None:
    images = make_padded(ring_shows=True, by_class=False)
    assert (read_corner(images.images) == images.labels).all()
    for measured in measure_rings(read_corner, images):
        found = judge_ring(measured)
        assert found.verdict is AuditVerdict.FAIL
        assert found.gap.estimate > 0.95
        assert found.ring_only_accuracy.estimate == 1.0
        assert found.region == "top left corner"
    assert measure_pull(read_corner, images, 0, 3).pulls.values.mean() > 0.95


def test_a_ring_of_a_donor_is_stretched_to_the_content_of_the_image() -> None:
    images = make_padded(ring_shows=True).images
    ring = make_ring(SIDE, SIDE, 4 / 32)
    (swapped,) = swap_ring(images[:1], images[3:4], ring)
    assert find_content(torch.from_numpy(swapped[None])).tolist() == [[11, 0, 10, SIDE]]
    inside = lay_mask(ring, images[:1])[0]
    assert inside[11:21].any(axis=1).all()
    assert not inside[:11].any()
    assert (swapped[inside] == LEVELS[3]).all(), "the donor's ring is wider"
    np.testing.assert_array_equal(swapped[~inside], images[0][~inside])


def test_images_with_few_edges_are_not_those_with_small_content() -> None:
    images = make_padded(by_class=False)
    rough = np.arange(len(images.labels)) // K % 3 > 0
    quiet = images.images // 4 + 20
    quiet = np.where(lay_mask(np.ones((SIDE, SIDE), dtype=bool), images.images)[..., None], quiet, images.images)
    shown = np.where(rough[:, None, None, None], images.images, quiet)
    few = find_few_edges(shown, images.labels, make_ring(SIDE, SIDE, 4 / 32))
    np.testing.assert_array_equal(few, ~rough)


def test_object_free_rings_are_those_of_the_content() -> None:
    """A mask that reaches the first row of the content lies in no ring of the square."""
    images = make_padded()
    masks = np.zeros(images.images.shape[:3], dtype=bool)
    masks[:, 15:17, 14:18] = True
    touched = np.flatnonzero(images.labels == 0)[::2]
    masks[touched, 11] = True
    (narrow, _) = measure_rings(read_padding, replace(images, masks=masks))
    assert narrow.free_by == "masks"
    assert np.bincount(narrow.free_gaps.labels, minlength=K).tolist() == [30, 60, 60, 60]


@pytest.mark.parametrize("cue", CUES)
def test_a_cue_is_removed_from_the_content(cue: str) -> None:
    images = make_padded(24, ring_shows=True).images
    donors = np.roll(images, 1, axis=0)
    removal = replace(prepare_removal(images, donors, np.random.default_rng(0)), doses=dict.fromkeys(CUES, 1.0))
    inside = lay_mask(np.ones((SIDE, SIDE), dtype=bool), images)
    removed = remove_cues(images, frozenset([cue]), removal)
    assert (removed[~inside] == PAD_COLOR).all()
    np.testing.assert_array_equal(dict(remove_every_set(images, removal))[frozenset([cue])], removed)
    if cue == "context":
        for number, content in enumerate(map(cut_content, removed)):
            outer = np.concatenate([content[0], content[-1], content[:, 0], content[:, -1]])
            assert (outer == LEVELS[(number - 1) % K]).all()
