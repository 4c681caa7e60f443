"""All sources fulfill one contract; invalid input is refused with a message that names the file."""

import functools
import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from torchvision import datasets

from search_spaces.errors import UserInputError
from tests.trainables.data.sources.layout_files import refuse_source
from tests.trainables.data.sources.parquet_files import CLASSES, encode, make_pixels, write_parquet_folder
from trainables.data.images import ImageSet
from trainables.data.sources import SOURCES, load_image_set
from trainables.data.sources.labeled_files import load_descriptions


def write_class_folders(root: Path, per_class: int = 4, first_seed: int = 0) -> Path:
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            (root / name / f"{i}.png").write_bytes(encode(make_pixels(first_seed + 100 * label + i)))
    return root


def refuse(*words: str, source: str, path: Path | str | None = None, **options: Any) -> str:
    return refuse_source(source, path, *words, **options)


# --- the contract of every source ------------------------------------------------------------------------------------


def write_idx(file: Path, values: np.ndarray) -> None:
    header = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    file.write_bytes(header + values.astype(np.uint8).tobytes())


def write_fashion_mnist(root: Path) -> Path:
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for part, count in (("train", 40), ("t10k", 20)):
        write_idx(raw / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    return root


def make_folder_set(root: Path, name: str) -> tuple[str, Path | None]:
    if name == "folder":
        return "folder", write_class_folders(root / "images")
    if name == "folder with test":
        write_class_folders(root / "images" / "train")
        write_class_folders(root / "images" / "test", per_class=2, first_seed=5000)
        return "folder", root / "images"
    if name == "parquet":
        return "parquet", write_parquet_folder(root / "images")
    if name == "fashion_mnist":
        return "fashion_mnist", write_fashion_mnist(root / "data")
    return name, None


@pytest.fixture(scope="module", params=["digits", "planted", "folder", "folder with test", "parquet", "fashion_mnist"])
def load(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ImageSet]:
    """`load_image_set` for one source with its files made."""
    source, path = make_folder_set(tmp_path_factory.mktemp("source"), request.param)
    return functools.partial(load_image_set, source, path)


def test_contract(load: Callable[..., ImageSet]) -> None:
    image_set = load()
    assert image_set.source == load.args[0]  # type: ignore[attr-defined]
    assert image_set.images.dtype == np.uint8
    assert image_set.images.shape[3] == 3
    assert image_set.labels.dtype == np.int64
    assert set(image_set.labels.tolist()) == set(range(image_set.num_classes))
    assert len(set(image_set.class_names)) == image_set.num_classes >= 2
    assert image_set.images.min() < 64
    assert image_set.images.max() > 192
    for members in image_set.class_groups.values():
        assert set(members) < set(image_set.class_names)
    if image_set.official_test is not None:
        assert image_set.official_test.shape == image_set.labels.shape
        assert 0 < image_set.official_test.sum() < len(image_set)


def test_loading_is_deterministic(load: Callable[..., ImageSet]) -> None:
    one, two = load(seed=3, num_images=12), load(seed=3, num_images=12)
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.labels, two.labels)


def test_num_images_keeps_a_stratified_part_and_the_whole_test_set(load: Callable[..., ImageSet]) -> None:
    whole, part = load(), load(num_images=10, seed=1)
    is_test = np.zeros(len(part), bool) if part.official_test is None else part.official_test
    assert (~is_test).sum() == 10
    counts = np.bincount(part.labels[~is_test], minlength=part.num_classes)
    assert counts.max() - counts.min() <= 1
    if whole.official_test is not None:
        np.testing.assert_array_equal(part.images[is_test], whole.images[whole.official_test])
        np.testing.assert_array_equal(part.labels[is_test], whole.labels[whole.official_test])
    if whole.source != "planted":
        known = {(image.tobytes(), int(label)) for image, label in zip(whole.images, whole.labels, strict=True)}
        assert all((i.tobytes(), int(k)) in known for i, k in zip(part.images, part.labels, strict=True))
        others = {load(num_images=10, seed=seed).images.tobytes() for seed in range(4)}
        assert len(others) > 1


def test_num_images_may_be_all_but_one(load: Callable[..., ImageSet]) -> None:
    whole = load()
    available = len(whole) if whole.official_test is None else int((~whole.official_test).sum())
    for count in (available - 1, available):
        assert len(load(num_images=count)) == len(whole) - available + count


@pytest.mark.parametrize("num_images", [0, -1, 1, 1.5, "many", True, 10**9])
def test_num_images_out_of_range_is_refused(load: Callable[..., ImageSet], num_images: Any) -> None:
    with pytest.raises(UserInputError, match=r"num_images|memory|GB"):
        load(num_images=num_images)


# --- names, options, paths -------------------------------------------------------------------------------------------


def test_unknown_source_names_the_nearest() -> None:
    refuse("'cifar_10'", "did you mean 'cifar10'", source="cifar_10")


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_unknown_option_names_the_nearest(source: str) -> None:
    refuse("'num_imagse'", "did you mean 'num_images'", source=source, num_imagse=3)


def test_option_of_another_source_is_refused() -> None:
    refuse("'cue_correlation'", source="digits", cue_correlation=0.5)


def test_a_path_for_a_source_without_files_is_refused() -> None:
    refuse("planted", "'somewhere'", source="planted", path="somewhere")
    assert len(load_image_set("planted", "", num_images=10)) == 10


@pytest.mark.parametrize(("source", "words"), [("folder", "data.path"), ("parquet", "data.path")])
def test_a_missing_path_is_refused(source: str, words: str, tmp_path: Path) -> None:
    refuse(words, source=source)
    refuse(words, "nowhere", source=source, path=tmp_path / "nowhere")


@pytest.mark.parametrize("value", ["12", 4, 12.0, True, [8]])
def test_an_option_of_the_wrong_type_is_refused(value: Any, tmp_path: Path) -> None:
    refuse("native_size", repr(value), source="folder", path=write_class_folders(tmp_path / "set"), native_size=value)


def test_the_described_groups_are_of_the_described_classes() -> None:
    for description in load_descriptions().values():
        for members in description.groups.values():
            assert set(members) < set(description.class_names)
    cifar10 = load_descriptions()["cifar10"]
    assert set(cifar10.groups["rigid"]) | set(cifar10.groups["deformable"]) == set(cifar10.class_names)


# --- digits ----------------------------------------------------------------------------------------------------------


def test_digits_reach_the_whole_range_and_are_gray() -> None:
    images = load_image_set("digits").images
    assert (images.min(), images.max()) == (0, 255)
    assert (images[..., 0] == images[..., 1]).all()
    assert (images[..., 0] == images[..., 2]).all()
    assert len(np.unique(images)) == 17


# --- folder ----------------------------------------------------------------------------------------------------------


def test_folder_keeps_pixels_and_labels(tmp_path: Path) -> None:
    image_set = load_image_set("folder", write_class_folders(tmp_path / "set"))
    assert image_set.class_names == CLASSES
    assert image_set.official_test is None
    for index, label in enumerate(image_set.labels):
        np.testing.assert_array_equal(image_set.images[index], make_pixels(100 * int(label) + index % 4))


def test_folder_with_train_and_test_marks_the_test_images(tmp_path: Path) -> None:
    _, path = make_folder_set(tmp_path, "folder with test")
    image_set = load_image_set("folder", path)
    assert image_set.official_test is not None
    assert image_set.official_test.sum() == 6
    np.testing.assert_array_equal(image_set.images[image_set.official_test][0], make_pixels(5000))


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    for seed, name in enumerate(("train", "test")):
        (tmp_path / name).mkdir()
        for i in range(2):
            (tmp_path / name / f"{i}.png").write_bytes(encode(make_pixels(10 * seed + i)))
    assert load_image_set("folder", tmp_path).class_names == ("test", "train")


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "README.md").write_text("about")
    assert len(load_image_set("folder", tmp_path)) == 12


def test_class_groups_of_the_user(tmp_path: Path) -> None:
    path = write_class_folders(tmp_path / "set")
    image_set = load_image_set("folder", path, class_groups={"furry": ["cat", "dog"]})
    assert image_set.class_groups == {"furry": ("cat", "dog")}
    refuse("'dgo'", "did you mean 'dog'", source="folder", path=path, class_groups={"furry": ["dgo"]})
    refuse("'furry'", source="folder", path=path, class_groups={"furry": []})


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    refuse("another file", source="folder", path=write_class_folders(tmp_path / "set") / "dog" / "0.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = write_class_folders(tmp_path / "set")
    (path / "dog" / "0.png").chmod(0)
    refuse("dog/0.png", "permissions", source="folder", path=path)


@pytest.mark.shared_data
def test_cifar10_as_parquet(shared_data: Path) -> None:
    start = time.perf_counter()
    image_set = load_image_set("parquet", shared_data / "data" / "cifar10", num_images=1000)
    assert time.perf_counter() - start < 15
    assert image_set.images.shape == (6000, 32, 32, 3)
    assert image_set.official_test is not None
    assert image_set.official_test.sum() == 5000
    assert image_set.class_names == load_descriptions()["cifar10"].class_names
    assert set(image_set.class_groups) == {"rigid", "deformable"}


# --- CIFAR-10 and Fashion-MNIST as published -------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_connection(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", refuse_connection)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("cifar10", ("cifar-10-python.tar.gz", "https://www.cs.toronto.edu/~kriz/")),
        ("fashion_mnist", ("train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", "FashionMNIST/raw")),
    ],
)
def test_without_files_and_network_the_archive_is_named(source: str, words: tuple[str, ...], tmp_path: Path) -> None:
    root = tmp_path / "data"
    refuse(*words, str(root), "Network is unreachable", source=source, path=root)
    assert not root.exists()


class _Payload:
    """Creates a file when it is unpickled."""

    marker: ClassVar[str] = ""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (self.marker, "w")


@pytest.mark.usefixtures("no_network")
def test_a_tampered_cifar10_batch_is_not_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    _Payload.marker = str(marker)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, _ in [*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list, ["batches.meta", ""]]:
        (folder / name).write_bytes(pickle.dumps(_Payload()))
    refuse("CIFAR-10", "cifar-10-python.tar.gz", source="cifar10", path=tmp_path)
    assert not marker.exists()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.mark.usefixtures("no_network")
def test_cifar10_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pixels = {name: rng.integers(0, 256, (20, 3072), dtype=np.uint8) for name in ("data_batch_1", "test_batch")}
    files = {name: pickle.dumps({"data": data, "labels": [i % 10 for i in range(20)]}) for name, data in pixels.items()}
    files["batches.meta"] = pickle.dumps({"label_names": list(load_descriptions()["cifar10"].class_names)})
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5((tmp_path / "cifar-10-python.tar.gz").read_bytes()))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", md5(files["data_batch_1"])]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5(files["test_batch"])]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(files["batches.meta"])}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    image_set = load_image_set("cifar10", tmp_path)
    assert image_set.official_test is not None
    assert image_set.official_test.tolist() == [False] * 20 + [True] * 20
    # The published rows are 1024 red, then 1024 green, then 1024 blue values.
    np.testing.assert_array_equal(image_set.images[3, :, :, 1].ravel(), pixels["data_batch_1"][3, 1024:2048])
    np.testing.assert_array_equal(image_set.images[20, :, :, 2].ravel(), pixels["test_batch"][0, 2048:])
    assert image_set.labels.tolist() == [i % 10 for i in range(20)] * 2
    part = load_image_set("cifar10", tmp_path, num_images=10)
    assert len(part) == 30


def test_fashion_mnist_is_replicated_gray(tmp_path: Path) -> None:
    image_set = load_image_set("fashion_mnist", write_fashion_mnist(tmp_path))
    raw = (tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").read_bytes()[16:]
    assert image_set.images[:40, :, :, 0].tobytes() == raw
    assert (image_set.images == image_set.images[..., :1]).all()
    assert set(image_set.class_groups) == {"upper_body", "footwear"}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\0\0\x08\x03" + b"\xff" * 40, gzip.compress(b"x" * 99, mtime=0)]
)
def test_damaged_fashion_mnist_is_refused(tmp_path: Path, content: bytes) -> None:
    write_fashion_mnist(tmp_path)
    for name in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / "FashionMNIST" / "raw" / name).write_bytes(content)
        refuse("Fashion-MNIST", "cannot be read", "t10k-labels-idx1-ubyte.gz", source="fashion_mnist", path=tmp_path)
