"""Images that belong together stay in one split; a published test set that cuts a group in two is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from search_spaces.errors import UserInputError
from study.inputs.preparation import load_images
from tests.study.simulated import make_spec
from trainables.data.images import ImageSet
from trainables.data.sources import load_image_set
from trainables.data.splits import SPLIT_NAMES, compute_data_fingerprint, make_splits
from trainables.data.stratified import cut_folds
from trainables.training.predictions import Predictions

FRACTIONS = {"search_fraction": 0.15, "confirm_fraction": 0.1}


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
    splits = make_splits(image_set, seed=seed, test_fraction=test, **FRACTIONS)
    parts = {name: getattr(splits, name) for name in SPLIT_NAMES}
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(len(image_set)))
    owners = [set(image_set.groups[part].tolist()) for part in parts.values()]
    assert sum(map(len, owners)) == 60
    for name, share in {"search": 0.15, "confirm": 0.1, "test": test}.items():
        assert len(parts[name]) / len(image_set) == pytest.approx(share, abs=0.06)
        assert image_set.labels[parts[name]].mean() == pytest.approx(0.5, abs=0.1)
    again = make_splits(image_set, seed=seed, test_fraction=test, **FRACTIONS)
    assert again.fingerprint == splits.fingerprint


def test_groups_enter_the_fingerprint_and_nothing_changes_without_them() -> None:
    grouped = make_grouped()
    plain = dataclasses.replace(grouped, groups=None)
    assert compute_data_fingerprint(plain) == "c5cfb2dd0608a7fb"
    assert compute_data_fingerprint(grouped) != compute_data_fingerprint(plain)
    assert make_splits(plain, seed=3, test_fraction=0.2, **FRACTIONS).fingerprint == "7feacb36a2c56b60"
    assert make_splits(grouped, seed=3, test_fraction=0.2, **FRACTIONS).fingerprint == "d3d3276146ed1736"


def test_groups_that_straddle_the_published_test_set_are_counted_and_named() -> None:
    whole = make_grouped(num_test_groups=12)
    splits = make_splits(whole, seed=0, **FRACTIONS)
    assert whole.official_test is not None
    np.testing.assert_array_equal(splits.test, np.flatnonzero(whole.official_test))
    cut = dataclasses.replace(
        whole, official_test=np.arange(360) % 72 >= 58, group_names=tuple(f"patient {i}" for i in range(60))
    )
    assert cut.official_test is not None
    with pytest.raises(UserInputError) as caught:
        make_splits(cut, seed=0, **FRACTIONS)
    message = str(caught.value)
    assert "5 groups have 10 images in the published test set and 20 outside it: patient 9, patient 21, " in message


def test_groups_that_straddle_the_published_validation_set_are_named_with_those_of_the_test_set() -> None:
    cut = dataclasses.replace(make_grouped(num_test_groups=12), official_validation=np.arange(360) % 30 == 0)
    assert cut.official_test is not None
    cut = dataclasses.replace(cut, official_validation=cut.official_validation & ~cut.official_test)
    with pytest.raises(
        UserInputError, match=r"10 groups have 10 images in the published validation set and 50 outside it"
    ):
        make_splits(cut, seed=0, **FRACTIONS)
    both = dataclasses.replace(cut, official_test=np.arange(360) % 30 == 1)
    with pytest.raises(UserInputError, match=r"has 2 problems:\n.* test set .*\n.* validation set "):
        make_splits(both, seed=0, **FRACTIONS)


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
        splits = make_splits(image_set, seed=seed, test_fraction=0.15, **FRACTIONS)
        assert 0 in groups[splits.train]
        assert len(splits.test) == pytest.approx(60, abs=8)
        assert len(np.unique(groups[splits.test[labels[splits.test] == 2]])) == 2


def test_fewer_than_two_groups_are_refused() -> None:
    with pytest.raises(
        UserInputError, match=r"needs two groups or more.* for near-duplicates .* set data.near_duplicates"
    ):
        make_splits(make_grouped(num_groups=1), seed=0, test_fraction=0.2, **FRACTIONS)


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
