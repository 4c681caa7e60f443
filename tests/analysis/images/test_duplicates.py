"""Exact and near-duplicates are named by split and label."""

import dataclasses

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.images.inspection import find_copies, find_exact_duplicates, find_near_duplicates
from tests.lit_objects import CLASSES, photograph_objects
from trainables.data.images import ImageSet
from trainables.data.near_duplicates import group_near_duplicates
from trainables.data.splits import Splits


def make_scenes(number: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return images with large structures, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, size=(number, 7, 7, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((32, 32), Image.Resampling.BICUBIC)) for c in coarse])


def make_splits(train: list[int], search: list[int], confirm: list[int], test: list[int]) -> Splits:
    ids = [np.array(part, dtype=np.int64) for part in (train, search, confirm, test)]
    return Splits(train=ids[0], search=ids[1], confirm=ids[2], test=ids[3], data_fingerprint="")


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
    image_set = ImageSet(images=images, labels=labels, class_names=CLASSES)
    assert find_near_duplicates(image_set, splits) == ()


def test_a_copy_names_the_image_of_another_split() -> None:
    images = make_scenes(6)
    images[1] = images[4] = images[0]
    splits = make_splits([0, 1, 2], [3], [4], [5])
    pairs = find_exact_duplicates(images, np.zeros(6, dtype=np.int64), splits)
    assert [(p.first, p.second, p.is_across) for p in pairs] == [(0, 4, True), (0, 1, False)]


def test_each_near_duplicate_is_paired_with_the_first_of_its_group() -> None:
    found = photograph_objects(4, seed=1, num_lights=3)
    labels = np.append(np.zeros(11, dtype=np.int64), 1)
    image_set = ImageSet(images=found.images, labels=labels, class_names=CLASSES)
    splits = make_splits([0, 1, 3, 4, 5, 6], [2, 7, 9], [10], [11])
    pairs = find_near_duplicates(image_set, splits)
    # Image 8 is in no split; 11 has another label.
    assert {(p.first, p.second) for p in pairs} == {(9, 11), (9, 10), (0, 2), (6, 7), (0, 1), (3, 4), (3, 5)}
    assert [(pairs[0].first, pairs[0].second, pairs[0].is_conflict) for p in pairs[:1]] == [(9, 11, True)]
    assert [p.is_across for p in pairs] == [True] * 4 + [False] * 3
    known = dataclasses.replace(image_set, near_duplicates=group_near_duplicates(found.images))
    assert find_near_duplicates(known, splits) == pairs


def test_images_outside_the_splits_do_not_count() -> None:
    images = make_scenes(4)
    images[3] = images[0]
    splits = make_splits([0], [1], [2], [])
    assert find_exact_duplicates(images, np.zeros(4, dtype=np.int64), splits) == ()
