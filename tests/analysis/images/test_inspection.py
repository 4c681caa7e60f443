"""The probes on a backbone find planted classes and wrong labels, and never see the test split or copies."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analysis.images.inspection import (
    choose_probe_images,
    count_probe_images,
    find_doubtful_labels,
    find_exact_duplicates,
    inspect_features,
)
from analysis.images.values import NetworkFindings
from search_spaces.config import TrialConfig
from trainables.data.images import ImageSet
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
