"""Exact and near-duplicates are found, named by split and label, and smooth or blank images are not mistaken for them."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.images.duplicates import find_copies, find_exact_duplicates, find_near_duplicates
from trainables.data.splits import Splits


def make_scenes(number: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return images with large structures, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, size=(number, 5, 5, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((32, 32), Image.Resampling.BICUBIC)) for c in coarse])


def make_splits(train: list[int], search: list[int], confirm: list[int], test: list[int]) -> Splits:
    ids = [np.array(part, dtype=np.int64) for part in (train, search, confirm, test)]
    return Splits(train=ids[0], search=ids[1], confirm=ids[2], test=ids[3], data_fingerprint="")


def compress(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


def test_planted_duplicates_are_listed_across_splits_and_conflicts_first() -> None:
    images = make_scenes(40)
    images[1] = images[0]  # inside train
    images[12] = images[2]  # train and search, same label
    images[31] = images[3]  # train and test, different labels
    labels = np.zeros(40, dtype=np.int64)
    labels[31] = 1
    splits = make_splits(list(range(10)), list(range(10, 20)), list(range(20, 30)), list(range(30, 40)))
    pairs = find_exact_duplicates(images, labels, splits)
    assert [(p.first, p.second) for p in pairs] == [(3, 31), (2, 12), (0, 1)]
    assert [p.is_conflict for p in pairs] == [True, False, False]
    assert pairs[0].splits == ("train", "test")
    assert find_copies(pairs).tolist() == [1, 12, 31]
    assert find_near_duplicates(images, labels, splits) == ()


def test_a_copy_names_the_image_of_another_split() -> None:
    images = make_scenes(6)
    images[1] = images[4] = images[0]
    splits = make_splits([0, 1, 2], [3], [4], [5])
    pairs = find_exact_duplicates(images, np.zeros(6, dtype=np.int64), splits)
    assert [(p.first, p.second, p.is_across) for p in pairs] == [(0, 4, True), (0, 1, False)]


def test_compressed_and_brightened_copies_are_near_and_others_are_not() -> None:
    images = make_scenes(200)
    images[101] = compress(images[1])
    images[150] = (images[2] * 0.85).astype(np.uint8)
    # Blank images have equal hashes, but nothing in common.
    images[20:24] = np.array([10, 80, 160, 240], dtype=np.uint8)[:, None, None, None]
    splits = make_splits(list(range(100)), list(range(100, 140)), [], list(range(140, 200)))
    pairs = find_near_duplicates(images, np.zeros(200, dtype=np.int64), splits)
    assert {(p.first, p.second) for p in pairs} == {(1, 101), (2, 150)}
    assert all(p.is_across and p.distance is not None for p in pairs)


def test_images_outside_the_splits_do_not_count() -> None:
    images = make_scenes(4)
    images[3] = images[0]
    splits = make_splits([0], [1], [2], [])
    assert find_exact_duplicates(images, np.zeros(4, dtype=np.int64), splits) == ()
