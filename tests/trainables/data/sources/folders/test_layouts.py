"""Each layout that people have goes from files on disk to splits; everything wrong with a folder is in one message."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from search_spaces.errors import UserInputError
from tests.trainables.data.sources.layout_files import (
    refuse_source,
    write_classes,
    write_image,
    write_imagefolder,
    write_listed,
    write_splits,
    write_table,
)
from trainables.data.images import ImageSet, describe_skipped
from trainables.data.problems import Problem, make_error
from trainables.data.sources import load_image_set
from trainables.data.sources.folders.layouts import find_layout
from trainables.data.splits import SPLIT_NAMES, Splits, make_splits


def split(image_set: ImageSet) -> Splits:
    test_fraction = 0.2 if image_set.official_test is None else None
    return make_splits(
        image_set, seed=0, search_fraction=0.2, confirm_fraction=0.2, test_fraction=test_fraction, num_test_images=None
    )


def load(path: Path, **options: Any) -> tuple[ImageSet, dict[str, int]]:
    """Return the images and the sizes of their splits, which are disjoint and cover all of them."""
    image_set = load_image_set("folder", path, **options)
    splits = split(image_set)
    parts = [getattr(splits, name) for name in SPLIT_NAMES]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(image_set)))
    return image_set, {name: len(part) for name, part in zip(SPLIT_NAMES, parts, strict=True)}


def refuse(path: Path, *words: str, **options: Any) -> str:
    return refuse_source("folder", path, *words, **options)


# --- class folders ---------------------------------------------------------------------------------------------------


def test_one_folder_per_class(tmp_path: Path) -> None:
    image_set, sizes = load(write_classes(tmp_path, ("dog", "cat")))
    assert image_set.class_names == ("cat", "dog")
    assert sizes == {"train": 16, "search": 8, "confirm": 8, "test": 8}


@pytest.mark.parametrize(
    ("folders", "sizes", "kind"),
    [
        ({"train": 20, "val": 10}, (32, 10, 10, 8), "class folders in train/ and val/"),
        ({"Training": 20, "TESTING": 10}, (24, 8, 8, 20), "class folders in Training/ and TESTING/"),
        ({"train": 20, "dev": 4, "test": 6}, (40, 4, 4, 12), "class folders in train/ and dev/ and test/"),
        (
            {"train": 20, "Validation": 4, "test": 6},
            (40, 4, 4, 12),
            "class folders in train/ and Validation/ and test/",
        ),
        ({"train": 20, "valid": 4}, (32, 4, 4, 8), "class folders in train/ and valid/"),
    ],
)
def test_published_splits(tmp_path: Path, folders: dict[str, int], sizes: tuple[int, ...], kind: str) -> None:
    write_splits(tmp_path, folders)
    assert find_layout(tmp_path).kind == kind
    image_set, found = load(tmp_path)
    assert tuple(found.values()) == sizes
    splits = split(image_set)
    if image_set.official_validation is not None:
        both = np.union1d(splits.search, splits.confirm)
        np.testing.assert_array_equal(both, np.flatnonzero(image_set.official_validation))
    if image_set.official_test is not None:
        np.testing.assert_array_equal(splits.test, np.flatnonzero(image_set.official_test))


def test_nested_folders_are_classes_by_their_path(tmp_path: Path) -> None:
    write_classes(tmp_path, ("animals/cat", "animals/dog", "cars"))
    layout = find_layout(tmp_path)
    assert layout.kind == "nested class folders"
    assert layout.files[0].name == "animals/cat/000.png"
    image_set, _ = load(tmp_path)
    assert image_set.class_names == ("animals/cat", "animals/dog", "cars")


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (("MT_Free/Imgs", "MT_Fray/Imgs"), ("MT_Fray", "MT_Free")),
        (("all/photos/cat/a", "all/photos/dogs/big/a"), ("cat", "dogs/big")),
        (("cat/a", "dog/b"), ("cat/a", "dog/b")),
        (("cat", "dog/cat"), ("cat", "dog/cat")),
        (("cat/a", "cat/b"), ("a", "b")),
    ],
)
@pytest.mark.parametrize("splits", [("",), ("train", "val")])
def test_folders_that_every_class_has_are_no_part_of_its_name(
    tmp_path: Path, folders: tuple[str, ...], classes: tuple[str, ...], splits: tuple[str, ...]
) -> None:
    for start, name in enumerate(splits):
        write_classes(tmp_path / name, folders, per_class=4, start=5000 * start)
    write_image(tmp_path / "poster.png", 99)
    layout = find_layout(tmp_path)
    assert layout.class_names == classes
    assert layout.kind.startswith("nested") == any("/" in name for name in classes)
    assert load_image_set("folder", tmp_path).class_names == classes


def test_a_folder_that_the_classes_of_one_split_alone_have_stays(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", ("cat/a", "dog/a", "eel/b"), per_class=2)
    write_classes(tmp_path / "val", ("cat/a", "dog/a"), per_class=2, start=9000)
    assert find_layout(tmp_path).class_names == ("cat/a", "dog/a", "eel/b")


def test_labels_of_a_manifest_stay_as_they_are(tmp_path: Path) -> None:
    rows = [[write_image(tmp_path / f"{i}.png", i).name, f"a/{'xy'[i % 2]}"] for i in range(8)]
    assert find_layout(write_table(tmp_path / "x.csv", ["path", "label"], rows)).class_names == ("a/x", "a/y")


def test_with_groups_the_last_folder_is_the_group_also_below_nested_classes(tmp_path: Path) -> None:
    for number in range(10):
        for i, name in enumerate(("animals/cat", "cars")):
            write_classes(tmp_path / name, (f"p{number}",), per_class=2, start=100_000 * number + 10 * i)
    image_set, _ = load(tmp_path, group="patient")
    assert image_set.class_names == ("animals/cat", "cars")
    assert image_set.groups is not None
    splits, groups = split(image_set), image_set.groups
    owners = [set(groups[getattr(splits, name)].tolist()) for name in SPLIT_NAMES]
    assert sum(map(len, owners)) == 10


def test_a_folder_around_everything_is_entered(tmp_path: Path) -> None:
    write_splits(tmp_path / "archive" / "photos", {"train": 20, "val": 4})
    (tmp_path / "__MACOSX").mkdir()
    layout = find_layout(tmp_path)
    assert layout.root == tmp_path / "archive" / "photos"
    assert layout.count_splits() == {"train": 40, "validation": 8}


def test_files_that_are_not_images_are_skipped_and_counted(tmp_path: Path) -> None:
    write_classes(tmp_path)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "cat" / "notes.txt").write_text("notes")
    (tmp_path / "cat" / "wave.GIF").write_bytes(b"GIF89a")
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"x")
    os.mkfifo(tmp_path / "dog" / "pipe.png")
    (tmp_path / "dog" / "up").symlink_to(tmp_path)
    skipped = {file.name: file.reason for file in find_layout(tmp_path).skipped}
    assert skipped.pop("cat/wave.GIF").startswith("a GIF")
    assert skipped == {
        "README.md": "not an image",
        "cat/notes.txt": "not an image",
        "dog/pipe.png": "not a regular file",
        "dog/up": "a link to a folder that contains it",
    }
    assert len(load_image_set("folder", tmp_path)) == 40


@pytest.mark.parametrize("layout", ["class folders", "splits"])
def test_images_beside_class_folders_are_left_out_and_named(tmp_path: Path, layout: str) -> None:
    if layout == "splits":
        write_splits(tmp_path, {"train": 20, "val": 6})
    else:
        write_classes(tmp_path)
    num_images = len(find_layout(tmp_path).files)
    write_image(tmp_path / "poster.png", 5)
    if layout == "splits":
        write_image(tmp_path / "val" / "poster.png", 6)
    found = find_layout(tmp_path)
    assert (len(found.files), found.found_problems) == (num_images, ())
    names = ["poster.png", "val/poster.png"] if layout == "splits" else ["poster.png"]
    assert [file.name for file in found.skipped] == names
    assert all("move it into the folder of" in file.reason for file in found.skipped)
    origin = load(tmp_path)[0].origin
    assert origin is not None
    assert origin.skipped == found.skipped
    assert describe_skipped(found.skipped).startswith(f"{len(names)} file")


def test_a_folder_of_images_alone_is_refused_by_name(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", 1)
    (tmp_path / "cat").mkdir()
    refuse(tmp_path, "1 images that are not in a class folder: 1.png;", "two classes or more")


# --- manifests and imagefolders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["csv", "folder"])
def test_a_manifest_with_groups(tmp_path: Path, given: str) -> None:
    file = write_listed(tmp_path)
    image_set, _ = load(file if given == "csv" else tmp_path, group="patient")
    assert find_layout(tmp_path).kind == "manifest labels.csv"
    assert image_set.labels.tolist() == [0, 1] * 20
    assert image_set.groups is not None
    assert image_set.name_group(int(image_set.groups[-1])) == "p9"
    assert load(file)[0].groups is None


def test_a_manifest_with_splits_and_a_column_called_group(tmp_path: Path) -> None:
    file = write_listed(tmp_path, count=80, splits=True)
    file.write_text(file.read_text().replace("patient", "Group"))
    image_set, sizes = load(file)
    assert sizes["test"] == 20
    assert sizes["train"] == 40
    assert image_set.groups is not None


def test_a_manifest_may_be_parquet_with_absolute_paths_and_numbers(tmp_path: Path) -> None:
    files = [str(write_image(tmp_path / "far" / f"{i}.png", i)) for i in range(44)]
    table = pa.table({"File": files, "Class": [i % 11 for i in range(44)]})
    (tmp_path / "near").mkdir()
    pq.write_table(table, tmp_path / "near" / "list.parquet")
    image_set = load_image_set("folder", tmp_path / "near" / "list.parquet")
    assert image_set.class_names == tuple(map(str, range(11)))
    assert image_set.labels.tolist() == [i % 11 for i in range(44)]


def test_the_delimiter_of_spreadsheets_is_read(tmp_path: Path) -> None:
    rows = [[write_image(tmp_path / f"{i}, at home.png", i).name, "ab"[i % 2]] for i in range(8)]
    write_table(tmp_path / "x.csv", ["image", "label"], rows, delimiter=";")
    assert len(find_layout(tmp_path / "x.csv").files) == 8


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_an_imagefolder_with_metadata_in_each_split(tmp_path: Path, name: str) -> None:
    write_imagefolder(tmp_path, {"train": 20, "validation": 8, "test": 6}, name)
    layout = find_layout(tmp_path)
    assert layout.kind == f"Hugging Face imagefolder with {name} in train/ and validation/ and test/"
    assert layout.files[-1].name == "test/005.png"
    assert load(tmp_path)[1] == {"train": 20, "search": 4, "confirm": 4, "test": 6}


def test_an_imagefolder_with_metadata_at_the_root(tmp_path: Path) -> None:
    rows = []
    for folder, count in {"train": 20, "test": 6}.items():
        for i in range(count):
            file = write_image(tmp_path / folder / f"{i}.png", 100 * len(folder) + i)
            rows.append([str(file.relative_to(tmp_path)), ["cat", "dog"][i % 2]])
    write_table(tmp_path / "metadata.csv", ["file_name", "label"], rows)
    assert find_layout(tmp_path).kind == "Hugging Face imagefolder with metadata.csv"
    assert load(tmp_path)[1] == {"train": 12, "search": 4, "confirm": 4, "test": 6}


def test_manifests_that_are_called_as_splits(tmp_path: Path) -> None:
    for start, (name, count) in enumerate({"train": 20, "val": 8}.items()):
        rows = [[write_image(tmp_path / "all" / f"{name}{i}.png", 99 * start + i).name, i % 2] for i in range(count)]
        write_table(tmp_path / f"{name}.csv", ["path", "label"], [[f"all/{path}", label] for path, label in rows])
    assert find_layout(tmp_path).count_splits() == {"train": 20, "validation": 8}


def test_a_table_that_is_no_manifest_does_not_hide_class_folders(tmp_path: Path) -> None:
    write_classes(tmp_path)
    write_table(tmp_path / "scores.csv", ["name", "score"], [["a", 1]])
    layout = find_layout(tmp_path)
    assert layout.kind == "class folders"
    assert [file.name for file in layout.skipped] == ["scores.csv"]


# --- problems --------------------------------------------------------------------------------------------------------


def test_everything_wrong_with_a_manifest_is_in_one_message(tmp_path: Path) -> None:
    file = write_listed(tmp_path, splits=True)
    more = [
        "images/000.png,dog,p0,train",
        ",cat,p0,train",
        "images/lost.png,cat,p0,train",
        "images/\0.png,cat,p0,train",
    ]
    write_image(tmp_path / "images" / "040.png", 40)
    write_image(tmp_path / "images" / "041.png", 41)
    more += ["images/040.png,,p0,trian", "images/041.png,cat,,", "~nobody-has-this-name/x.png,cat,p0,train"]
    file.write_text(file.read_text() + "\n".join(more))
    refuse(
        file,
        "7 problems",
        "listed more than once: images/000.png (line 2 and line 42)",
        "1 rows without a path: line 43",
        "3 files that do not exist: images/lost.png (line 44), images/\\x00.png (line 45), ~nobody-has-this-name/x.png (line 48)",
        "rows without a label: line 46",
        "splits that are not known: 'trian' (line 46)",
        "rows without a group: line 47",
        "rows without a split: line 47",
        group="patient",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label,class\n", "one column of labels (label, class), but has label and class"),
        ("a,b\n", "one column of paths"),
        ("", "has the columns none"),
        ("path,label\n\xff", "two classes or more, but 0 images"),
    ],
)
def test_a_table_that_cannot_be_a_manifest(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    refuse(tmp_path / "x.csv", words)
    (tmp_path / "x.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    refuse(tmp_path / "x.csv", "x.csv cannot be read as csv in UTF-8")


def test_several_manifests_are_those_of_splits_and_list_different_images(tmp_path: Path) -> None:
    rows = [[write_image(tmp_path / f"{i}.png", i).name, "ab"[i % 2]] for i in range(8)]
    write_table(tmp_path / "train.csv", ["path", "label"], rows)
    write_table(tmp_path / "test.csv", ["path", "label"], rows[6:])
    message = refuse(tmp_path, "images that several manifests list: 6.png, 7.png")
    assert "several manifests in one folder" not in message
    (tmp_path / "test.csv").rename(tmp_path / "labels.csv")
    refuse(tmp_path, "several manifests in one folder: labels.csv, train.csv; set data.path to one")


def test_a_group_that_is_no_column_names_the_nearest(tmp_path: Path) -> None:
    refuse(write_listed(tmp_path), "no column 'patients'", "did you mean 'patient'", group="patients")


def test_classes_that_splits_lack_are_all_named(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", ("a", "b", "c"), per_class=4)
    write_classes(tmp_path / "val", ("a", "d"), per_class=4)
    write_classes(tmp_path / "test", ("a", "b", "c"), per_class=4)
    refuse(
        tmp_path,
        "classes without train images, which other splits have: d;",
        "classes without validation images, which other splits have: b, c;",
        "classes without test images, which other splits have: d;",
    )


def test_unlabeled_test_images_and_other_folders_are_named_together(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", per_class=4)
    write_image(tmp_path / "test" / "1.png", 1)
    write_image(tmp_path / "single" / "2.png", 2)
    write_image(tmp_path / "3.png", 3)
    (tmp_path / "docs").mkdir()
    message = refuse(
        tmp_path,
        "1 images of test/ that are not in a class folder: test/1.png",
        "images beside the folders of the splits: single/",
    )
    assert "docs" not in message
    assert "3.png" not in message, "a loose image is left out"


def test_names_of_classes_that_look_alike_are_one_question(tmp_path: Path) -> None:
    for start, (split, name) in enumerate(
        [("train", "Cat"), ("train", "caf\u00e9"), ("val", "cat "), ("val", "cafe\u0301")]
    ):
        write_classes(tmp_path / split, (name,), per_class=4, start=9000 * start)
    write_classes(tmp_path / "val", ("eel",), per_class=4, start=90_000)
    message = refuse(
        tmp_path,
        "in how accents are encoded: 'Cat' (4) = 'cat ' (4), 'cafe\\u0301' (4) = 'caf\u00e9' (4); if one class",
        "classes without train images, which other splits have: eel;",
    )
    assert "2 problems" in message, message


def test_look_alike_labels_of_a_manifest_are_one_question(tmp_path: Path) -> None:
    rows = [[write_image(tmp_path / f"{i}.png", i).name, ["ant", "Ant", "bee"][i % 3]] for i in range(12)]
    refuse(write_table(tmp_path / "x.csv", ["path", "label"], rows), "'Ant' (4) = 'ant' (4)")


def test_a_decomposed_name_is_composed(tmp_path: Path) -> None:
    write_classes(tmp_path, ("cafe\u0301", "tea"))
    assert find_layout(tmp_path).class_names == ("caf\u00e9", "tea")


def test_folders_of_splits_without_classes_are_no_classes(tmp_path: Path) -> None:
    for start, name in enumerate(("train", "Test")):
        for i in range(8):
            write_image(tmp_path / name / f"{i}.png", 100 * start + i)
    write_table(tmp_path / "train.csv", ["id", "breed"], [[str(i), "collie"] for i in range(8)])
    message = "; ".join(map(str, find_layout(tmp_path).found_problems))
    assert "folders of splits without a folder for each class" in message
    assert "call the columns of the table path and label; train.csv has the columns id, breed" in message
    refuse(tmp_path, "folders of splits without a folder for each class")


def test_a_folder_with_images_and_folders_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path, ("a/b", "a/c", "d"), per_class=2)
    write_image(tmp_path / "a" / "1.png", 1)
    refuse(tmp_path, "the class is not clear: a/ (1 images)", "or set data.group")


def test_one_image_of_each_class_is_one_message(tmp_path: Path) -> None:
    write_classes(tmp_path, [f"bird{number}" for number in range(30)], per_class=1)
    message = refuse(
        tmp_path, "each of the 30 classes has one image: bird0, ", ", and 10 more; give at least four of each"
    )
    assert "fewer than" not in message


def test_two_folders_of_one_split_and_none_of_training(tmp_path: Path) -> None:
    write_splits(tmp_path, {"val": 2, "dev": 2, "test": 2})
    refuse(
        tmp_path,
        "several folders of validation images: dev, val",
        "no folder train/ beside: dev, val, test",
        "there are no training images",
    )


def test_many_names_are_cut_and_all_of_them_are_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = write_classes(tmp_path / "set")
    for number in range(30):
        (root / f"empty{number:02d}").mkdir()
    message = refuse(root, "empty19/, and 10 more; add images", "the full list is in ")
    assert "empty20" not in message
    listed = Path(message.rpartition("the full list is in ")[2])
    assert listed.parent == tmp_path
    assert listed.name.startswith("set-problems-")
    assert "empty29/" in listed.read_text()


def test_a_message_of_many_problems_with_long_lists_and_groups_is_short() -> None:
    files = [f"class {i % 6}/a photograph with a long name {i:04d}.png" for i in range(1000)]
    groups = tuple(tuple(files[i : i + 100]) for i in range(0, 1000, 100))
    problems = [Problem(f"files with fault {n}", groups if n % 2 else tuple(files), "remove them") for n in range(6)]
    error = make_error("photographs", problems)
    assert len(str(error)) < 3000
    assert str(error).count(" more; remove them") == 6, str(error)
    assert "0999" in Path(str(error).rpartition("the full list is in ")[2]).read_text()
    assert len(str(make_error("photographs", problems[:1]))) < 2000
    assert error.problems == tuple(problems)


def test_the_columns_of_many_tables_are_cut(tmp_path: Path) -> None:
    for start, name in enumerate(("train", "test")):
        write_image(tmp_path / name / "1.png", start)
    for number in range(60):
        write_table(tmp_path / f"{number}.csv", [f"column {i} with a long name" for i in range(60)], [])
    assert len(refuse(tmp_path, "0.csv has the columns column 0 with", " more; ")) < 3000


def test_parquet_files_with_images_are_for_the_other_source(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "label": [0]}), tmp_path / "train-0.parquet")
    refuse(tmp_path, 'set data.source to "parquet"')


def test_bad_images_are_in_the_same_message_as_the_folders_problems_and_the_scarce_classes(tmp_path: Path) -> None:
    write_classes(tmp_path, ("cat", "dog"), per_class=4)
    write_classes(tmp_path, ("eel",), per_class=3, start=900_000)
    (tmp_path / "empty").mkdir()
    (tmp_path / "cat" / "000.png").write_bytes(b"")
    (tmp_path / "dog" / "lost.jpg").symlink_to(tmp_path / "nowhere")
    refuse(
        tmp_path,
        "4 problems",
        "folders that hold no image: empty/",
        "2 of 12 images cannot be used: cat/000.png (",
        "dog/lost.jpg (cannot be read (No such file or directory)",
        "the group 'furry' names the class 'dgo'",
        "fewer than 4 images, one for each of train, search, confirm, test: eel (3)",
        class_groups={"furry": ["dgo"]},
    )


def test_bad_images_are_skipped_on_request_and_recorded(tmp_path: Path) -> None:
    write_splits(tmp_path, {"train": 20, "val": 6})
    (tmp_path / "train" / "cat" / "003.png").write_bytes(b"no image")
    (tmp_path / "val" / "dog" / "notes.txt").write_text("x")
    refuse(tmp_path, "train/cat/003.png")
    image_set, sizes = load(tmp_path, on_bad_image="skip")
    assert sum(sizes.values()) == 51
    assert np.bincount(image_set.labels).tolist() == [25, 26]
    assert image_set.official_validation is not None
    assert image_set.official_validation.sum() == 12
    assert image_set.origin is not None
    assert [file.name for file in image_set.origin.skipped] == ["val/dog/notes.txt", "train/cat/003.png"]
    assert "train/cat/003.png" not in image_set.origin.names
    assert len(image_set.origin.names) == len(image_set.origin.sizes) == 51


def test_images_of_all_shapes_are_stored_as_squares(tmp_path: Path) -> None:
    write_classes(tmp_path)
    Image.new("L", (30, 10), 200).save(tmp_path / "cat" / "wide.png")
    assert load(tmp_path, image_size=14)[0].images.shape == (41, 16, 16, 3)


# What people do to a place below a root.
ACTIONS: dict[str, Callable[[Path, str], object]] = {
    "text": lambda root, name: (root / name).write_text("text"),
    "empty": lambda root, name: (root / name).write_bytes(b""),
    "link": lambda root, name: (root / name).symlink_to(root / "nowhere"),
    "loop": lambda root, name: (root / name).symlink_to(root),
    "image": lambda root, name: write_image(root / name, 77),
    "folder": lambda root, name: (root / name).mkdir(),
    "image in a folder": lambda root, name: write_image(root / name / "1.png", 78),
    "manifest": lambda root, name: write_table(root / "table.csv", ["path", "label"], [[name, "a"], [name, ""]]),
    "no manifest": lambda root, _: (root / "table.tsv").write_bytes(b"path,label\n\xff\0"),
    "metadata": lambda root, _: (root / "metadata.jsonl").write_text('{"file_name": 3, "label": "\\ud800"}\n[]\n'),
    "table": lambda root, name: (root / f"{name}.parquet").write_bytes(b"PAR1"),
}


def damage(root: Path, name: str, fault: str) -> None:
    # A place that something else has taken stays as it is.
    with contextlib.suppress(OSError, UnicodeEncodeError):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        ACTIONS[fault](root, name)


PLACES = st.sampled_from(
    ["x.png", "cat/x.png", "cat/x", "train", "val", "test/cat", "train/cat/x.jpg", "cat/\udcff.png", "cat/\n.txt"]
)


@given(
    faults=st.lists(st.tuples(PLACES, st.sampled_from(sorted(ACTIONS))), max_size=6),
    group=st.sampled_from([None, "patient"]),
    per_class=st.integers(0, 5),
    in_splits=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_mixture_of_problems_gives_splits_or_one_message(
    tmp_path_factory: pytest.TempPathFactory,
    faults: list[tuple[str, str]],
    group: str | None,
    per_class: int,
    in_splits: bool,
) -> None:
    root = tmp_path_factory.mktemp("set")
    write_classes(root / "train" if in_splits else root, ("cat", "dog"), per_class)
    (root / "cat").mkdir(exist_ok=True)
    for name, fault in faults:
        damage(root, name, fault)
    message = "one message"
    try:
        load(root, group=group)
    except UserInputError as error:
        message = str(error)
    assert message.encode(), "it can be printed"
    shutil.rmtree(root)
