"""Splits are disjoint, stratified, deterministic and complete, or refused."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from search_spaces.errors import UserInputError
from trainables.data.images import ImageSet
from trainables.data.splits import SPLIT_NAMES, Splits, choose_stratified, compute_data_fingerprint, make_splits

FRACTIONS: dict[str, Any] = {"search_fraction": 0.2, "confirm_fraction": 0.1}


def make_set(counts: list[int], test_counts: list[int] | None = None, seed: int = 0) -> ImageSet:
    """Return a shuffled image set with the given numbers of images per class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    is_test = np.zeros(len(labels), dtype=bool)
    if test_counts is not None:
        labels = np.concatenate([labels, np.repeat(np.arange(len(counts)), test_counts)])
        is_test = np.arange(len(labels)) >= sum(counts)
    order = rng.permutation(len(labels))
    return ImageSet(
        images=rng.integers(0, 256, (len(labels), 4, 4, 3), dtype=np.uint8),
        labels=labels[order].astype(np.int64),
        class_names=tuple(f"class {k}" for k in range(len(counts))),
        source="made",
        official_test=None if test_counts is None else is_test[order],
    )


def parts(splits: Splits) -> list[NDArray[np.int64]]:
    return [getattr(splits, name) for name in SPLIT_NAMES]


@given(
    counts=st.lists(st.integers(20, 60), min_size=2, max_size=6),
    seed=st.integers(0, 1000),
    search=st.floats(0.1, 0.3),
    confirm=st.floats(0.1, 0.3),
    test=st.floats(0.1, 0.3),
)
@settings(max_examples=60, deadline=None)
def test_splits_are_a_stratified_partition(
    counts: list[int], seed: int, search: float, confirm: float, test: float
) -> None:
    image_set = make_set(counts)
    splits = make_splits(image_set, seed=seed, search_fraction=search, confirm_fraction=confirm, test_fraction=test)
    everything = np.concatenate(parts(splits))
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(image_set)))
    fractions = {"search": search, "confirm": confirm, "test": test}
    for name in SPLIT_NAMES:
        indices = getattr(splits, name)
        assert indices.dtype == np.int64
        assert (np.diff(indices) > 0).all()
        shares = np.bincount(image_set.labels[indices], minlength=len(counts)) / len(indices)
        assert np.abs(shares - np.array(counts) / sum(counts)).max() <= 3 / len(indices)
        if name in fractions:
            assert len(indices) == round(fractions[name] * len(image_set))


def test_an_official_test_set_is_the_test_split() -> None:
    image_set = make_set([30, 40], test_counts=[10, 20])
    splits = make_splits(image_set, seed=0, **FRACTIONS)
    assert image_set.official_test is not None
    np.testing.assert_array_equal(splits.test, np.flatnonzero(image_set.official_test))
    assert len(splits.search) == 14
    assert len(splits.confirm) == 7
    assert len(splits.train) == 49
    assert not image_set.official_test[np.concatenate([splits.train, splits.search, splits.confirm])].any()


def test_num_test_images_takes_a_stratified_part() -> None:
    image_set = make_set([30, 40], test_counts=[10, 20])
    whole = make_splits(image_set, seed=0, **FRACTIONS)
    part = make_splits(image_set, seed=0, num_test_images=15, **FRACTIONS)
    assert set(part.test.tolist()) < set(whole.test.tolist())
    assert np.bincount(image_set.labels[part.test]).tolist() == [5, 10]
    np.testing.assert_array_equal(part.train, whole.train)


def test_splits_depend_on_the_seed_alone() -> None:
    image_set = make_set([50, 50])
    one, same, other = (make_splits(image_set, seed=seed, test_fraction=0.2, **FRACTIONS) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(parts(one), parts(same), strict=True))
    assert one.fingerprint == same.fingerprint
    assert not np.array_equal(one.train, other.train)


def test_any_change_alters_the_fingerprint() -> None:
    image_set = make_set([50, 50])
    splits = make_splits(image_set, seed=5, test_fraction=0.2, **FRACTIONS)
    seen = {splits.fingerprint}
    moved = {"train": splits.train[1:], "test": np.append(splits.test, splits.train[0])}
    for changes in (*({name: indices} for name, indices in moved.items()), moved, {"data_fingerprint": "0" * 16}):
        seen.add(dataclasses.replace(splits, **changes).fingerprint)
    swapped = dataclasses.replace(splits, search=splits.confirm, confirm=splits.search)
    assert len(seen | {swapped.fingerprint}) == 6
    assert all(len(f) == 16 and int(f, 16) >= 0 for f in seen)


def test_any_change_alters_the_data_fingerprint() -> None:
    image_set = make_set([5, 5])
    images, labels = image_set.images.copy(), image_set.labels.copy()
    images[3, 2, 1, 0] ^= 1
    labels[0] = 1 - labels[0]
    variants = [
        image_set,
        dataclasses.replace(image_set, images=images),
        dataclasses.replace(image_set, labels=labels),
        dataclasses.replace(image_set, class_names=("a", "b")),
        dataclasses.replace(image_set, images=image_set.images.reshape(10, 2, 8, 3)),
    ]
    assert len({compute_data_fingerprint(v) for v in variants}) == len(variants)
    strided = dataclasses.replace(image_set, images=np.asfortranarray(image_set.images))
    assert compute_data_fingerprint(strided) == compute_data_fingerprint(image_set)


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=60), share=st.floats(0, 1), seed=st.integers(0, 100))
@settings(max_examples=200, deadline=None)
def test_quotas_are_kept_to_within_one_image(labels: list[int], share: float, seed: int) -> None:
    array = np.array(labels, dtype=np.int64)
    count = round(share * len(array))
    chosen = choose_stratified(array, count, np.random.default_rng(seed))
    assert len(chosen) == count == len(set(chosen.tolist()))
    exact = np.bincount(array) * count / len(array)
    assert np.abs(np.bincount(array[chosen], minlength=len(exact)) - exact).max(initial=0) < 1


def test_every_image_can_be_chosen() -> None:
    labels = np.repeat(np.arange(3), 4)
    seen = {int(i) for seed in range(60) for i in choose_stratified(labels, 3, np.random.default_rng(seed))}
    assert seen == set(range(12))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"search_fraction": 0.0}, "data.search_fraction"),
        ({"confirm_fraction": 1.0}, "data.confirm_fraction"),
        ({"test_fraction": -0.1}, "data.test_fraction"),
        ({"test_fraction": float("nan")}, "data.test_fraction"),
        ({"search_fraction": 0.5, "confirm_fraction": 0.3}, "add up to less than 1"),
        ({"test_fraction": None}, "set data.test_fraction"),
        ({"num_test_images": 5}, "data.num_test_images"),
    ],
)
def test_invalid_requests(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserInputError, match=words):
        make_splits(make_set([50, 50]), **{"seed": 0, "test_fraction": 0.2, **FRACTIONS, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_fraction": 0.2}, "test_fraction does not apply"),
        ({"num_test_images": 0}, "num_test_images <= 30"),
        ({"num_test_images": 31}, "num_test_images <= 30"),
    ],
)
def test_invalid_requests_with_an_official_test(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserInputError, match=words):
        make_splits(make_set([50, 50], test_counts=[15, 15]), seed=0, **FRACTIONS, **changes)


@pytest.mark.parametrize(
    ("image_set", "split", "name"),
    [
        (make_set([50, 0]), "train", "class 1"),
        (make_set([500, 3]), "confirm", "class 1"),
        (make_set([50, 50, 50], test_counts=[5, 0, 5]), "test", "class 1"),
    ],
)
def test_a_class_that_a_split_lacks_is_named(image_set: ImageSet, split: str, name: str) -> None:
    test = 0.2 if image_set.official_test is None else None
    with pytest.raises(UserInputError, match=rf"{split!r} \(.* has none of 1 of .*: {name} \("):
        make_splits(image_set, seed=0, test_fraction=test, **FRACTIONS)
