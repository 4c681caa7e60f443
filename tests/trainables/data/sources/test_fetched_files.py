"""Files at a URI: copied once, again where they changed, going on after an interruption; faults of the store are named."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from search_spaces.errors import UserInputError
from tests.faults import storage
from tests.trainables.data.sources.layout_files import write_listed
from tests.trainables.data.sources.parquet_files import encode, make_pixels
from tests.trainables.data.sources.tar_files import make_samples, write_shard
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.sources import fetched_files, load_image_set
from trainables.data.sources.fetched_files import fetch_files, fetch_source
from trainables.data.sources.folders.layouts import find_layout
from trainables.storage import store as stores
from trainables.storage.store import Store, join_uri


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    root = tmp_path / "remote"
    write_shard(root / "train-0.tar", make_samples(6))
    write_shard(root / "deep" / "train-1.tar", make_samples(4, 6))
    (root / ".hidden").write_text("x")
    # Cameras write photographs in Adobe RGB under such names.
    (root / "_others" / "_DSC0001.JPG").parent.mkdir()
    (root / "_others" / "_DSC0001.JPG").write_bytes(b"photograph")
    return root


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_files_are_copied_once_and_again_where_they_changed(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    whole = Store.copy_out

    def copy_out(self: Store, name: str, *rest: object) -> None:
        copied.append(name)
        whole(self, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "copy_out", copy_out)
    uri, kept = remote.as_uri(), tmp_path / "kept"
    here = fetch_files(uri, kept)
    assert read_all(here) == {n: d for n, d in read_all(remote).items() if n != ".hidden"}
    assert sorted(copied) == ["_others/_DSC0001.JPG", "deep/train-1.tar", "train-0.tar"]
    assert fetch_files(uri, kept) == here
    assert len(copied) == 3
    write_shard(remote / "train-0.tar", make_samples(6, 20))
    os.utime(remote / "train-0.tar", ns=(1, 10**18))  # Of the same size, at another time.
    (here / "deep" / "train-1.tar").unlink()
    write_shard(remote / "train-2.tar", make_samples(2))
    fetch_files(uri, kept)
    assert sorted(copied[3:]) == ["deep/train-1.tar", "train-0.tar", "train-2.tar"]
    assert read_all(here) == {n: d for n, d in read_all(remote).items() if n != ".hidden"}
    (remote / "train-2.tar").unlink()
    fetch_files(uri, kept)
    assert "train-2.tar" not in read_all(here)


def test_one_file_can_be_named(remote: Path, tmp_path: Path) -> None:
    path = fetch_files((remote / "train-0.tar").as_uri(), tmp_path / "kept")
    assert path.name == "train-0.tar"
    assert path.read_bytes() == (remote / "train-0.tar").read_bytes()
    assert fetch_files((remote / "train-0.tar").as_uri(), tmp_path / "kept") == path


def test_a_source_reads_a_uri(remote: Path, tmp_path: Path) -> None:
    budget = ImageMemoryBudget(10**9, tmp_path / "kept")
    found = load_image_set("webdataset", remote.as_uri(), memory_budget=budget)
    expected = load_image_set("webdataset", remote, memory_budget=budget)
    assert np.array_equal(found.images[:], expected.images[:])


def test_a_table_at_a_uri_comes_with_the_images_that_it_lists(tmp_path: Path) -> None:
    table = write_listed(tmp_path / "remote", count=8)
    (tmp_path / "remote" / "other.bin").write_bytes(b"not listed")
    path = fetch_source(table.as_uri(), tmp_path / "kept")
    assert path.name == table.name
    assert not list((tmp_path / "kept").rglob("other.bin"))
    there, here = (find_layout(where) for where in (table, path))
    assert [file.name for file in here.files] == [file.name for file in there.files]
    assert not here.found_problems


def test_a_table_may_list_images_above_it_or_on_every_machine(tmp_path: Path) -> None:
    table = write_listed(tmp_path / "remote", count=8)
    rows = pd.read_csv(table)
    below = tmp_path / "remote" / "my tables" / "train set.csv"
    below.parent.mkdir()
    rows.assign(path=["../" + path for path in rows["path"]]).to_csv(below, index=False)
    layout = find_layout(fetch_source(below.as_uri(), tmp_path / "kept"))
    assert len(layout.files) == 8
    assert not layout.found_problems
    rows.assign(path=[str(table.parent / path) for path in rows["path"]]).to_csv(below, index=False)
    path = fetch_source(below.as_uri(), tmp_path / "other")
    assert [file.suffix for file in (tmp_path / "other").rglob("*") if file.suffix in (".png", ".jpg")] == []
    assert len(find_layout(path).files) == 8


def test_a_parquet_file_at_a_uri_is_copied_once_whatever_its_columns_are(tmp_path: Path) -> None:
    rows = [{"bytes": data, "path": None} for data in (encode(make_pixels(i, 16)) for i in range(4))]
    columns = {"image": rows, "label": [0, 1, 0, 1], "class": ["a", "b", "a", "b"], "file_name": list("abcd")}
    (tmp_path / "remote").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "remote" / "train-0.parquet")
    budget = ImageMemoryBudget(10**9, tmp_path / "kept")
    uri = (tmp_path / "remote" / "train-0.parquet").as_uri()
    assert len(load_image_set("parquet", uri, memory_budget=budget, class_names=["a", "b"]).images) == 4
    assert len(list((tmp_path / "kept").rglob("*.parquet"))) == 1


def test_an_interrupted_copy_goes_on(remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched_files, "NUM_AT_ONCE", 1)
    whole = Store.copy_out
    seen: list[str] = []

    def break_off(self: Store, name: str, *rest: object) -> None:
        seen.append(name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        whole(self, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "copy_out", break_off)
    with pytest.raises(KeyboardInterrupt):
        fetch_files(remote.as_uri(), tmp_path / "kept")
    fetch_files(remote.as_uri(), tmp_path / "kept")
    assert seen.count(seen[0]) == 1, "it was copied before the interruption"
    assert sorted(seen[1:]) == sorted(
        [seen[1], *({"_others/_DSC0001.JPG", "deep/train-1.tar", "train-0.tar"} - {seen[0]})]
    )


def test_nothing_there_a_full_disk_and_a_file_that_changes_are_named(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = (tmp_path / "nothing").as_uri()
    with pytest.raises(UserInputError, match=rf"there is no file at {nothing}; check the URI"):
        fetch_files(nothing, tmp_path / "kept")
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage("/")
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
        with pytest.raises(
            UserInputError, match=r"a copy of file://.* needs 0\.0 GB in .*, whose disk has 0\.0 GB left"
        ):
            fetch_files(remote.as_uri(), tmp_path / "kept")
    monkeypatch.setattr(Store, "copy_out", lambda *_: _[2].write_bytes(b"short"))
    with pytest.raises(UserInputError, match=r"bytes, but 5 were read; what was copied to .* is kept"):
        fetch_files(remote.as_uri(), tmp_path / "kept")


def test_faults_of_an_object_store_are_survived(remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in storage.CREDENTIALS:
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(stores, "RETRY_WAITS", (0.01,) * 8)
    with storage.object_store(faults=6, probability=0.5) as (sound, faulty, application):
        # Other tests of this process have files in the same bucket.
        sound, faulty = (join_uri(root, "photographs") for root in (sound, faulty))
        for name, data in read_all(remote).items():
            Store(sound).write_bytes(name, data)
        here = fetch_files(faulty, tmp_path / "kept")
        assert sum(application.counts.values()) > 0
    assert read_all(here) == {n: d for n, d in read_all(remote).items() if n != ".hidden"}


def test_a_slow_store_says_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 14.0])
    progress = fetched_files._Progress("s3://b/photos", 4, 400_000_000, lambda: next(times, 20.0))
    progress.finish_file()
    progress.advance(40_000_000)
    assert capsys.readouterr().err == ""
    progress.advance(60_000_000)
    line = "copying s3://b/photos: 1 of 4 files, 0.10 of 0.40 GB, 5.0 MB/s, 1 min left\n"
    assert capsys.readouterr().err == line
