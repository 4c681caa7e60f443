"""The probes on a backbone find planted classes and wrong labels, and never see the test split or copies."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from analysis.images.inspection import (
    choose_probe_images,
    count_probe_images,
    find_copies,
    find_doubtful_labels,
    find_exact_duplicates,
    find_near_duplicates,
    inspect_features,
)
from analysis.images.values import NetworkFindings
from search_spaces.config import TrialConfig
from tests.lit_objects import CLASSES, photograph_objects
from trainables.data.images import ImageSet
from trainables.data.near_duplicates import group_near_duplicates
from trainables.data.splits import Splits, make_splits
from trainables.training.frozen_features import FrozenBackbone

WRONG = 5


class Means(nn.Module):
    """Features of a backbone that sees colors only."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean(dim=(2, 3))


def make_backbone(folder: Path, image_size: int = 16) -> FrozenBackbone:
    fixed = {"image_size": image_size, "channels_last": True, "precision": "fp32", "weights": "a"}
    hyperparameters = {"backbone": "resnet18", "interpolation": "bicubic"}
    config = TrialConfig(arm="x", seed=0, hyperparameters=hyperparameters, fixed=fixed)
    return FrozenBackbone(model=Means(), config=config, device=torch.device("cpu"), identity="a", cache=folder)


@pytest.fixture(scope="module")
def data() -> tuple[ImageSet, Splits]:
    """Three classes by color, the last two alike; one label is wrong, and one image has a copy."""
    labels = np.repeat([0, 1, 2], 60)
    images = np.random.default_rng(0).integers(80, 176, size=(180, 12, 12, 3), dtype=np.uint8)
    images[labels == 0, :, :, 0] += 70
    images[100] = images[70]
    labels = labels.copy()
    image_set = ImageSet(images=images, labels=labels, class_names=("red", "gray", "dull"), source="folder")
    splits = make_splits(image_set, seed=0, search_fraction=0.2, confirm_fraction=0.2, test_fraction=0.2)
    labels[splits.train[WRONG]] = 2
    assert splits.train[WRONG] < 60
    return image_set, splits


@pytest.fixture(scope="module")
def found(data: tuple[ImageSet, Splits], tmp_path_factory: pytest.TempPathFactory) -> NetworkFindings:
    image_set, splits = data
    copies = find_exact_duplicates(image_set.images, image_set.labels, splits)
    backbone = make_backbone(tmp_path_factory.mktemp("features"))
    network = inspect_features(backbone, image_set, splits, copies, seed=0)
    assert network is not None
    return network


def test_the_alike_classes_are_the_least_separable_pair(found: NetworkFindings) -> None:
    assert (found.pairs[0].first, found.pairs[0].second) == (1, 2)
    assert found.pairs[0].area.low < 0.6 < 0.95 < found.pairs[1].area.estimate
    assert found.confusion.sum() == found.num_images
    assert [rung.side for rung in found.rungs] == [12, 8]
    assert found.bicubic_gain is not None
    assert found.bicubic_gain.low <= 0 <= found.bicubic_gain.high


def test_the_wrong_label_is_listed(data: tuple[ImageSet, Splits], found: NetworkFindings) -> None:
    assert int(found.label_issues[0].sample_id) == data[1].train[WRONG]
    assert found.label_issues[0].label == "dull"
    assert found.label_issues[0].suggested == "red"


def test_a_wrong_training_label_is_doubtful(data: tuple[ImageSet, Splits], tmp_path: Path) -> None:
    image_set, splits = data
    backbone = make_backbone(tmp_path)
    doubtful = {int(i.sample_id): i for i in find_doubtful_labels(backbone, image_set, splits.train, seed=0, most=50)}
    assert set(doubtful) <= set(splits.train.tolist())
    wrong = doubtful[int(splits.train[WRONG])]
    assert (wrong.label, wrong.suggested) == ("dull", "red")
    assert len(find_doubtful_labels(backbone, image_set, splits.train, seed=0, most=1)) == 1
    assert find_doubtful_labels(backbone, image_set, splits.train[:1], seed=0, most=5) == ()


def test_neither_the_test_split_nor_copies_are_probed(data: tuple[ImageSet, Splits]) -> None:
    image_set, splits = data
    copies = find_exact_duplicates(image_set.images, image_set.labels, splits)
    chosen = choose_probe_images(image_set, splits, copies, num_images=1000, seed=0)
    assert chosen is not None
    assert not set(chosen.sample_ids) & set(splits.test)
    assert 100 not in chosen.sample_ids
    assert len(chosen.sample_ids) == len(np.setdiff1d(np.arange(180), np.append(splits.test, 100)))


def test_images_of_the_input_size_are_not_resampled(data: tuple[ImageSet, Splits], tmp_path: Path) -> None:
    network = inspect_features(make_backbone(tmp_path, image_size=12), *data, (), seed=0)
    assert network is not None
    assert network.bicubic_gain is None


def test_larger_inputs_get_fewer_images_on_a_cpu(tmp_path: Path) -> None:
    small, large = (count_probe_images(make_backbone(tmp_path, image_size=side), 10) for side in (64, 224))
    assert (small, large) == (5000, 1000)


def make_scenes(number: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return images with large structures, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, size=(number, 7, 7, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((32, 32), Image.Resampling.BICUBIC)) for c in coarse])


def splits_of(train: list[int], search: list[int], confirm: list[int], test: list[int]) -> Splits:
    ids = [np.array(part, dtype=np.int64) for part in (train, search, confirm, test)]
    return Splits(train=ids[0], search=ids[1], confirm=ids[2], test=ids[3], data_fingerprint="")


def test_planted_duplicates_are_listed_across_splits_and_conflicts_first() -> None:
    images = make_scenes(40)
    images[1] = images[0]  # inside train
    images[12] = images[2]  # train and search, same label
    images[31] = images[3]  # train and test, different labels
    labels = np.zeros(40, dtype=np.int64)
    labels[31] = 1
    splits = splits_of(list(range(10)), list(range(10, 20)), list(range(20, 30)), list(range(30, 40)))
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
    splits = splits_of([0, 1, 2], [3], [4], [5])
    pairs = find_exact_duplicates(images, np.zeros(6, dtype=np.int64), splits)
    assert [(p.first, p.second, p.is_across) for p in pairs] == [(0, 4, True), (0, 1, False)]


def test_each_near_duplicate_is_paired_with_the_first_of_its_group() -> None:
    found = photograph_objects(4, seed=1, num_lights=3)
    labels = np.append(np.zeros(11, dtype=np.int64), 1)
    image_set = ImageSet(images=found.images, labels=labels, class_names=CLASSES)
    splits = splits_of([0, 1, 3, 4, 5, 6], [2, 7, 9], [10], [11])
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
    splits = splits_of([0], [1], [2], [])
    assert find_exact_duplicates(images, np.zeros(4, dtype=np.int64), splits) == ()
