"""Parquet files: rows in order, official splits, and one message for all problems of all files."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.errors import UserInputError
from tests.trainables.data.sources.layout_files import refuse_source
from tests.trainables.data.sources.parquet_files import (
    CLASSES,
    encode,
    make_pixels,
    write_parquet,
    write_parquet_folder,
)
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.sources import load_image_set, parquet
from trainables.data.sources.labeled_files import load_descriptions


def refuse(*words: str, path: Path, **options: object) -> str:
    return refuse_source("parquet", path, *words, **options)


@given(data=st.binary(max_size=200), magic=st.booleans())
@settings(max_examples=50, deadline=None)
def test_random_bytes_as_parquet_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, magic: bool
) -> None:
    file = tmp_path_factory.getbasetemp() / "hostile.parquet"
    file.write_bytes(b"PAR1" + data + b"PAR1" if magic else data)
    refuse("hostile.parquet", path=file)


@given(cut=st.integers(1, 400), position=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_damaged_parquet_loads_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: int, position: float
) -> None:
    base = tmp_path_factory.getbasetemp()
    whole = base / "whole.parquet"
    if not whole.exists():
        write_parquet(whole, [encode(make_pixels(i)) for i in range(12)], [i % 3 for i in range(12)])
    data = whole.read_bytes()
    at = int(position * len(data))
    file = base / "damaged.parquet"
    file.write_bytes(data[:at] + data[at + cut :])
    message = "damaged.parquet"
    try:
        load_image_set("parquet", file)
    except UserInputError as error:
        message = str(error)
    assert "damaged.parquet" in message


def test_parquet_keeps_rows_in_order_over_shards_and_row_groups(tmp_path: Path) -> None:
    image_set = load_image_set("parquet", write_parquet_folder(tmp_path))
    assert image_set.class_names == CLASSES
    assert image_set.official_test is not None
    for index in range(12):
        np.testing.assert_array_equal(image_set.images[index], make_pixels(index))
        assert image_set.labels[index] == index % 3
    for index in range(6):
        np.testing.assert_array_equal(image_set.images[12 + index], make_pixels(7000 + index))
    assert image_set.official_test.tolist() == [False] * 12 + [True] * 6


def test_one_parquet_file_has_no_official_test(tmp_path: Path) -> None:
    folder = write_parquet_folder(tmp_path)
    image_set = load_image_set("parquet", folder / "train-00000-of-00002.parquet")
    assert image_set.official_test is None
    assert len(image_set) == 6


def test_cifar10_class_names_imply_the_groups(tmp_path: Path) -> None:
    names = load_descriptions()["cifar10"].class_names
    file = write_parquet(tmp_path / "x.parquet", [encode(make_pixels(i)) for i in range(10)], list(range(10)), names)
    assert load_image_set("parquet", file).class_groups == load_descriptions()["cifar10"].groups
    assert load_image_set("parquet", write_parquet_folder(tmp_path / "own")).class_groups == {}


def test_parquet_without_class_names(tmp_path: Path) -> None:
    images = [encode(make_pixels(i)) for i in range(6)]
    file = write_parquet(tmp_path / "x.parquet", images, [0, 1, 2] * 2, names=None)
    refuse("x.parquet", "does not name the classes", "class_names", path=file)
    assert load_image_set("parquet", file, class_names=["a", "b", "c"]).class_names == ("a", "b", "c")
    refuse("[0, 2)", "row 2", path=file, class_names=["a", "b"])
    refuse("distinct", path=file, class_names=["a", "b", "b"])
    named = write_parquet(tmp_path / "y.parquet", images, [0, 1, 2] * 2)
    refuse("y.parquet", "make them agree", path=named, class_names=["a", "b", "c"])


@pytest.mark.parametrize(
    "metadata", [b"{", b"[]", b"[" * 100_000, b'{"info": null}', b"\xff", b'{"info": {"features": {"label": {}}}}']
)
def test_metadata_that_names_no_classes(tmp_path: Path, metadata: bytes) -> None:
    file = write_parquet(tmp_path / "x.parquet", [encode(make_pixels(i)) for i in range(6)], [0, 1, 2] * 2)
    pq.write_table(pq.read_table(file).replace_schema_metadata({b"huggingface": metadata}), file)
    refuse("x.parquet", "does not name the classes", path=file)


def test_rows_that_would_take_far_more_memory_than_their_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of equal values takes a few bytes, whatever its length."""
    monkeypatch.setattr(parquet, "MAX_ROWS", 100_000)
    table = pa.table({"image": pa.array([b"x"] * 100_001), "label": pa.array(np.zeros(100_001, dtype=np.int64))})
    pq.write_table(table, tmp_path / "many.parquet")
    refuse("many.parquet", "claims 100,001 rows", path=tmp_path / "many.parquet")


def test_parquet_names_file_and_row_of_a_bad_image(tmp_path: Path) -> None:
    images: list[bytes | None] = [encode(make_pixels(i)) for i in range(12)]
    images[7], images[11], images[3] = b"garbage", None, b""
    file = write_parquet(tmp_path / "x.parquet", images, [0, 1, 2] * 4)
    message = refuse('data.on_bad_image = "skip"', path=file)
    for row, reason in ((7, "cannot be decoded"), (11, "holds no image bytes"), (3, "empty (0 bytes)")):
        assert f"x.parquet row {row} ({reason}" in message
    kept = load_image_set("parquet", file, on_bad_image="skip")
    assert kept.origin is not None
    assert [file.name.rsplit(maxsplit=1)[1] for file in kept.origin.skipped] == ["3", "7", "11"]
    rows = [row for row in range(12) if row not in {3, 7, 11}]
    assert kept.origin.names == tuple(f"{file} row {row}" for row in rows)
    for index, row in enumerate(rows):
        np.testing.assert_array_equal(kept.images[index], make_pixels(row))
        assert kept.labels[index] == row % 3


def test_one_message_has_the_problems_of_all_files(tmp_path: Path) -> None:
    images = [encode(make_pixels(i)) for i in range(6)]
    write_parquet(tmp_path / "train-0.parquet", images, [0, 1, 2, 0, 1, 9])
    write_parquet(tmp_path / "train-1.parquet", images, [0, 1, 2] * 2, image_column="picture")
    write_parquet(tmp_path / "train-2.parquet", images, [0, 1, 2] * 2, image_column="picture")
    (tmp_path / "test-0.parquet").write_bytes(b"nothing")
    message = refuse("row 5 (label = 9)", "test-0.parquet (", path=tmp_path)
    assert f"{tmp_path / 'train-1.parquet'}, {tmp_path / 'train-2.parquet'}; set data.options.image_column" in message


def test_published_validation_files(tmp_path: Path) -> None:
    folder = write_parquet_folder(tmp_path / "data")
    write_parquet(folder / "valid-0.parquet", [encode(make_pixels(50 + i)) for i in range(3)], [2, 1, 0])
    image_set = load_image_set("parquet", tmp_path)
    assert image_set.official_validation is not None
    assert image_set.official_test is not None
    assert (image_set.official_validation.sum(), image_set.official_test.sum(), len(image_set)) == (3, 6, 21)
    for index, i in enumerate(np.flatnonzero(image_set.official_validation)):
        np.testing.assert_array_equal(image_set.images[i], make_pixels(50 + index))
    part = load_image_set("parquet", tmp_path, num_images=14)
    assert part.official_validation is not None
    assert (part.official_validation.sum(), len(part)) == (3, 14 + 6)
    earlier = load_image_set("parquet", tmp_path, aspect="squash")
    assert earlier.official_validation is None, "studies of earlier defaults did not read these files"
    assert len(earlier) == 18
    assert load_image_set("parquet", tmp_path, validation_split="").official_validation is None
    named = load_image_set("parquet", tmp_path, validation_split="valid", aspect="squash")
    assert named.official_validation is not None


def test_kept_images_of_other_rows_are_not_mixed_up(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "x.parquet", [encode(make_pixels(i)) for i in range(12)], [0, 1, 2] * 4)
    budget = ImageMemoryBudget(0, tmp_path / "images")
    whole = load_image_set("parquet", file, memory_budget=budget)
    for seed in (0, 1):
        part = load_image_set("parquet", file, num_images=6, seed=seed, memory_budget=budget)
        plain = load_image_set("parquet", file, num_images=6, seed=seed)
        np.testing.assert_array_equal(part.images, plain.images)
    np.testing.assert_array_equal(load_image_set("parquet", file, memory_budget=budget).images, whole.images)


def test_parquet_columns(tmp_path: Path) -> None:
    images = [encode(make_pixels(i)) for i in range(6)]
    file = write_parquet(tmp_path / "x.parquet", images, [0, 1, 2] * 2, image_column="picture")
    refuse("x.parquet", "picture", "image_column", path=file)
    refuse("'pictures'", "did you mean 'picture'", path=file, image_column="pictures")
    refuse("encoded bytes", "int64", path=file, image_column="label")
    refuse("'labels'", "did you mean 'label'", path=file, image_column="picture", label_column="labels")
    np.testing.assert_array_equal(load_image_set("parquet", file, image_column="picture").images[2], make_pixels(2))
    pq.write_table(
        pa.table({"image": pa.array(images, pa.binary()), "fine": pa.array([0, 1] * 3, pa.uint8())}),
        tmp_path / "plain.parquet",
    )
    plain = load_image_set("parquet", tmp_path / "plain.parquet", label_column="fine", class_names=["a", "b"])
    assert plain.labels.tolist() == [0, 1] * 3
    pq.write_table(pa.table({"image": pa.array(images), "label": ["a", "b"] * 3}), tmp_path / "words.parquet")
    refuse("integers", "words.parquet", path=tmp_path / "words.parquet")


def test_invalid_parquet_labels(tmp_path: Path) -> None:
    images = [encode(make_pixels(i)) for i in range(4)]
    refuse("row 3", "-1", path=write_parquet(tmp_path / "a.parquet", images, [0, 1, 2, -1]))
    refuse("without a label", path=write_parquet(tmp_path / "b.parquet", images, [0, 1, 2, None]))
    refuse("no rows", path=write_parquet(tmp_path / "c.parquet", [], []))


def test_invalid_parquet_folders(tmp_path: Path) -> None:
    refuse("train-*.parquet", path=tmp_path)
    folder = write_parquet_folder(tmp_path / "set")
    (folder / "train-00000-of-00002.parquet").write_bytes(pickle.dumps({"a": 1}))
    refuse("train-00000-of-00002.parquet", "cannot be read as parquet", path=folder)


def test_the_test_files_may_have_another_name(tmp_path: Path) -> None:
    folder = write_parquet_folder(tmp_path)
    for file in folder.glob("test-*"):
        file.rename(folder / file.name.replace("test-", "validation-"))
    found = load_image_set("parquet", folder)
    assert found.official_test is None
    assert found.official_validation is not None
    image_set = load_image_set("parquet", folder, test_split="validation")
    assert image_set.official_test is not None
    assert image_set.official_test.sum() == 6


def test_class_names_that_a_terminal_would_execute_are_escaped(tmp_path: Path) -> None:
    images = [encode(make_pixels(i)) for i in range(4)]
    write_parquet(tmp_path / "train-0.parquet", images, [0, 1, 0, 1], ["\x1b[2Jcat", "dog"])
    assert load_image_set("parquet", tmp_path).class_names == ("\\x1b[2Jcat", "dog")
