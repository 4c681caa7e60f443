"""The content of padded images: it is found from the pixels, and masks and other contents are put on it alone."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainables.data.image_array import PAD_COLOR, cut_content, has_padding
from trainables.data.image_audit import are_gray
from trainables.data.padding import find_content, lay_content, lay_mask, move_content

SIDE = 24
# Top, left, height and width.
BOXES = ((0, 0, SIDE, SIDE), (8, 0, 8, SIDE), (0, 5, SIDE, 13), (11, 0, 1, SIDE), (0, 0, SIDE, SIDE - 1))


def pad(contents: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the corners of (N, SIDE, SIDE, 3) contents, each in one of `BOXES`."""
    images = np.tile(np.array(PAD_COLOR, dtype=np.uint8), (len(BOXES), SIDE, SIDE, 1))
    for image, content, (top, left, height, width) in zip(images, contents, BOXES, strict=True):
        image[top : top + height, left : left + width] = content[:height, :width]
    return images


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return pad(np.random.default_rng(0).integers(0, 256, (len(BOXES), SIDE, SIDE, 3), dtype=np.uint8))


def test_the_content_is_found_from_the_pixels(images: NDArray[np.uint8]) -> None:
    assert [tuple(box) for box in find_content(torch.from_numpy(images)).tolist()] == list(BOXES)
    for image, (top, left, height, width) in zip(images, BOXES, strict=True):
        np.testing.assert_array_equal(cut_content(image), image[top : top + height, left : left + width])
        assert has_padding(image[None]) == ((height, width) != (SIDE, SIDE))
    one_pixel = images[:1].copy()
    one_pixel[0, 0, 0] = one_pixel[0, -1, -1] = PAD_COLOR
    assert not has_padding(one_pixel)
    blank = np.tile(np.array(PAD_COLOR, dtype=np.uint8), (1, SIDE, SIDE, 1))
    assert find_content(torch.from_numpy(blank)).tolist() == [[0, 0, SIDE, SIDE]]
    assert cut_content(blank[0]).shape == blank[0].shape


def test_a_mask_is_laid_on_the_content_at_the_same_share_of_its_sides(images: NDArray[np.uint8]) -> None:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[: SIDE // 4], mask[:, : SIDE // 2] = True, True
    placed = lay_mask(mask, images)
    np.testing.assert_array_equal(placed[0], mask)
    expected = np.zeros_like(mask)
    expected[8:10], expected[8:16, :12] = True, True
    np.testing.assert_array_equal(placed[1], expected)
    inside = lay_mask(np.ones_like(mask), images)
    np.testing.assert_array_equal(inside.sum(axis=(1, 2)), [height * width for _, _, height, width in BOXES])
    assert lay_mask(mask, images[:1]).shape == (1, SIDE, SIDE)


def test_content_is_stretched_onto_other_content_and_back() -> None:
    rows, columns = np.indices((SIDE, SIDE)) * 8
    images = pad(
        np.tile(np.stack([rows, columns, rows * 0 + 30], axis=2)[None], (len(BOXES), 1, 1, 1)).astype(np.uint8)
    )
    frames = move_content(images)
    assert not has_padding(frames)
    assert np.abs(np.diff(frames[1, :, :, 0].astype(int), axis=0)).max() <= 4, "8 levels a row, over three rows"
    assert (frames[1, :, :, 0].min(), frames[1, :, :, 0].max()) == (0, 7 * 8)
    back = lay_content(frames, images)
    np.testing.assert_array_equal(find_content(torch.from_numpy(back)), find_content(torch.from_numpy(images)))
    assert np.abs(back.astype(int) - images)[1].max() <= 3
    one_onto_other = move_content(images[:1], images[1:2])
    assert np.abs(one_onto_other[0, 8:16, :, 0].astype(int) - (24 * np.arange(8) + 8)[:, None]).max() <= 1
    plain = images[:1]
    assert move_content(plain) is plain


def test_images_are_gray_if_nearly_all_have_equal_channels_outside_the_padding() -> None:
    gray = np.repeat(np.random.default_rng(0).integers(0, 250, (200, 6, 6, 1), dtype=np.uint8), 3, axis=3)
    gray[:, :2] = gray[:, -2:] = PAD_COLOR
    gray[3, 2, 2, 1] += 2
    ids = np.arange(200)
    assert are_gray(gray, ids)
    gray[:2, 3, 3] = (0, 9, 0)
    assert are_gray(gray, ids), "two of two hundred"
    gray[2, 3, 3] = (0, 9, 0)
    assert not are_gray(gray, ids)
    assert not are_gray(gray, ids[:0])
