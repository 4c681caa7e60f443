"""The probe proposes the way to a square that keeps what the classes differ in, and the crop where nothing else is better."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from analysis.images import aspects
from analysis.images.aspects import choose_aspect, show_aspects
from analysis.images.inspection import inspect_images
from analysis.images.render import describe_cut
from tests.analysis.images.test_inspection import make_backbone
from trainables.data.image_array import PAD_COLOR
from trainables.data.images import ImageSet
from trainables.data.near_duplicates import NearDuplicates
from trainables.data.sources import load_image_set
from trainables.data.splits import Splits, make_splits

NUM_OF_CLASS = 40
Draw = Callable[[int, np.random.Generator], NDArray[np.uint8]]


def make_noise(width: int, height: int, generator: np.random.Generator, level: int = 128) -> NDArray[np.uint8]:
    return generator.integers(level - 30, level + 30, (height, width, 3), dtype=np.uint8)


def draw_center(label: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """The object is in the center of a photograph of three squares."""
    image = make_noise(72, 24, generator)
    image[8:16, 32:40, 2 * label] = 255
    return image


def draw_ends(label: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """The object is at one end of a photograph of three squares."""
    image = make_noise(72, 24, generator)
    place = 60 * int(generator.integers(2))
    image[:, place : place + 12, 2 * label] = 255
    return image


def draw_shape(label: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """The aspect ratio is the class."""
    return make_noise(*((72, 24) if label else (30, 24)), generator, level=220)


def load(root: Path, draw: Draw, aspect: str = "crop") -> tuple[ImageSet, Splits]:
    generator = np.random.default_rng(0)
    for label in range(2):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        for number in range(NUM_OF_CLASS):
            Image.fromarray(draw(label, generator)).save(root / str(label) / f"{number}.png")
    image_set = load_image_set("folder", root, image_size=16, aspect=aspect)
    return image_set, make_splits(image_set, seed=0, search_fraction=0.2, confirm_fraction=0.2, test_fraction=0.2)


@pytest.mark.parametrize(
    ("draw", "proposed"), [(draw_center, {"crop"}), (draw_ends, {"pad", "squash"}), (draw_shape, {"pad"})]
)
def test_the_probe_proposes_what_keeps_the_difference_of_the_classes(
    draw: Draw, proposed: set[str], tmp_path: Path
) -> None:
    image_set, splits = load(tmp_path / "images", draw)
    found = choose_aspect(make_backbone(tmp_path / "features"), image_set, splits, "crop", seed=0)
    assert found is not None
    assert found.aspect in proposed, found
    assert found.num_images == 2 * NUM_OF_CLASS - len(splits.test), "no image of the test split"
    assert set(found.macro_f1) == {"crop", "pad", "squash"}
    assert set(found.gains) == {"pad", "squash"}
    if found.aspect != "crop":
        assert found.gains[found.aspect].low > 0
        assert found.macro_f1["crop"] < 0.75 < 0.9 < found.macro_f1[found.aspect]


def test_near_duplicates_are_in_one_fold_of_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_set, splits = load(tmp_path / "images", draw_center)
    alike = NearDuplicates(groups=np.arange(80) // 2 * 2, pairs=np.empty((0, 3), dtype=np.int64))
    given: list[object] = []
    monkeypatch.setattr(aspects, "choose_images", lambda _, __, groups, **___: given.append(groups))
    choose_aspect(make_backbone(tmp_path), replace(image_set, near_duplicates=alike), splits, "crop", seed=0)
    assert given == [pytest.approx(alike.groups)]


def test_what_was_decoded_stays_unless_another_is_better(tmp_path: Path) -> None:
    """All three see the object, so that the one that is set stays, whichever it is."""
    for aspect in ("pad", "squash"):
        image_set, splits = load(tmp_path / "images", draw_ends, aspect)
        found = choose_aspect(make_backbone(tmp_path / "features"), image_set, splits, aspect, seed=0)
        assert found is not None
        assert found.aspect == found.current == aspect


def test_the_inspection_shows_images_in_all_three_ways(tmp_path: Path) -> None:
    image_set, splits = load(tmp_path, draw_shape)
    assert image_set.origin is not None
    shown = inspect_images(image_set, splits, image_size=16, seed=0).squared
    assert {name: images.shape for name, images in shown.items()} == dict.fromkeys(
        ("crop", "pad", "squash"), (3, 18, 18, 3)
    )
    assert (shown["pad"][:, 0] == PAD_COLOR).all()
    assert not (shown["crop"][:, 0] == PAD_COLOR).all(axis=2).any()
    assert (
        describe_cut(image_set.origin.sizes) == "sides differ: a crop of the center cuts 43.3 % of the area on average"
    )


def test_squares_have_nothing_to_show(tmp_path: Path) -> None:
    image_set, splits = load(tmp_path, lambda _, generator: make_noise(24, 24, generator))
    assert image_set.origin is not None
    assert show_aspects(image_set, splits.train) == {}
    assert describe_cut(image_set.origin.sizes) == ""
