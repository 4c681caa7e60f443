"""Masks beside photographs are left out as images, carried to the audits if all images have one, or refused in one message."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from search_spaces.errors import UserInputError
from tests.trainables.data.sources.layout_files import MASK_WIDTH, draw_mask, draw_tile, write_table, write_tiles
from trainables.data.image_array import PAD_COLOR
from trainables.data.image_audit import audit_image_set
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import ImageSet
from trainables.data.sources import load_image_set
from trainables.data.sources.folders import masks as mask_files
from trainables.data.sources.folders.layouts import find_layout
from trainables.data.sources.folders.manifest import list_paths
from trainables.data.splits import make_splits


def load(root: Path, **options: Any) -> ImageSet:
    return load_image_set("folder", root, image_size=14, **options)


def read_note(image_set: ImageSet) -> str:
    assert image_set.origin is not None
    (note,) = image_set.origin.notes
    return note


def get_masks(image_set: ImageSet) -> NDArray[np.bool_]:
    assert image_set.masks is not None, read_note(image_set)
    return image_set.masks


@pytest.mark.parametrize(("name", "suffix"), [("{}.png", ".jpg"), ("{}_mask.png", ".jpg"), ("{}_MASK.PNG", ".png")])
def test_masks_are_no_images_and_reach_the_audits(tmp_path: Path, name: str, suffix: str) -> None:
    image_set = load(write_tiles(tmp_path, name=name, suffix=suffix))
    assert image_set.class_names == ("crack", "free")
    assert image_set.images.shape == (16, 16, 16, 3)
    assert read_note(image_set) == "16 masks left out as images; the audits and heat maps use them"
    masks = get_masks(image_set)
    # 48 x 32 px become 24 x 16 px, of which columns 4 to 19 are kept: 20 to 28 become 10 to 14, then 6 to 10.
    expected = np.zeros((16, 16), dtype=bool)
    expected[:, 6:10] = True
    np.testing.assert_array_equal(masks, np.stack([expected] * 8 + [np.zeros_like(expected)] * 8))
    splits = make_splits(image_set, seed=0, search_fraction=0.2, confirm_fraction=0.2, test_fraction=0.2)
    assert not [p for p in audit_image_set(image_set, splits).problems if "masks" in p], (
        "a class without objects is no fault"
    )


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{0}/images/{1}.jpg", "{0}/masks/{1}.png"),
        ("images/{0}/{1}.png", "masks/{0}/{1}.png"),
        ("{0}/{1}.jpg", "{0}/ground_truth/{1}_mask.png"),
    ],
)
def test_masks_in_folders_of_their_own_are_no_classes(tmp_path: Path, image: str, mask: str) -> None:
    source = write_tiles(tmp_path / "beside")
    for file in [*source.rglob("*.jpg"), *source.rglob("*.png")]:
        name = (image if file.suffix == ".jpg" else mask).format(file.parts[-3], file.stem)
        (tmp_path / "tiles" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).save(tmp_path / "tiles" / name)
    image_set = load(tmp_path / "tiles")
    assert image_set.class_names == ("crack", "free")
    assert len(image_set) == 16
    assert read_note(image_set) == "16 masks left out as images; the audits and heat maps use them"
    assert np.array_equal(get_masks(image_set).any(axis=(1, 2)), image_set.labels == 0)


def test_photographs_in_a_folder_called_mask_are_a_class(tmp_path: Path) -> None:
    for start, label in enumerate(("mask", "images")):
        (tmp_path / label).mkdir()
        for i in range(8):
            draw_tile(1000 * start + i).save(tmp_path / label / f"{i}.{('png', 'jpg')[start]}")
    assert load(tmp_path).class_names == ("images", "mask")


def test_a_manifest_names_masks_in_a_column(tmp_path: Path) -> None:
    root = write_tiles(tmp_path / "tiles", name="{}_truth.png")
    images = sorted(root.rglob("*.jpg"))
    rows = [[str(i.relative_to(tmp_path)), i.parts[-3], str(i.with_name(f"{i.stem}_truth.png"))] for i in images]
    table = write_table(tmp_path / "tiles.csv", ["path", "label", "Mask"], rows)
    found = load(table)
    assert read_note(found) == "16 masks left out as images; the audits and heat maps use them"
    assert np.array_equal(get_masks(found).any(axis=(1, 2)), found.labels == 0)
    assert {row[2] for row in rows} <= set(list_paths(table)), "they are fetched with the images"
    (root / "crack/Imgs/3_truth.png").unlink()
    with pytest.raises(UserInputError, match=r"tiles\.csv has 1 masks that do not exist: .*3_truth\.png \(line 5\)"):
        load(table)
    write_table(tmp_path / "tiles.csv", ["path", "label", "mask"], [[*row[:2], ""] for row in rows[:1]] + rows[1:])
    (root / "crack/Imgs/3_truth.png").write_bytes((root / "crack/Imgs/2_truth.png").read_bytes())
    assert read_note(load(table)).endswith("do not use them: 1 of 16 images have none")


def test_masks_follow_the_images_that_are_used(tmp_path: Path) -> None:
    root = write_tiles(tmp_path)
    (root / "crack/Imgs/0.jpg").write_bytes(b"damaged")
    assert len(get_masks(load(root, on_bad_image="skip"))) == 15
    assert len(get_masks(load(root, on_bad_image="skip", num_images=8))) <= 8
    squashed = get_masks(load(root, on_bad_image="skip", aspect="squash"))
    np.testing.assert_array_equal(np.flatnonzero(squashed[0, 0]), np.arange(20, 28))


@pytest.mark.parametrize("value", [255, 1])
def test_padding_is_no_object(tmp_path: Path, value: int) -> None:
    root = write_tiles(tmp_path)
    draw_mask(20, 28, value=value).save(root / "crack/Imgs/0.png")
    image_set = load(root, aspect="pad", native_size=48)
    masks = get_masks(image_set)
    expected = np.zeros((48, 48), dtype=bool)
    expected[8:40, 20:28] = True
    np.testing.assert_array_equal(masks[0], expected)
    assert not masks[8:].any(), "a mask of one color"
    assert (image_set.images[0][:8] == PAD_COLOR).all()


@pytest.mark.parametrize(
    ("image", "columns"),
    [
        (draw_mask(20, 28, value=1), [6, 7, 8, 9]),
        (draw_mask(20, 28).convert("1"), [6, 7, 8, 9]),
        (Image.merge("RGB", [draw_mask(20, 28, 128), draw_mask(0, 0), draw_mask(0, 0)]), [6, 7, 8, 9]),
        (draw_mask(0, MASK_WIDTH), list(range(16))),
        # Two of 48 columns become one of 24, at about its whole brightness.
        (draw_mask(20, 22), [6]),
    ],
)
def test_the_brighter_color_is_the_object(tmp_path: Path, image: Image.Image, columns: list[int]) -> None:
    root = write_tiles(tmp_path)
    image.save(root / "crack/Imgs/0.png")
    np.testing.assert_array_equal(np.flatnonzero(get_masks(load(root))[0, 5]), columns)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda folder: (folder / "0.png").unlink(), "1 of 16 images have none"),
        (
            lambda folder: (folder / "0.png").write_bytes(b""),
            "image files: 1 of 16 images cannot be used: Imgs/0.png (empty",
        ),
        (
            lambda folder: draw_mask(2, 5).resize((90, 32), Image.Resampling.NEAREST).save(folder / "0.png"),
            "1 have another size than their images",
        ),
        (
            lambda folder: draw_mask(0, 0).save(folder / "0.png"),
            "1 mark nothing, unlike others of their class, such as Imgs/0.png",
        ),
        (
            lambda folder: draw_mask(0, 6).save(folder / "0.png"),
            'a crop of the center cuts the whole object off 1 images, such as Imgs/0.png; data.aspect = "pad" keeps it',
        ),
    ],
)
def test_masks_that_the_audits_cannot_use_are_left_out_with_the_reason(
    tmp_path: Path, fault: Callable[[Path], object], reason: str
) -> None:
    root = write_tiles(tmp_path)
    fault(root / "crack/Imgs")
    image_set = load(root)
    assert image_set.masks is None
    assert len(image_set) == 16
    assert f"the audits and heat maps do not use them: {reason}" in read_note(image_set)


@pytest.mark.parametrize(("memory_bytes", "streams"), [(20_000, False), (10**9, True)])
def test_masks_of_images_that_memory_does_not_hold_are_left_out(
    tmp_path: Path, memory_bytes: int, streams: bool
) -> None:
    root = write_tiles(tmp_path / "tiles")
    budget = ImageMemoryBudget(memory_bytes, tmp_path / "decoded", streams=streams)
    image_set = load(root, memory_budget=budget)
    assert image_set.masks is None
    assert "do not use them: the images are streamed, or take more than" in read_note(image_set)


def test_pairs_of_photographs_are_images(tmp_path: Path) -> None:
    root = write_tiles(tmp_path)
    for i in range(8):
        for start, label in enumerate(("crack", "free")):
            draw_tile(50_000 + 1000 * start + i).save(root / label / "Imgs" / f"{i}.png")
    draw_mask(0, 0).save(root / "free/Imgs/3.png")
    image_set = load(root)
    assert len(image_set) == 32
    assert image_set.origin is not None
    assert image_set.origin.notes == ()


def test_of_many_masks_a_few_are_decoded_to_find_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_files, "MAX_LOOKED_AT", 5)
    root = write_tiles(tmp_path)
    opened: list[str] = []
    count = mask_files._count_colors_of
    monkeypatch.setattr(mask_files, "_count_colors_of", lambda _, file: opened.append(file.name) or count(0, file))
    assert len(find_layout(root).files) == 16
    assert len(opened) == 5
    assert {name.partition("/")[0] for name in opened} == {"crack", "free"}


def refuse(root: Path) -> str:
    with pytest.raises(UserInputError) as caught:
        load(root)
    return str(caught.value)


def test_a_mask_with_soft_edges_is_one_among_others(tmp_path: Path) -> None:
    root = write_tiles(tmp_path)
    draw_mask(20, 28).resize((96, 64)).resize((48, 32)).save(root / "crack/Imgs/2.png")
    masks = get_masks(load(root))
    np.testing.assert_array_equal(masks[2], masks[3])


@pytest.mark.parametrize("name", ["{}.png", "{}_mask.png"])
def test_masks_without_images(tmp_path: Path, name: str) -> None:
    root = write_tiles(tmp_path, name=name)
    for i in (3, 5):
        (root / "crack/Imgs" / f"{i}.jpg").unlink()
    listed = ", ".join(f"crack/Imgs/{name.format(i)}" for i in (3, 5))
    assert refuse(root) == f"{root}: masks without an image: {listed}; add their images, or remove them"
    for file in root.rglob("*.jpg"):
        file.unlink()
    message = refuse(root)
    assert message.startswith(f"{root}: masks of one color or two without images: crack/"), message


def test_drawings_of_two_colors_are_images(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(8):
            draw_mask(i, i + 10 + 10 * (label == "b")).save(tmp_path / label / f"{i}.png")
    assert len(load(tmp_path)) == 16


def test_images_of_one_stem_in_three_formats(tmp_path: Path) -> None:
    root = write_tiles(tmp_path)
    for i in (1, 2):
        for suffix in ("png", "bmp"):
            draw_tile(i).save(root / "crack/Imgs" / f"{i}.{suffix}")
    draw_tile(7).resize((20, 20)).save(root / "free/Imgs/1.bmp")
    message = refuse(root)
    assert message.startswith(
        f"{root}: images of one stem and size in three files or more: crack/Imgs/1.bmp = crack/Imgs/1.jpg"
    )
    assert message.endswith("crack/Imgs/2.png; keep one file of each")
