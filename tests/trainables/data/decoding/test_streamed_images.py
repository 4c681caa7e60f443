"""Streamed images: the pixels, the training and the identity of stored ones; what is cut, changed or gone is said."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from benchmarks.performance.reference_recipe import make_config
from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from trainables.data import pixel_files
from trainables.data.decoding import decoded_images
from trainables.data.decoding.stream_workers import StreamError
from trainables.data.decoding.streamed_images import StreamedImages
from trainables.data.image_audit import check_image_set
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import ImageSet
from trainables.data.pixel_files import measure_facts
from trainables.data.sources import load_image_set
from trainables.data.splits import make_splits
from trainables.training.loop import TrainingRun
from trainables.training.trial_data import STREAMED, TrialData
from trainables.training.trial_run import EpochInterrupted

CPU = torch.device("cpu")
NUM_PER_CLASS = 40


def draw(number: int, level: int, size: tuple[int, int]) -> Image.Image:
    generator = np.random.default_rng((number, level))
    small = generator.normal(level, 40, size=(6, 6, 3)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of different sizes and kinds."""
    root = tmp_path_factory.mktemp("photographs")
    for name, level in (("dark", 70), ("light", 180)):
        (root / name).mkdir()
        for number in range(NUM_PER_CLASS):
            image = draw(number, level, (30 + number % 7, 24 + number % 5))
            image = image.convert("L") if number % 11 == 3 else image
            image.save(root / name / f"{number:03d}.jpg")
    return root


@pytest.fixture(scope="module")
def parquet(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parquet") / "train-0.parquet"
    files = sorted(folder.glob("*/*.jpg"))
    table = pa.table(
        {
            "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
            "label": [int(file.parent.name == "light") for file in files],
        }
    )
    pq.write_table(table, path, row_group_size=16)
    return path


def load(source: str, path: Path, budget: ImageMemoryBudget) -> ImageSet:
    options = {"class_names": ["dark", "light"]} if source == "parquet" else {}
    return load_image_set(source, path, memory_budget=budget, image_size=16, **options)


def stream(source: str, path: Path, folder: Path, num_workers: int = 1) -> ImageSet:
    return load(source, path, ImageMemoryBudget(0, folder, streams=True, stream_workers=num_workers))


def make_data(image_set: ImageSet) -> TrialData:
    splits = make_splits(image_set, seed=0, search_fraction=0.2, confirm_fraction=0.1, test_fraction=0.1)
    return TrialData(images=image_set.images, labels=image_set.labels, splits=splits, class_names=image_set.class_names)


@pytest.fixture
def streamed(folder: Path, tmp_path: Path) -> Iterator[ImageSet]:
    image_set = stream("folder", folder, tmp_path / "kept")
    yield image_set
    as_streamed(image_set).close()


def as_streamed(image_set: ImageSet) -> StreamedImages:
    assert isinstance(image_set.images, StreamedImages)
    return image_set.images


def make_trial() -> TrialConfig:
    config = make_config("resnet18", 16)
    return replace(config, fixed={**config.fixed, "batch_size": 8, "max_epochs": 2, "weights": "none"})


@pytest.mark.parametrize("source", ["folder", "parquet"])
def test_pixels_facts_and_identity_are_those_of_stored_images(
    source: str, folder: Path, parquet: Path, tmp_path: Path
) -> None:
    path = folder if source == "folder" else parquet
    stored = load(source, path, ImageMemoryBudget(10**9, tmp_path / "stored"))
    lazy = stream(source, path, tmp_path / "streamed")
    assert lazy.images.shape == stored.images.shape
    for ids in (np.arange(80), np.array([5, 3, 3, 79]), slice(2, 9), np.arange(80) % 7 == 0, 11, []):
        assert np.array_equal(lazy.images[ids], stored.images[ids])
    assert measure_facts(lazy.images).to_bytes() == measure_facts(stored.images).to_bytes()
    ours, theirs = make_data(lazy), make_data(stored)
    assert ours.splits.fingerprint == theirs.splits.fingerprint
    assert check_image_set(lazy, ours.splits) == check_image_set(stored, theirs.splits)
    kept = [file.suffix for file in (tmp_path / "streamed").iterdir()]
    assert ".rgb" not in kept
    assert (".encoded" in kept) is (source == "parquet")


def test_a_second_start_decodes_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stream("folder", folder, tmp_path)
    make_data(first)
    monkeypatch.setattr("trainables.data.decoding.decode_set.decode_image", None)
    monkeypatch.setattr("trainables.data.decoding.stream_workers.decode_image", None)
    again = stream("folder", folder, tmp_path)
    assert make_data(again).splits.fingerprint == make_data(first).splits.fingerprint


def test_training_predictions_and_a_resumed_epoch_have_the_bits_of_stored_images(
    folder: Path, streamed: ImageSet
) -> None:
    stored = make_data(load("folder", folder, ImageMemoryBudget(10**9, folder.parent / "none")))
    config = make_trial()
    expected = TrainingRun(config, stored, device=CPU)
    run = TrainingRun(config, make_data(streamed), device=CPU)
    assert run.images_on == STREAMED
    assert np.array_equal(run.preview_batch(), expected.preview_batch())
    steps = iter([False] * 3 + [True])
    with pytest.raises(EpochInterrupted):
        run.run_epoch(should_stop=lambda: next(steps))
    # An epoch that was left early does not disturb the next one in the same processes.
    resumed = TrainingRun(config, make_data(streamed), device=CPU, checkpoint=run.checkpoint())
    for _ in range(2):
        ours, theirs = resumed.run_epoch(), expected.run_epoch()
        assert (ours.train_loss, ours.search_loss) == (theirs.train_loss, theirs.search_loss)
    for name, value in expected.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert np.array_equal(resumed.predict("test").logits, expected.predict("test").logits)


def test_any_number_of_workers_and_batches_gives_the_same_images(streamed: ImageSet) -> None:
    images = as_streamed(streamed)
    batches = torch.split(torch.randperm(len(images), generator=torch.Generator().manual_seed(3)), 13)
    before = torch.get_rng_state()
    for number in (1, 2):
        images.num_workers = number
        found = list(images.read_batches(batches))
        assert all(np.array_equal(f.numpy(), images[b.numpy()]) for f, b in zip(found, batches, strict=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert list(images.read_batches(())) == []


def test_a_worker_that_is_killed_is_noticed_within_seconds_and_replaced(streamed: ImageSet) -> None:
    images = as_streamed(streamed)
    images.num_workers = 2
    batches = [torch.arange(8)] * 50
    reading = images.read_batches(batches)
    next(reading)
    loader: Any = images._workers
    started = time.monotonic()
    for worker in loader._loader._iterator._workers:
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises((RuntimeError, OSError, EOFError)):
        list(reading)
    assert time.monotonic() - started < 60
    assert [np.array_equal(found.numpy(), images[np.arange(8)]) for found in images.read_batches(batches[:3])] == [
        True
    ] * 3


def test_images_that_change_or_vanish_during_a_study_are_named(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    images = as_streamed(stream("folder", own, tmp_path / "kept"))
    draw(1, 20, (30, 24)).save(own / "dark" / "000.jpg")
    (own / "light" / "001.jpg").unlink()
    with pytest.raises(
        StreamError, match=r"dark/000\.jpg has other pixels than when the study started; leave the files"
    ):
        images[0]
    with pytest.raises(StreamError, match=r"light/001\.jpg cannot be read \(No such file or directory\)"):
        list(images.read_batches([torch.tensor([1, 2]), torch.tensor([41])]))
    images.close()


def test_a_damaged_image_is_refused_or_left_out_as_with_stored_images(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    (own / "dark" / "004.jpg").write_bytes((own / "dark" / "004.jpg").read_bytes()[:200])
    with pytest.raises(UserInputError, match=r"1 of 80 images cannot be used: dark/004\.jpg"):
        stream("folder", own, tmp_path / "kept")
    sets = [
        load_image_set("folder", own, memory_budget=budget, image_size=16, on_bad_image="skip")
        for budget in (
            ImageMemoryBudget(0, tmp_path / "kept", streams=True),
            ImageMemoryBudget(10**9, tmp_path / "stored"),
        )
    ]
    assert len(sets[0]) == 79
    assert np.array_equal(sets[0].images[np.arange(79)], sets[1].images)


def test_another_node_reads_its_own_files_or_says_what_is_missing(parquet: Path, folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    data = replace(make_data(stream("parquet", parquet, kept)), reload=partial(load, "parquet", parquet))
    sent = pickle.dumps(data)
    for file in kept.iterdir():
        file.unlink()
    received = pickle.loads(sent)
    assert np.array_equal(received.images[np.arange(80)], data.images[np.arange(80)])
    for reload, reason in ((None, "use a path that all nodes have"), (partial(load, "folder", folder), "not those")):
        other = pickle.dumps(replace(data, reload=reload))
        for file in kept.iterdir():
            file.unlink()
        if reload is not None:
            draw(1, 20, (30, 24)).save(folder / "dark" / "new.jpg")
        with pytest.raises(UserInputError, match=reason):
            pickle.loads(other)
    (folder / "dark" / "new.jpg").unlink()


def test_the_copy_that_a_study_reads_is_not_deleted_as_unused(
    parquet: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = stream("parquet", parquet, tmp_path).images
    (copy,) = tmp_path.glob("*.encoded")
    monkeypatch.setattr(pixel_files, "MAX_DISK_SHARE", 0)
    monkeypatch.setattr(decoded_images, "MIN_KEPT_SECONDS", 0)
    for is_read in (True, False):
        os.utime(copy, (1, 1))
        if is_read:
            assert len(images[np.arange(3)]) == 3
        load_image_set("folder", folder, memory_budget=ImageMemoryBudget(10**9, tmp_path), image_size=16 + 16 * is_read)
        assert copy.exists() is is_read


def test_a_disk_without_space_for_a_copy_is_refused_with_both_numbers(
    parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(
        UserInputError, match=r"needs 0\.0 GB in .*kept, whose disk has 0\.0 GB left; set resources\.image_f"
    ):
        stream("parquet", parquet, tmp_path / "kept")


def test_shared_memory_that_is_too_small_is_refused_before_a_worker_dies_of_it(
    streamed: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserInputError, match=r"need 0 MB of shared memory, but /dev/shm has 0 MB left; enlarge it"):
        list(as_streamed(streamed).read_batches([torch.arange(16)]))


KILLED = """
import sys, time
from pathlib import Path
import torch
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.sources import load_image_set

if __name__ == "__main__":
    budget = ImageMemoryBudget(0, Path(sys.argv[2]), streams=True, stream_workers=2)
    images = load_image_set("folder", sys.argv[1], memory_budget=budget, image_size=16).images
    batches = images.read_batches([torch.arange(8)] * 100)
    next(batches)
    print("ready", flush=True)
    time.sleep(100)
"""


def test_no_worker_outlives_a_process_that_is_killed(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(folder), str(tmp_path / "kept")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    group = os.getpgid(process.pid)
    assert count_processes(group) >= 4
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 30
    while count_processes(group) and time.monotonic() < until:
        time.sleep(0.2)
    assert count_processes(group) == 0


def count_processes(group: int) -> int:
    listed = subprocess.run(["ps", "-eo", "pgid,stat"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()[1:]]
    return sum(int(pgid) == group and not state.startswith("Z") for pgid, state in rows)
