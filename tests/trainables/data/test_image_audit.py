"""The audit finds duplicates, leaks, blank images, and wrong ranges and shapes."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from search_spaces.errors import UserInputError
from trainables.data.image_audit import audit_batch, audit_image_set, check_image_set, drop_leaks
from trainables.data.images import ImageOrigin, ImageSet
from trainables.data.sources import load_image_set
from trainables.data.splits import SPLIT_NAMES, Splits, make_splits


@pytest.fixture
def image_set() -> ImageSet:
    """200 planted scenes that a test may modify."""
    return load_image_set("planted", num_images=200, image_size=24)


@pytest.fixture
def splits(image_set: ImageSet) -> Splits:
    return make_splits(image_set, seed=0, search_fraction=0.2, confirm_fraction=0.2, test_fraction=0.2)


def test_a_valid_set_has_no_problem(image_set: ImageSet, splits: Splits) -> None:
    report = check_image_set(image_set, splits)
    assert report == audit_image_set(image_set, splits)
    assert (report.problems, report.num_duplicates, report.num_leaks) == ((), 0, 0)
    stages = {stage.name: stage for stage in report.stages}
    assert set(stages) == {"images", "labels", "masks", *SPLIT_NAMES}
    assert stages["images"].shape == (200, 24, 24, 3)
    assert (stages["images"].dtype, stages["images"].layout) == ("uint8", "NHWC")
    assert (stages["labels"].minimum, stages["labels"].maximum) == (0, 9)
    for name in SPLIT_NAMES:
        indices = getattr(splits, name)
        assert stages[name].shape == (len(indices), 24, 24, 3)
        assert stages[name].minimum == image_set.images[indices].min()
        assert stages[name].maximum == image_set.images[indices].max()
        assert report.class_counts[name] == tuple(np.bincount(image_set.labels[indices], minlength=10))


def test_duplicates_within_a_split_are_no_leak(image_set: ImageSet, splits: Splits) -> None:
    copies = []
    for split in (splits.train, splits.test):
        first, other = np.flatnonzero(image_set.labels[split] == image_set.labels[split[0]])[:2]
        image_set.images[split[other]] = image_set.images[split[first]]
        copies.append((int(split[first]), int(split[other])))
    report = audit_image_set(image_set, splits)
    assert (report.num_duplicates, report.num_leaks) == (2, 0)
    assert set(report.duplicates) == set(copies)
    assert (report.problems, report.conflicts) == ((), ())


def test_equal_images_of_two_classes_are_conflicts(image_set: ImageSet, splits: Splits) -> None:
    train = splits.train
    pairs = []
    for label in range(2):
        one, other = train[image_set.labels[train] == label][0], train[image_set.labels[train] == label + 2][0]
        image_set.images[other] = image_set.images[one]
        pairs.append(tuple(sorted((int(one), int(other)))))
    report = audit_image_set(image_set, splits)
    assert set(report.conflicts) == set(report.duplicates) == set(pairs)
    with pytest.raises(UserInputError, match=rf"4 of 200 are.*sample {pairs[0][0]} = sample {pairs[0][1]}"):
        check_image_set(image_set, splits)


def with_names(image_set: ImageSet) -> ImageSet:
    names = tuple(f"class/{i}.png" for i in range(len(image_set)))
    sizes = np.full((len(image_set), 2), 24, np.int32)
    return dataclasses.replace(image_set, origin=ImageOrigin(names=names, sizes=sizes, kinds={"RGB": len(image_set)}))


def test_all_problems_are_in_one_message_with_the_files_names(image_set: ImageSet, splits: Splits) -> None:
    image_set.images[:3] = 99
    image_set.images[splits.train[:30]] = image_set.images[splits.test[0]]
    with pytest.raises(UserInputError) as caught:
        check_image_set(with_names(image_set), splits)
    message = str(caught.value)
    assert "3 of 200 are: class/0.png, class/1.png, class/2.png" in message
    assert "and 10 more" in message
    full = re.search(r"the full list is in (\S+)", message)
    assert full is not None
    assert f"class/{splits.train[29]}.png" in Path(full[1]).read_text()
    Path(full[1]).unlink()


def test_leaking_training_images_can_be_dropped(image_set: ImageSet, splits: Splits) -> None:
    leaking = splits.train[5:8]
    image_set.images[leaking] = image_set.images[splits.confirm[0]]
    image_set.labels[leaking] = image_set.labels[splits.confirm[0]]
    named = with_names(image_set)
    kept, skipped = drop_leaks(named, splits)
    assert [file.name for file in skipped] == [f"class/{i}.png" for i in leaking]
    assert set(kept.train) == set(splits.train) - set(leaking)
    assert check_image_set(named, kept).num_leaks == 0
    assert drop_leaks(named, kept)[1] == ()


@pytest.mark.parametrize("held_out", ["search", "confirm", "test"])
def test_a_training_image_in_another_split_is_a_leak(image_set: ImageSet, splits: Splits, held_out: str) -> None:
    image_set.images[splits.train[:3]] = image_set.images[getattr(splits, held_out)[0]]
    report = audit_image_set(image_set, splits)
    assert (report.num_duplicates, report.num_leaks) == (3, 3)
    with pytest.raises(
        UserInputError,
        match=f"there are 3: sample {splits.train[0]}, sample {splits.train[1]}, sample {splits.train[2]}",
    ):
        check_image_set(image_set, splits)


def test_one_changed_pixel_is_no_duplicate(image_set: ImageSet, splits: Splits) -> None:
    image_set.images[splits.train[0]] = image_set.images[splits.test[0]]
    image_set.images[splits.train[0], 0, 0, 0] ^= 1
    assert audit_image_set(image_set, splits).num_leaks == 0


def test_duplicates_between_held_out_splits_are_no_training_leak(image_set: ImageSet, splits: Splits) -> None:
    image_set.images[splits.search[0]] = image_set.images[splits.test[0]]
    report = audit_image_set(image_set, splits)
    assert (report.num_duplicates, report.num_leaks) == (1, 0)


def test_images_outside_every_split_do_not_count(image_set: ImageSet, splits: Splits) -> None:
    image_set.images[splits.test[-1]] = image_set.images[splits.train[0]]
    smaller = dataclasses.replace(splits, test=splits.test[:-1])
    assert audit_image_set(image_set, splits).num_leaks == 1
    assert audit_image_set(image_set, smaller).num_leaks == 0
    assert audit_image_set(image_set, smaller).num_duplicates == 0


def test_blank_images_are_counted_and_named(image_set: ImageSet, splits: Splits) -> None:
    for index in range(2):
        image_set.images[index] = 10 + index
    assert audit_image_set(image_set, splits).problems == ()
    image_set.images[2] = 12
    with pytest.raises(UserInputError, match="3 of 200 are: sample 0, sample 1, sample 2"):
        check_image_set(image_set, splits)


def test_floats_rounded_to_bytes_are_recognized(image_set: ImageSet, splits: Splits) -> None:
    dim = dataclasses.replace(image_set, images=(image_set.images > 128).astype(np.uint8))
    with pytest.raises(UserInputError, match="no value is above 1"):
        check_image_set(dim, splits)


def test_a_long_tail_of_rare_classes_is_no_problem_of_the_images(image_set: ImageSet, splits: Splits) -> None:
    labels = np.zeros(200, dtype=np.int64)
    labels[splits.train[0]] = 1
    skewed = dataclasses.replace(image_set, labels=labels, class_names=("many", "few"))
    assert audit_image_set(skewed, splits).problems == ()


def test_a_class_without_images_and_masks_without_objects(image_set: ImageSet, splits: Splits) -> None:
    assert image_set.masks is not None
    image_set.masks[5] = False
    more = dataclasses.replace(image_set, class_names=(*image_set.class_names, "ghost"))
    problems = audit_image_set(more, splits).problems
    assert any("ghost" in p and p.startswith("labels: ") for p in problems)
    assert any(p.startswith("masks: 1 masks mark no object: sample 5") for p in problems)
    misfit = dataclasses.replace(image_set, masks=image_set.masks[:, :-1])
    assert any("masks must have" in p for p in audit_image_set(misfit, splits).problems)


SOUND = torch.linspace(-2, 2, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)


def test_a_valid_batch() -> None:
    stage = audit_batch("input", SOUND, "NCHW", -4.0, 4.0)
    assert stage.problem is None
    assert (stage.shape, stage.dtype, stage.layout) == ((2, 3, 4, 4), "float32", "NCHW")
    assert (stage.minimum, stage.maximum) == (-2.0, 2.0)
    assert audit_batch("input", SOUND.bfloat16(), "NCHW", -4.0, 4.0).problem is None


def with_value(value: float) -> Tensor:
    changed = SOUND.clone()
    changed[1, 2, 3, 3] = value
    return changed


@pytest.mark.parametrize(
    ("tensor", "layout", "words"),
    [
        (with_value(float("nan")), "NCHW", "1 of 96 values are NaN"),
        (with_value(float("inf")), "NCHW", "1 of 96 values are NaN or infinite"),
        (torch.full((1, 3, 2, 2), float("nan")), "NCHW", "12 of 12"),
        (with_value(4.5), "NCHW", "4.5"),
        (with_value(-5.0), "NCHW", "-5"),
        (SOUND[0], "NCHW", "4 dimensions"),
        (SOUND.permute(0, 2, 3, 1), "NCHW", "3 channels"),
        (SOUND.double(), "NCHW", "float64"),
        (SOUND.to(torch.uint8), "NCHW", "uint8"),
        (SOUND[:0], "NCHW", "no values"),
    ],
)
def test_invalid_batches(tensor: Tensor, layout: str, words: str) -> None:
    problem = audit_batch("input", tensor, layout, -4.0, 4.0).problem
    assert problem is not None
    assert words in problem


def test_equal_images_of_many_classes_are_refused_in_a_short_message_and_listed_whole_in_a_file() -> None:
    """529 masks without a defect are equal; their group alone made a message of 22,000 characters."""
    images = np.zeros((600, 8, 8, 3), dtype=np.uint8)
    images[:, 0, 0] = np.arange(600)[:, None] // 200 + 1
    labels = np.arange(600) % 4
    names = tuple(
        f"class_{label}/a folder with a rather long name/image-{number:04d}.png" for number, label in enumerate(labels)
    )
    origin = ImageOrigin(names=names, sizes=np.full((600, 2), 8, dtype=np.int32), kinds={"RGB": 600})
    image_set = ImageSet(images=images, labels=labels, class_names=("a", "b", "c", "d"), origin=origin)
    with pytest.raises(UserInputError) as caught:
        check_image_set(
            image_set, make_splits(image_set, seed=0, search_fraction=0.2, confirm_fraction=0.2, test_fraction=0.2)
        )
    message = str(caught.value)
    assert len(message) < 4000
    full = re.search(r"the full list is in (\S+)", message)
    assert full is not None
    listed = Path(full[1]).read_text()
    assert all(name in listed for name in names)
    Path(full[1]).unlink()
