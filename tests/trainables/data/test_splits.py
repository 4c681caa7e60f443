"""Splits are disjoint, stratified, deterministic and complete, or refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from search_spaces.errors import UserInputError
from study.inputs.preparation import load_images
from tests.study.simulated import make_spec
from trainables.data.images import ImageSet
from trainables.data.sources import load_image_set
from trainables.data.sources.published import DigitsSource
from trainables.data.splits import SPLIT_NAMES, Splits, compute_data_fingerprint, list_rare_classes, make_splits
from trainables.data.stratified import choose_stratified, cut_folds
from trainables.training.predictions import Predictions

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
    with pytest.raises(UserInputError, match=rf"has none of 1 of .*: {name} \(.*, none in .*{split}"):
        make_splits(image_set, seed=0, test_fraction=test, **FRACTIONS)


# --- published validation images, rare classes -----------------------------------------------------------------------


def with_validation(image_set: ImageSet, every: int = 5, seed: int = 0) -> ImageSet:
    """Return the set with a fifth of the images outside the test set, of each class, as published validation images."""
    is_test = np.zeros(len(image_set), bool) if image_set.official_test is None else image_set.official_test
    others = np.flatnonzero(~is_test)
    chosen = choose_stratified(image_set.labels[others], len(others) // every, np.random.default_rng(seed))
    official = np.zeros(len(image_set), dtype=bool)
    official[others[chosen]] = True
    return dataclasses.replace(image_set, official_validation=official)


@given(
    counts=st.lists(st.integers(40, 60), min_size=2, max_size=5),
    has_test=st.booleans(),
    search=st.floats(0.1, 0.9),
    confirm=st.floats(0.1, 0.9),
)
@settings(max_examples=40, deadline=None)
def test_published_validation_images_become_search_and_confirm(
    counts: list[int], has_test: bool, search: float, confirm: float
) -> None:
    image_set = with_validation(make_set(counts, test_counts=[10] * len(counts) if has_test else None), every=2)
    splits = make_splits(
        image_set, seed=1, search_fraction=search, confirm_fraction=confirm, test_fraction=None if has_test else 0.25
    )
    official = image_set.official_validation
    assert official is not None
    np.testing.assert_array_equal(np.sort(np.concatenate(parts(splits))), np.arange(len(image_set)))
    np.testing.assert_array_equal(np.union1d(splits.search, splits.confirm), np.flatnonzero(official))
    assert len(splits.confirm) == round(confirm / (search + confirm) * int(official.sum()))
    if not has_test:
        assert len(splits.test) == round(0.25 * int((~official).sum()))
    for name in ("search", "confirm"):
        indices = getattr(splits, name)
        shares = np.bincount(image_set.labels[indices], minlength=len(counts)) / len(indices)
        published = np.bincount(image_set.labels[official], minlength=len(counts)) / official.sum()
        assert np.abs(shares - published).max() <= 2 / len(indices)


def test_the_splits_of_earlier_studies_stay_the_same() -> None:
    fractions = {"search_fraction": 0.15, "confirm_fraction": 0.1}
    published = make_splits(make_set([30, 40], test_counts=[10, 20]), seed=3, num_test_images=15, **fractions)
    drawn = make_splits(make_set([30, 40, 50]), seed=3, test_fraction=0.2, **fractions)
    assert (published.fingerprint, drawn.fingerprint) == ("90fab8d63e947c60", "1ac7f4b0b44d41c8")


@given(num_images=st.integers(4, 160), seed=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_a_subset_keeps_the_shares_of_classes_and_validation_images(num_images: int, seed: int) -> None:
    image_set = with_validation(make_set([60, 100], test_counts=[7, 7]), every=4)
    official, test = image_set.official_validation, image_set.official_test
    assert official is not None
    assert test is not None
    kept = DigitsSource(num_images=num_images, seed=seed).choose_subset(image_set.labels, test, official)
    assert test[kept].sum() == 14
    others = kept[~test[kept]]
    assert len(others) == num_images
    for label, share in ((0, 60 / 160), (1, 100 / 160)):
        chosen = image_set.labels[others] == label
        assert chosen.sum() == pytest.approx(share * num_images, abs=2)
        assert official[others][chosen].sum() == pytest.approx(share * num_images / 4, abs=1)


def test_all_rare_classes_of_all_splits_are_in_one_message() -> None:
    with pytest.raises(UserInputError) as caught:
        make_splits(make_set([200, 3, 9, 4]), seed=0, test_fraction=0.2, **FRACTIONS)
    message = str(caught.value)
    assert (
        "has none of 2 of the 4 classes: class 1 (3 in all, none in confirm), class 3 (4 in all, none in search); "
        "raise data.search_fraction, raise data.confirm_fraction, give more images of"
    ) in message
    assert "has one image only of 1 of the 4 classes: class 2 (9 in all, one in confirm); raise data.confirm" in message


def test_a_class_with_one_image_in_a_split_is_named_but_not_refused() -> None:
    image_set = make_set([200, 6])
    splits = make_splits(image_set, seed=0, test_fraction=0.2, **FRACTIONS)
    (rare,) = list_rare_classes(image_set, splits)
    assert rare.problem.names == ("class 1 (6 in all, one in search, confirm)",)
    assert not rare.is_fatal


def test_each_split_gets_an_image_of_a_class_that_has_enough() -> None:
    image_set = make_set([6] * 100)
    splits = make_splits(image_set, seed=0, test_fraction=0.2, search_fraction=0.15, confirm_fraction=0.15)
    counts = {name: np.bincount(image_set.labels[getattr(splits, name)], minlength=100) for name in SPLIT_NAMES}
    assert {name: set(found.tolist()) for name, found in counts.items()} == {
        "train": {2},
        "search": {1},
        "confirm": {1},
        "test": {2},
    }


def test_a_rare_class_gets_the_test_images_that_an_interval_needs() -> None:
    image_set = make_set([200, 50, 6])
    splits = make_splits(image_set, seed=0, test_fraction=0.2, **FRACTIONS)
    assert np.bincount(image_set.labels[splits.test]).tolist() == [39, 10, 2]


def test_a_class_with_too_few_test_images_for_an_interval_is_refused() -> None:
    with pytest.raises(
        UserInputError, match=r"needs 2 test images of each class, .* class 1 \(5 in all, too few in test"
    ):
        make_splits(make_set([200, 5]), seed=0, test_fraction=0.2, **FRACTIONS)


def test_thousands_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    image_set, rare = make_set([10] * 3000), make_set([3] * 3000)
    splits = make_splits(image_set, seed=0, test_fraction=0.2, search_fraction=0.2, confirm_fraction=0.2)
    assert list_rare_classes(image_set, splits) == []
    with pytest.raises(
        UserInputError, match=r"has none of [0-9]+ of the 3000 classes: .*, and [0-9]+ more; "
    ) as caught:
        make_splits(rare, seed=0, test_fraction=0.2, search_fraction=0.2, confirm_fraction=0.2)
    assert str(caught.value).count("(3 in all, none in ") == 20


@pytest.mark.parametrize("counts", [[1, 1], [2, 1], [0, 1], [1, 1, 1]])
def test_tiny_sets_are_refused(counts: list[int]) -> None:
    for grouped in (False, True):
        image_set = make_set(counts)
        groups = np.arange(len(image_set)) if grouped else None
        with pytest.raises(UserInputError):
            make_splits(
                dataclasses.replace(image_set, groups=groups),
                seed=0,
                search_fraction=0.3,
                confirm_fraction=0.3,
                test_fraction=0.3,
            )


def test_a_class_whose_test_images_belong_to_one_group_is_refused() -> None:
    """An interval needs two groups; the study would end after its training, with the test split read."""
    image_set = make_set([60, 60])
    groups = np.where(image_set.labels == 0, np.arange(120) // 3, 1000 + np.arange(120) // 40)
    grouped = dataclasses.replace(image_set, groups=groups)
    with pytest.raises(
        UserInputError, match=r"test images of 2 groups in each class, .*: class 1 \(60 in all, too few groups in test"
    ):
        make_splits(grouped, seed=0, test_fraction=0.2, **FRACTIONS)
    finer = dataclasses.replace(image_set, groups=np.arange(120) // 3)
    make_splits(finer, seed=0, test_fraction=0.2, **FRACTIONS)


SHARES = {"search_fraction": 0.15, "confirm_fraction": 0.1}


def make_grouped(num_groups: int = 60, per_group: int = 6, num_test_groups: int = 0) -> ImageSet:
    """Return two classes in groups that span both; the last groups are the published test set, if there is one."""
    groups = np.repeat(np.arange(num_groups), per_group)
    return ImageSet(
        images=np.random.default_rng(1).integers(0, 256, (len(groups), 4, 4, 3), dtype=np.uint8),
        labels=(np.arange(len(groups)) % 2).astype(np.int64),
        class_names=("cat", "dog"),
        source="made",
        official_test=groups >= num_groups - num_test_groups if num_test_groups else None,
        groups=groups,
    )


@given(seed=st.integers(0, 1000), per_group=st.integers(2, 8), test=st.floats(0.1, 0.4))
@settings(max_examples=4, deadline=None)
def test_groups_are_not_divided_and_sizes_and_classes_are_near(seed: int, per_group: int, test: float) -> None:
    image_set = make_grouped(per_group=per_group)
    assert image_set.groups is not None
    splits = make_splits(image_set, seed=seed, test_fraction=test, **SHARES)
    parts = {name: getattr(splits, name) for name in SPLIT_NAMES}
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(len(image_set)))
    owners = [set(image_set.groups[part].tolist()) for part in parts.values()]
    assert sum(map(len, owners)) == 60
    for name, share in {"search": 0.15, "confirm": 0.1, "test": test}.items():
        assert len(parts[name]) / len(image_set) == pytest.approx(share, abs=0.06)
        assert image_set.labels[parts[name]].mean() == pytest.approx(0.5, abs=0.1)
    again = make_splits(image_set, seed=seed, test_fraction=test, **SHARES)
    assert again.fingerprint == splits.fingerprint


def test_groups_enter_the_fingerprint_and_nothing_changes_without_them() -> None:
    grouped = make_grouped()
    plain = dataclasses.replace(grouped, groups=None)
    assert compute_data_fingerprint(plain) == "c5cfb2dd0608a7fb"
    assert compute_data_fingerprint(grouped) != compute_data_fingerprint(plain)
    assert make_splits(plain, seed=3, test_fraction=0.2, **SHARES).fingerprint == "7feacb36a2c56b60"
    assert make_splits(grouped, seed=3, test_fraction=0.2, **SHARES).fingerprint == "d3d3276146ed1736"


def test_groups_that_straddle_the_published_test_set_are_counted_and_named() -> None:
    whole = make_grouped(num_test_groups=12)
    splits = make_splits(whole, seed=0, **SHARES)
    assert whole.official_test is not None
    np.testing.assert_array_equal(splits.test, np.flatnonzero(whole.official_test))
    cut = dataclasses.replace(
        whole, official_test=np.arange(360) % 72 >= 58, group_names=tuple(f"patient {i}" for i in range(60))
    )
    assert cut.official_test is not None
    with pytest.raises(UserInputError) as caught:
        make_splits(cut, seed=0, **SHARES)
    message = str(caught.value)
    assert "5 groups have 10 images in the published test set and 20 outside it: patient 9, patient 21, " in message


def test_groups_that_straddle_the_published_validation_set_are_named_with_those_of_the_test_set() -> None:
    cut = dataclasses.replace(make_grouped(num_test_groups=12), official_validation=np.arange(360) % 30 == 0)
    assert cut.official_test is not None
    cut = dataclasses.replace(cut, official_validation=cut.official_validation & ~cut.official_test)
    with pytest.raises(
        UserInputError, match=r"10 groups have 10 images in the published validation set and 50 outside it"
    ):
        make_splits(cut, seed=0, **SHARES)
    both = dataclasses.replace(cut, official_test=np.arange(360) % 30 == 1)
    with pytest.raises(UserInputError, match=r"has 2 problems:\n.* test set .*\n.* validation set "):
        make_splits(both, seed=0, **SHARES)


def test_groups_of_published_validation_images_stay_whole_in_search_and_confirm() -> None:
    whole = make_grouped(num_test_groups=12)
    assert whole.groups is not None
    whole = dataclasses.replace(whole, official_validation=whole.groups < 15)
    splits = make_splits(whole, seed=0, search_fraction=0.15, confirm_fraction=0.15)
    search, confirm = set(whole.groups[splits.search].tolist()), set(whole.groups[splits.confirm].tolist())
    assert search | confirm == set(range(15))
    assert not search & confirm
    assert len(splits.confirm) == pytest.approx(45, abs=6)
    assert set(whole.groups[splits.train].tolist()) == set(range(15, 48))


def test_a_large_group_overfills_no_split_and_rare_classes_have_two_groups_in_the_test_split() -> None:
    image_set = make_grouped(num_groups=100, per_group=4)
    # Half of the images are one group; nine groups are a third class, of which a fifth is less than two groups.
    groups = np.where(np.arange(400) < 200, 0, np.arange(400) // 4)
    labels = np.where(np.arange(400) >= 364, 2, image_set.labels)
    image_set = dataclasses.replace(image_set, groups=groups, labels=labels, class_names=("cat", "dog", "eel"))
    for seed in range(10):
        splits = make_splits(image_set, seed=seed, test_fraction=0.15, **SHARES)
        assert 0 in groups[splits.train]
        assert len(splits.test) == pytest.approx(60, abs=8)
        assert len(np.unique(groups[splits.test[labels[splits.test] == 2]])) == 2


def test_fewer_than_two_groups_are_refused() -> None:
    with pytest.raises(
        UserInputError, match=r"needs two groups or more.* for near-duplicates .* set data.near_duplicates"
    ):
        make_splits(make_grouped(num_groups=1), seed=0, test_fraction=0.2, **SHARES)


def write_image(file: Path, value: int) -> bytes:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(file, "PNG")
    return file.read_bytes()


def test_a_folder_level_gives_the_groups_across_classes(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for number, (label, patient) in enumerate([("cat", "p1"), ("cat", "p2"), ("dog", "p1"), ("dog", "p3")]):
        for i in range(2):
            write_image(root / label / patient / f"{i}.png", 40 * number + i)
    found = load_image_set("folder", root, group="patient")
    assert found.groups is not None
    assert found.groups.tolist() == [0, 0, 1, 1, 0, 0, 2, 2]
    assert found.name_group(2) == "p3"
    write_image(root / "cat" / "loose.png", 9)
    with pytest.raises(UserInputError, match=r"one folder per patient, but images are .*: cat/loose\.png"):
        load_image_set("folder", root, group="patient")


def test_a_parquet_column_gives_the_groups_and_reaches_the_spec(tmp_path: Path) -> None:
    data = [write_image(tmp_path / f"{i}.png", i) for i in range(6)]
    columns = {
        "image": pa.array(data, type=pa.binary()),
        "label": pa.array([0, 1] * 3, type=pa.int64()),
        "patient": pa.array(["b", "b", "a", "a", "c", "c"]),
        "dose": pa.array([0.5] * 6),
        "holes": pa.array(["b", None, None, "a", "c", "c"]),
    }
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns), file)
    spec = make_spec()
    options = {"class_names": ["cat", "dog"]}
    changed = {"source": "parquet", "path": str(file), "group": "patient", "options": options}
    found = load_images(spec.model_copy(update={"data": spec.data.model_copy(update=changed)}))
    assert found.groups is not None
    assert found.groups.tolist() == [1, 1, 0, 0, 2, 2]
    for column, message in (
        ("patients", "no column 'patients'.*patient.*correct data.group"),
        ("holes", "2 rows without a value of 'holes'"),
        ("dose", "texts or whole numbers, but 'dose' holds double"),
    ):
        with pytest.raises(UserInputError, match=message):
            load_image_set("parquet", file, group=column, **options)


def test_a_source_without_groups_refuses_the_key() -> None:
    with pytest.raises(UserInputError, match="'digits' has no option 'group'"):
        load_image_set("digits", group="writer")


def test_predictions_keep_their_groups_and_old_files_have_none() -> None:
    found = Predictions(
        sample_ids=np.array([2, 0, 1]),
        labels=np.array([0, 1, 0]),
        logits=np.zeros((3, 2), dtype=np.float32),
        split="test",
        groups=np.array([5, 3, 4]),
    )
    again = Predictions.from_npz(found.to_npz())
    assert again.groups is not None
    assert again.groups.tolist() == [3, 4, 5]
    plain = dataclasses.replace(found, groups=None)
    assert b"groups" not in plain.to_npz()
    assert Predictions.from_npz(plain.to_npz()).groups is None
    with pytest.raises(UserInputError, match=r"need groups \(N,\)"):
        dataclasses.replace(found, groups=np.array([1]))


def test_folds_are_stratified_and_keep_groups_together() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), generator.integers(1, 4, 60))
    labels = (groups % 3).astype(np.int64)
    folds = cut_folds(labels, groups, 3, seed=5)
    assert set(folds.tolist()) == {1, 2, 3}
    assert all(len(set(folds[groups == group].tolist())) == 1 for group in range(60))
    counts = np.array([np.bincount(labels[folds == fold], minlength=3) for fold in (1, 2, 3)])
    assert (counts.max(axis=0) - counts.min(axis=0) <= 6).all()
    assert np.array_equal(folds, cut_folds(labels, groups, 3, seed=5))
    assert not np.array_equal(folds, cut_folds(labels, groups, 3, seed=6))
    alone = cut_folds(labels, None, 2, seed=5)
    assert all(abs(int((alone[labels == label] == 1).sum() * 2 - (labels == label).sum())) <= 1 for label in range(3))
