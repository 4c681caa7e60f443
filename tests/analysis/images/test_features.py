"""Features are computed once per content; a damaged or foreign file is not used."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analysis.images import features
from analysis.images.features import FrozenBackbone, default_cache, digest_images, downscale
from search_spaces.config import TrialConfig


class Counting(nn.Module):
    """A network of channel means that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return inputs.mean(dim=(2, 3))


@pytest.fixture
def backbone(tmp_path: Path) -> FrozenBackbone:
    fixed = {"image_size": 16, "interpolation": "bicubic", "channels_last": True, "precision": "fp32", "weights": "a"}
    config = TrialConfig(arm="x", seed=0, hyperparameters={"backbone": "resnet18"}, fixed=fixed)
    return FrozenBackbone(
        model=Counting(), config=config, device=torch.device("cpu"), identity="a", cache=tmp_path / "features"
    )


IMAGES = np.random.default_rng(0).integers(0, 256, size=(5, 12, 12, 3), dtype=np.uint8)


def count(backbone: FrozenBackbone) -> int:
    assert isinstance(backbone.model, Counting)
    return backbone.model.calls


def test_the_second_call_reads_the_cache(backbone: FrozenBackbone) -> None:
    digest = digest_images(IMAGES)
    first = backbone.compute(IMAGES, digest)
    assert first.shape == (5, 3)
    np.testing.assert_array_equal(backbone.compute(IMAGES, digest), first)
    assert count(backbone) == 1
    assert [p.suffix for p in backbone.cache.iterdir()] == [".safetensors"]


def test_another_content_side_interpolation_or_weights_is_another_entry(backbone: FrozenBackbone) -> None:
    digest = digest_images(IMAGES)
    backbone.compute(IMAGES, digest)
    backbone.compute(IMAGES, digest, side=8)
    backbone.compute(IMAGES, digest, interpolation="bilinear")
    replace(backbone, identity="b").compute(IMAGES, digest)
    changed = IMAGES.copy()
    changed[0, 0, 0, 0] ^= 1
    backbone.compute(changed, digest_images(changed))
    assert count(backbone) == 5
    assert len(list(backbone.cache.iterdir())) == 5


def test_a_damaged_file_is_computed_again(backbone: FrozenBackbone) -> None:
    digest = digest_images(IMAGES)
    first = backbone.compute(IMAGES, digest)
    (path,) = backbone.cache.iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    np.testing.assert_array_equal(backbone.compute(IMAGES, digest), first)
    assert count(backbone) == 2


def test_the_cache_forgets_the_entries_that_were_not_used_for_longest(
    backbone: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "MAX_ENTRIES", 2)
    for number in range(4):
        images = np.full((2, 12, 12, 3), number, dtype=np.uint8)
        backbone.compute(images, digest_images(images))
    assert len(list(backbone.cache.iterdir())) == 2
    backbone.compute(images, digest_images(images))
    assert count(backbone) == 4


def test_a_cache_that_cannot_be_written_changes_nothing(backbone: FrozenBackbone, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = replace(backbone, cache=tmp_path / "file" / "features")
    np.testing.assert_array_equal(
        blocked.compute(IMAGES, digest_images(IMAGES)), backbone.compute(IMAGES, digest_images(IMAGES))
    )


def test_downscaled_images_are_whole_numbers_of_the_side() -> None:
    small = downscale(IMAGES, 8, "bicubic")
    assert small.shape == (5, 8, 8, 3)
    assert small.dtype == np.uint8
    assert downscale(IMAGES, 12, "bicubic") is IMAGES


def test_the_cache_lies_beside_the_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "abstudy" / "features"
