"""Images that show the same are found, whatever their light, size, quality and order, and stay in one split."""

import dataclasses
import io
from pathlib import Path

import joblib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from analysis.images.probe import choose_images, fit_probe
from analysis.statistics.metrics import compute_macro_f1
from search_spaces.errors import UserInputError
from tests.lit_objects import CLASSES, LitObjects, photograph_objects
from trainables.data import near_duplicates
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import ImageSet
from trainables.data.near_duplicates import NearDuplicates, group_near_duplicates
from trainables.data.pixel_files import measure_facts
from trainables.data.splits import SPLIT_NAMES, compute_data_fingerprint, describe_near_duplicates, make_splits

FRACTIONS = {"search_fraction": 0.15, "confirm_fraction": 0.15}


def make_scenes(number: int, seed: int = 0, side: int = 7) -> NDArray[np.uint8]:
    """Return images with large structures, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, size=(number, side, side, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((32, 32), Image.Resampling.BICUBIC)) for c in coarse])


def compress(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


def make_image_set(found: LitObjects, **changes: object) -> ImageSet:
    image_set = ImageSet(images=found.images, labels=found.labels, class_names=CLASSES, source="made")
    return dataclasses.replace(image_set, near_duplicates=group_near_duplicates(found.images), **changes)


def list_groups(found: NearDuplicates) -> set[frozenset[int]]:
    return {
        frozenset(np.flatnonzero(found.groups == k).tolist()) for k, n in enumerate(np.bincount(found.groups)) if n > 1
    }


def test_copies_are_found_and_smooth_and_blank_images_are_not_mistaken_for_them() -> None:
    images = make_scenes(200)
    images[101] = compress(images[1])
    images[150] = (images[2] * 0.75).astype(np.uint8)
    smaller = Image.fromarray(images[3]).resize((20, 20))
    images[160] = np.asarray(smaller.resize((32, 32), Image.Resampling.BICUBIC))
    images[170] = images[4]
    # Blank images have nothing in common.
    images[20:24] = np.array([10, 80, 160, 240], dtype=np.uint8)[:, None, None, None]
    found = group_near_duplicates(images)
    assert list_groups(found) == {frozenset(pair) for pair in ((1, 101), (2, 150), (3, 160), (4, 170))}
    assert found.pairs[:, :2].tolist() == [[1, 101], [2, 150], [3, 160]], "equal images are no pair of unequal ones"
    assert (found.pairs[:, 2] <= near_duplicates.MAX_DISTANCE).all()


def test_lights_of_one_object_are_one_group_and_objects_are_not_mixed() -> None:
    found = photograph_objects(60, seed=1)
    groups = group_near_duplicates(found.images).groups
    assert (found.objects[groups] == found.objects).all(), "no group holds two objects"
    largest = [np.unique(groups[found.objects == k], return_counts=True)[1].max() for k in range(60)]
    assert np.mean(largest) > 5.8


def test_images_of_few_pixels_are_joined_only_if_they_are_equal() -> None:
    images = photograph_objects(4, seed=1, num_lights=3).images.reshape(12, 4, 12, 4, 12, 3).mean(axis=(1, 3))
    images = np.append(images, images[:1], axis=0).astype(np.uint8)
    found = group_near_duplicates(images)
    assert list_groups(found) == {frozenset({0, 12})}
    assert len(found.pairs) == 0


def test_a_chain_does_not_join_what_differs() -> None:
    common, first, last = (scene.astype(np.float64) for scene in make_scenes(3))
    ends = [common + 0.45 * (part - 127) for part in (first, last)]
    chain = [ends[0], (ends[0] + ends[1]) / 2, ends[1]]
    images = np.stack([np.clip(0.6 * (image - 127) + 127, 0, 255).astype(np.uint8) for image in chain])
    found = group_near_duplicates(images)
    assert found.pairs[:, :2].tolist() == [[0, 1], [1, 2]], "the image between is alike to both ends"
    assert found.sizes.tolist() == [2]


def test_neither_the_order_of_images_nor_the_number_of_threads_changes_what_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = np.concatenate([photograph_objects(12, seed=3).images, photograph_objects(3, seed=3).images[::5]])
    order = np.random.default_rng(0).permutation(len(images))
    expected = list_groups(group_near_duplicates(images))
    for number in (1, 7):
        monkeypatch.setattr(joblib, "cpu_count", lambda number=number: number)
        monkeypatch.setattr(near_duplicates, "CHUNK_ROWS", 5 * number)
        monkeypatch.setattr(near_duplicates, "CHUNK_COLUMNS", 8 + number)
        monkeypatch.setattr(near_duplicates, "CHUNK_THUMBNAILS", 10 * number)
        again = list_groups(group_near_duplicates(images[order]))
        assert {frozenset(order[list(group)].tolist()) for group in again} == expected


def test_images_that_are_all_alike_are_one_group_and_too_many_pairs_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = photograph_objects(1, seed=0, num_lights=40).images
    found = group_near_duplicates(images)
    assert found.sizes.tolist() == [40]
    assert len(found.pairs) == 39
    monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 700)
    with pytest.raises(UserInputError, match=r"more than 700 pairs of images look alike; name what .* data\.group"):
        group_near_duplicates(images)


def test_what_is_found_is_kept_beside_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = ImageMemoryBudget(memory_bytes=1, folder=tmp_path)
    made = photograph_objects(8, seed=2).images
    stack = budget.allocate(*made.shape[:3], keep=True)
    stack[:] = made
    images = budget.finalize(stack, measure_facts(made))
    expected = group_near_duplicates(made)
    first = group_near_duplicates(images)
    monkeypatch.setattr(near_duplicates, "_search", None)
    for found in (first, group_near_duplicates(images)):
        np.testing.assert_array_equal(found.groups, expected.groups)
        np.testing.assert_array_equal(found.pairs, expected.pairs)


def test_near_duplicates_stay_in_one_split_and_what_that_avoids_is_counted() -> None:
    image_set = make_image_set(photograph_objects(80, seed=5))
    splits = make_splits(image_set, seed=0, test_fraction=0.2, **FRACTIONS)
    assert image_set.near_duplicates is not None
    groups = image_set.near_duplicates.groups
    owners = [set(groups[getattr(splits, name)].tolist()) for name in SPLIT_NAMES]
    assert sum(map(len, owners)) == len(set(groups.tolist())), "no group lies in two splits"
    for name, share in zip(SPLIT_NAMES, (0.5, 0.15, 0.15, 0.2), strict=True):
        assert len(getattr(splits, name)) / 480 == pytest.approx(share, abs=0.02)
        assert image_set.labels[getattr(splits, name)].mean() == pytest.approx(0.5, abs=0.05)
    assert splits.num_avoided_leaks > 85, "nearly all of the 96 test images"
    (said,) = describe_near_duplicates(image_set, splits).values()
    assert f"otherwise, {splits.num_avoided_leaks} test images would have one in training" in said
    assert "images have a near-duplicate, with which they stay in one split" in said
    ignoring = dataclasses.replace(image_set, near_duplicates=None)
    apart = make_splits(ignoring, seed=0, test_fraction=0.2, **FRACTIONS)
    assert apart.data_fingerprint != splits.data_fingerprint
    assert (apart.num_avoided_leaks, describe_near_duplicates(ignoring, apart)) == (0, {})


def test_without_near_duplicates_nothing_changes() -> None:
    found = photograph_objects(80, seed=5, num_lights=1)
    image_set = make_image_set(found)
    plain = dataclasses.replace(image_set, near_duplicates=None)
    assert image_set.units is None
    assert compute_data_fingerprint(image_set) == compute_data_fingerprint(plain)
    splits = make_splits(image_set, seed=0, test_fraction=0.2, **FRACTIONS)
    assert splits.fingerprint == make_splits(plain, seed=0, test_fraction=0.2, **FRACTIONS).fingerprint
    assert describe_near_duplicates(image_set, splits) == {}


def test_near_duplicates_join_the_given_groups() -> None:
    found = photograph_objects(40, seed=5, num_lights=2)
    # Light 0 and light 1 of an object belong to other patients: 0 and 1, 1 and 2, ..., of objects 0 to 9 all.
    patients = np.where(found.objects < 10, found.objects + np.arange(80) % 2, 100 + found.objects)
    image_set = make_image_set(found, groups=patients)
    units = image_set.units
    assert units is not None
    assert len(set(units[:20].tolist())) == 1
    assert len(set(units[20:].tolist())) == 30
    assert not set(units[:20].tolist()) & set(units[20:].tolist())


def test_a_published_test_set_stays_and_its_near_duplicates_in_training_are_counted() -> None:
    found = photograph_objects(60, seed=6)
    is_test = (np.arange(360) % 6 == 0) & (found.objects < 20) | (found.objects >= 50)
    image_set = make_image_set(found, official_test=is_test)
    splits = make_splits(image_set, seed=0, **FRACTIONS)
    np.testing.assert_array_equal(splits.test, np.flatnonzero(is_test))
    described = describe_near_duplicates(image_set, splits)
    assert "stay in one split, unless that is published: " in described["near_duplicates"]
    number = int(described["test_leak"].split()[0])
    assert 10 <= number <= 20, "some lights of twenty objects went to search and confirm"
    assert described["test_leak"].startswith(f"{number} of 80 published test images have a near-duplicate in training")
    # Lights that are validation images: published, too.
    both = dataclasses.replace(image_set, official_validation=(np.arange(360) % 6 == 1) & ~is_test)
    described = describe_near_duplicates(both, make_splits(both, seed=0, **FRACTIONS))
    assert described["validation_leak"].split()[2] == "50"


def test_a_class_that_is_one_group_is_refused_with_the_way_out() -> None:
    found = photograph_objects(81, seed=7)
    labels = np.where(found.objects == 80, 2, found.labels)
    image_set = dataclasses.replace(
        make_image_set(found), labels=labels, class_names=("rows", "columns", "odd"), near_duplicates=None
    )
    make_splits(image_set, seed=0, test_fraction=0.35, **FRACTIONS)
    grouped = dataclasses.replace(image_set, near_duplicates=group_near_duplicates(found.images))
    message = r'has none of 1 of the 3 classes: odd \(6 in all.*near-duplicates stay in one split.* "ignore"'
    with pytest.raises(UserInputError, match=message):
        make_splits(grouped, seed=0, test_fraction=0.35, **FRACTIONS)


def probe_world(seed: int) -> tuple[bool, bool]:
    """Return whether the interval of a probe with groups, and of one without, covers the score on new objects."""
    found, new = photograph_objects(60, seed), photograph_objects(1000, 1000 + seed, num_lights=1)
    known, unknown = (_describe(images) for images in (found.images, new.images))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)).fit(known, found.labels)
    truth = float(compute_macro_f1(new.labels, model.predict(unknown)[None], 2)[0])
    covers = []
    for groups in (group_near_duplicates(found.images).groups, None):
        chosen = choose_images(np.arange(len(known)), found.labels, groups, num_images=10**6, seed=0)
        assert chosen is not None
        interval = fit_probe(known, chosen, strength=1.0).macro_f1
        covers.append(interval.low <= truth <= interval.high)
    return covers[0], covers[1]


def _describe(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return gray thumbnails of mean 0 and standard deviation 1."""
    gray = images.mean(axis=3).reshape(len(images), 12, 4, 12, 4).mean(axis=(2, 4)).reshape(len(images), -1)
    return (gray - gray.mean(axis=1, keepdims=True)) / gray.std(axis=1, keepdims=True)


def test_intervals_of_ten_worlds_cover_the_score_on_new_objects_with_groups_and_not_without() -> None:
    with_groups, without = np.sum([probe_world(seed) for seed in range(10)], axis=0)
    assert with_groups >= 9
    assert without <= 2
