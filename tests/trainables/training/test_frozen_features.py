"""Features are computed once per content; a damaged or foreign file is not used."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from search_spaces.config import TrialConfig
from trainables.models.heads import Head
from trainables.training import frozen_features as features
from trainables.training.frozen_features import FrozenBackbone, borrow_backbone, default_cache, digest_images, downscale


class Counting(nn.Module):
    """A network of channel means that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return inputs.mean(dim=(2, 3))


CONFIG = TrialConfig(
    arm="x",
    seed=0,
    hyperparameters={"backbone": "resnet18"},
    fixed={"image_size": 16, "interpolation": "bicubic", "channels_last": True, "precision": "fp32", "weights": "a"},
)


@pytest.fixture
def backbone(tmp_path: Path) -> FrozenBackbone:
    return FrozenBackbone(
        model=Counting(), config=CONFIG, device=torch.device("cpu"), identity="a", cache=tmp_path / "features"
    )


IMAGES = np.random.default_rng(0).integers(0, 256, size=(5, 12, 12, 3), dtype=np.uint8)


def count(backbone: FrozenBackbone) -> int:
    assert isinstance(backbone.model, Counting)
    return backbone.model.calls


def entries(backbone: FrozenBackbone) -> list[Path]:
    return sorted(backbone.cache.glob("*.npy"))


def test_the_second_call_reads_the_cache(backbone: FrozenBackbone) -> None:
    digest = digest_images(IMAGES)
    first = backbone.compute(IMAGES, digest)
    assert first.shape == (5, 3)
    np.testing.assert_array_equal(backbone.compute(IMAGES, digest), first)
    assert count(backbone) == 1
    assert len(entries(backbone)) == 1


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
    assert len(entries(backbone)) == 5


def test_a_damaged_file_is_computed_again(backbone: FrozenBackbone) -> None:
    digest = digest_images(IMAGES)
    first = np.array(backbone.compute(IMAGES, digest))
    (path,) = entries(backbone)
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
    assert len(entries(backbone)) == 2
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


def test_parts_and_views_are_entries_of_their_own(backbone: FrozenBackbone) -> None:
    images, digest = torch.from_numpy(IMAGES), digest_images(IMAGES)
    config = replace(
        backbone.config, fixed={**backbone.config.fixed, "cutmix_probability": 0.9, "flip_probability": 1.0}
    )
    backbone = replace(backbone, config=config)
    whole = backbone.compute_part(images, np.arange(5), digest)
    np.testing.assert_array_equal(whole, backbone.compute(IMAGES, digest))
    np.testing.assert_array_equal(backbone.compute_part(images, np.array([3, 1]), digest), whole[[3, 1]])
    first, second = (np.array(backbone.compute_part(images, np.arange(5), digest, view=v)) for v in (1, 2))
    assert not np.array_equal(first, second)
    for path in entries(backbone):
        path.unlink()
    np.testing.assert_array_equal(backbone.compute_part(images, np.arange(5), digest, view=1), first)


def test_an_image_that_changed_is_computed_again(backbone: FrozenBackbone) -> None:
    changed = IMAGES.copy()
    changed[2] = 255 - changed[2]
    first = backbone.compute_part(torch.from_numpy(IMAGES), np.arange(5), "same")
    second = backbone.compute_part(torch.from_numpy(changed), np.arange(5), "same")
    assert not np.array_equal(first, second)


def test_features_are_mapped_from_their_file_chunk_by_chunk(
    backbone: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.array(backbone.compute_part(torch.from_numpy(IMAGES), np.arange(5), "a"))
    monkeypatch.setattr(features, "CHUNK_IMAGES", 2)
    found = backbone.compute_part(torch.from_numpy(IMAGES), np.arange(5), "b")
    assert isinstance(found, np.memmap)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_borrowing_a_backbone_gives_its_model_back(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), Head(768, 4)).train()
    with borrow_backbone(model, CONFIG, torch.device("cpu")) as borrowed:
        assert not model.training
        images = torch.zeros(3, 16, 16, 3, dtype=torch.uint8)
        assert replace(borrowed, cache=tmp_path).compute_part(images, np.arange(3), "x").shape == (3, 768)
    assert model.training
    assert isinstance(model[1], Head)
