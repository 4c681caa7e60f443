"""Tar files of WebDataset: the images, splits and classes that they hold, and all that is wrong with them in one message."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.errors import UserInputError
from tests.trainables.data.sources.tar_files import encode, make_samples, write_shard
from trainables.data.decoding.streamed_images import StreamedImages
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import ImageSet
from trainables.data.sources import load_image_set
from trainables.data.sources.webdataset import MAX_TEXT_BYTES, is_tar_set


def load(path: Path, folder: Path, *, streams: bool = False, **options: Any) -> ImageSet:
    return load_image_set(
        "webdataset", path, memory_budget=ImageMemoryBudget(10**9, folder, streams=streams), **options
    )


@pytest.mark.parametrize("streams", [False, True])
def test_shards_are_read_with_their_splits_and_names(tmp_path: Path, streams: bool) -> None:
    root = tmp_path / "shards"
    write_shard(root / "pets-train-000000.tar", make_samples(7))
    write_shard(root / "pets-train-000001.tar", make_samples(5, 7), first=7)
    write_shard(root / "pets-validation-000000.tar", make_samples(4, 12))
    write_shard(root / "pets-test-000000.tar", make_samples(4, 16))
    (root / "classes.txt").write_text("cat\ndog\n")
    found = load(root, tmp_path / "kept", streams=streams)
    assert isinstance(found.images, StreamedImages) is streams
    assert found.class_names == ("cat", "dog")
    values = found.images[np.arange(20)][:, 0, 0, 0]
    assert sorted(values.tolist()) == list(range(20))
    assert found.labels.tolist() == [value % 2 for value in values]
    assert found.official_test is not None
    assert found.official_validation is not None
    assert sorted(values[found.official_test]) == [16, 17, 18, 19]
    assert sorted(values[found.official_validation]) == [12, 13, 14, 15]
    assert found.origin is not None
    assert any(name.endswith("pets-train-000001.tar ./part/000008") for name in found.origin.names)


def test_labels_may_be_names_or_fields_with_groups_and_other_files_are_ignored(tmp_path: Path) -> None:
    samples = [
        {
            "jpg.txt": "ignored",
            "PNG": encode(i),
            "json": json.dumps({"kind": ["owl", "fox"][i % 2], "site": f"s{i // 4}"}),
        }
        for i in range(12)
    ]
    path = write_shard(tmp_path / "animals.tar", [*samples, {"txt": "no image"}])
    found = load(path, tmp_path / "kept", label_field="kind", group="site", num_images=8)
    assert found.class_names == ("fox", "owl")
    assert len(found) == 8
    assert found.groups is not None
    assert found.group_names == ("s0", "s1", "s2")
    # Without the word train in any name, all files are one set.
    write_shard(tmp_path / "more" / "val-0.tar", make_samples(6))
    whole = load(tmp_path / "more", tmp_path / "kept")
    assert whole.official_validation is None
    assert whole.class_names == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "class_names", "names", "numbers"),
    [
        (["0", "1", "A", "B"], None, ("0", "1", "A", "B"), [0, 1, 2, 3]),
        (["10", "20", "50"], ["10", "20", "50"], ("10", "20", "50"), [0, 1, 2]),
        (["0", "1", "2"], ["10", "20", "50"], ("10", "20", "50"), [0, 1, 2]),
        (["0", "1", "2"], ["0", "2", "1"], ("0", "2", "1"), [0, 1, 2]),
        (["0", "dog"], ["cat", "dog"], ("cat", "dog"), [0, 1]),
    ],
)
def test_digits_are_names_where_all_labels_are(
    tmp_path: Path, labels: list[str], class_names: list[str] | None, names: tuple[str, ...], numbers: list[int]
) -> None:
    path = write_shard(tmp_path / "signs.tar", [{"png": encode(i), "cls": label} for i, label in enumerate(labels)])
    found = load(path, tmp_path / "kept", class_names=class_names)
    assert found.class_names == names
    assert found.labels.tolist() == numbers


def test_everything_that_is_wrong_is_in_one_message(tmp_path: Path) -> None:
    root = tmp_path / "shards"
    whole = write_shard(root / "cut-inside.tar", make_samples(6)).read_bytes()
    (root / "cut-inside.tar").write_bytes(whole[:1700])
    # After a file's last block, where tarfile sees nothing wrong: header, image, header and class of the first sample.
    (root / "cut-between.tar").write_bytes(whole[: 4 * 512])
    (root / "packed.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    write_shard(
        root / "labels.tar",
        [
            {"png": encode(0)},
            {"png": encode(1), "cls": 1},
            {"png": encode(2), "jpg": encode(2), "cls": 0},
            {"png": encode(3), "json": "{"},
            {"png": encode(4), "cls": 1, "json": "[1]"},
        ],
    )
    # The header of the second image; tarfile takes what it cannot read for the end of the file.
    broken = bytearray(write_shard(root / "broken.tar", make_samples(6)).read_bytes())
    broken[4 * 512] ^= 1
    (root / "broken.tar").write_bytes(broken)
    (root / "two-in-one.tar").write_bytes(whole + whole)
    with pytest.raises(UserInputError) as raised:
        load(root, tmp_path / "kept")
    message = str(raised.value)
    for words in (
        "is damaged, or several tar files in one: what follows is not read: ",
        "broken.tar, byte 2048",
        f"two-in-one.tar, byte {6 * 4 * 512}",
        r"cannot be read as tar: ",
        "cut-inside.tar (unexpected end of data)",
        "packed.tar (compressed; unpack it with gunzip, since single images cannot be read from it); copy it again",
        "is cut: the blocks that end a tar file are missing: ",
        "cut-between.tar",
        "has no label: no .cls, and no text or whole number under 'label' in a .json: ",
        "labels.tar ./part/000000",
        "has several images: ",
        "labels.tar ./part/000002 (png, jpg)",
        "has a .json that cannot be read, or that holds no fields: ",
        "labels.tar ./part/000004",
    ):
        assert words in message


@given(at=st.floats(0, 1, exclude_max=True), bit=st.none() | st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_a_damaged_shard_is_refused_by_name_or_has_all_its_images(
    tmp_path_factory: pytest.TempPathFactory, at: float, bit: int | None
) -> None:
    base = tmp_path_factory.mktemp("damaged")
    shard = write_shard(base / "shard.tar", make_samples(6))
    whole = shard.read_bytes()
    place = int(at * len(whole))
    flipped = b"" if bit is None else bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :]
    shard.write_bytes(whole[:place] + flipped)
    message, num_images = "shard.tar", 6
    try:
        num_images = len(load(shard, base / "kept").labels)
    except UserInputError as error:
        message = str(error)
    assert "shard.tar" in message
    # Cut within the zeros at its end, or with another bit in an image, in a label or between files.
    assert num_images == 6


def test_labels_beyond_the_names_are_refused_with_the_nearest(tmp_path: Path) -> None:
    path = write_shard(
        tmp_path / "a.tar",
        [{"png": encode(0), "cls": "caat"}, {"png": encode(1), "cls": 2}, {"png": encode(2), "cls": "9" * 5000}],
    )
    with pytest.raises(UserInputError) as raised:
        load(path, tmp_path / "kept", class_names=["cat", "dog"])
    assert "labels must be numbers in [0, 2) or names of classes" in str(raised.value)
    assert "./part/000000 ('caat' (did you mean 'cat'?))" in str(raised.value)
    assert "./part/000001 ('2')" in str(raised.value)
    assert "./part/000002 ('9999" in str(raised.value)


def test_an_archive_beside_images_makes_no_set_of_tar_files(tmp_path: Path) -> None:
    write_shard(tmp_path / "backup.tar", make_samples(2))
    assert is_tar_set(tmp_path)
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1.JPG").write_bytes(b"x")
    assert not is_tar_set(tmp_path)
    assert is_tar_set(tmp_path / "backup.tar")
    assert not is_tar_set(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["none", "empty"])
def test_a_folder_without_shards_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserInputError, match=r"data\.path must be a \.tar file or a folder of them"):
        load(tmp_path / name, tmp_path / "kept")


HOSTILE, SHOWN = "\x1b]0;owned\x07cat", "\\x1b]0;owned\\x07cat"


def test_names_that_a_terminal_would_execute_are_escaped(tmp_path: Path) -> None:
    samples = [
        {"png": encode(i), "json": json.dumps({"label": (HOSTILE, "dog")[i % 2], "who": HOSTILE})} for i in range(4)
    ]
    write_shard(tmp_path / "a.tar", samples)
    found = load(tmp_path / "a.tar", tmp_path / "kept", group="who")
    assert set(found.class_names) == {SHOWN, "dog"}
    assert found.group_names == (SHOWN,)
    write_shard(
        tmp_path / "a.tar",
        [*samples, {"png": encode(9), "cls": HOSTILE + "x"}, {"png": encode(9), "\x1bx.png": encode(9)}],
    )
    with pytest.raises(UserInputError) as refused:
        load(tmp_path / "a.tar", tmp_path / "kept", class_names=[HOSTILE, "dog"])
    assert "\x1b" not in str(refused.value)


def test_what_asks_for_more_than_a_class_needs_is_named_without_being_read(tmp_path: Path) -> None:
    nested = {"png": encode(1), "json": "[" * 200_000}
    long = {"png": encode(2), "cls": "x" * (MAX_TEXT_BYTES + 1)}
    write_shard(tmp_path / "a.tar", [*make_samples(4), nested, long])
    with pytest.raises(UserInputError) as refused:
        load(tmp_path / "a.tar", tmp_path / "kept")
    assert "has a .json that cannot be read" in str(refused.value)
    assert f"has a .cls or .json of over {MAX_TEXT_BYTES:,} bytes" in str(refused.value)


def test_a_file_with_holes_is_refused_by_name(tmp_path: Path) -> None:
    # GNU tar's header of a file of 20 GiB that consists of one hole.
    info = tarfile.TarInfo("a.json")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"\x80" + (20 * 2**30).to_bytes(11, "big")  # a number above 8 GiB in base 256
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header[:512])
    write_shard(tmp_path / "a.tar", make_samples(2))
    (tmp_path / "a.tar").write_bytes(bytes(header) + (tmp_path / "a.tar").read_bytes())
    with pytest.raises(UserInputError, match=r"a\.json is stored with holes; pack it without --sparse"):
        load(tmp_path / "a.tar", tmp_path / "kept")
