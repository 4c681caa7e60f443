"""Images larger than the memory budget: equal pixels and equal training from a mapped file."""

import json
import pickle
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.performance.reference_recipe import make_config
from search_spaces.errors import UserInputError
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import ImageSet
from trainables.data.sources import load_image_set
from trainables.data.splits import make_splits
from trainables.training.loop import TrainingRun
from trainables.training.trial_data import TrialData


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (root / name).mkdir()
        for number in range(40):
            pixels = generator.normal(level, 30, size=(16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03d}.png")
    return root


def load(folder: Path, memory_budget: ImageMemoryBudget) -> ImageSet:
    return load_image_set("folder", folder, memory_budget=memory_budget)


def make_data(image_set: ImageSet, folder: Path) -> TrialData:
    splits = make_splits(image_set, seed=0, search_fraction=0.2, confirm_fraction=0.1, test_fraction=0.1)
    return TrialData(
        images=image_set.images,
        labels=image_set.labels,
        splits=splits,
        class_names=image_set.class_names,
        reload=partial(load, folder),
    )


def test_small_images_stay_in_memory(folder: Path, tmp_path: Path) -> None:
    image_set = load(folder, ImageMemoryBudget(10**9, tmp_path / "mapped"))
    assert not isinstance(image_set.images, np.memmap)
    assert not (tmp_path / "mapped").exists()


def test_mapped_images_are_equal_and_stored_once(folder: Path, tmp_path: Path) -> None:
    inside = load(folder, ImageMemoryBudget(10**9, tmp_path))
    mapped, again = (load(folder, ImageMemoryBudget(1000, tmp_path / "mapped")) for _ in range(2))
    assert isinstance(mapped.images, np.memmap)
    assert not mapped.images.flags.writeable
    np.testing.assert_array_equal(mapped.images, inside.images)
    assert mapped.images.filename == again.images.filename  # type: ignore[attr-defined]
    assert [p.suffix for p in (tmp_path / "mapped").glob("*.rgb")] == [".rgb"]
    assert not list((tmp_path / "mapped").glob(".*")), "nothing unfinished is left behind"


def test_files_of_a_killed_process_are_deleted(folder: Path, tmp_path: Path) -> None:
    memory_budget = ImageMemoryBudget(1000, tmp_path)
    filling = memory_budget.allocate(80, 16, 16)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    abandoned = tmp_path / f".{platform.node()}-{ended.pid}-0.partial"
    elsewhere = tmp_path / f".{platform.node()}-b-{ended.pid}-0.partial"
    for left in (abandoned, elsewhere):
        left.touch()
    load(folder, memory_budget)
    assert not abandoned.exists()
    assert elsewhere.exists(), "a process of another machine may be filling it"
    assert len(list(tmp_path.glob(".*.partial"))) == 2, "a process that is alive is still filling its own"
    memory_budget.discard(filling)


def test_training_gives_the_same_bits(folder: Path, tmp_path: Path) -> None:
    config = make_config("resnet18", 16, batch_size=16, max_epochs=2)
    scores = []
    for memory_budget in (ImageMemoryBudget(10**9, tmp_path), ImageMemoryBudget(1000, tmp_path)):
        data = make_data(load(folder, memory_budget), folder)
        run = TrainingRun(config, data, device=torch.device("cpu"), weights="none")
        run.run_epoch()
        state = {name: tensor.clone() for name, tensor in run.state_dict().items()}
        scores.append((run.history[-1].train_loss, run.history[-1].macro_f1, state))
    assert scores[0][:2] == scores[1][:2]
    assert all(torch.equal(scores[0][2][name], scores[1][2][name]) for name in scores[0][2])


def test_only_the_files_name_is_pickled_and_a_node_without_it_makes_it(folder: Path, tmp_path: Path) -> None:
    memory_budget = ImageMemoryBudget(1000, tmp_path / "mapped")
    data = make_data(load(folder, memory_budget), folder)
    packed = pickle.dumps(data)
    assert len(packed) < data.images.nbytes / 5
    (path,) = memory_budget.folder.glob("*.rgb")
    expected = np.array(data.images)
    path.unlink()
    np.testing.assert_array_equal(pickle.loads(packed).images, expected)
    assert path.exists()


def test_images_in_memory_are_pickled_as_they_are(folder: Path, tmp_path: Path) -> None:
    data = make_data(load(folder, ImageMemoryBudget(10**9, tmp_path)), folder)
    buffers: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(data, protocol=5, buffer_callback=buffers.append)
    assert len(packed) < data.images.nbytes / 5, "the pixels are read in place, out of band"
    np.testing.assert_array_equal(pickle.loads(packed, buffers=buffers).images, data.images)


def test_a_node_with_another_source_is_refused(folder: Path, tmp_path: Path) -> None:
    memory_budget = ImageMemoryBudget(1000, tmp_path / "mapped")
    data = make_data(load(folder, memory_budget), folder)
    other = tmp_path / "other"
    for name in ("dark", "light"):
        (other / name).mkdir(parents=True)
        for path in (folder / name).iterdir():
            Image.new("RGB", (16, 16), (9, 9, 9)).save(other / name / path.name)
    moved = TrialData(
        images=data.images,
        labels=data.labels,
        splits=data.splits,
        class_names=data.class_names,
        reload=partial(load, other),
    )
    packed = pickle.dumps(moved)
    for path in memory_budget.folder.glob("*.rgb"):
        path.unlink()
    with pytest.raises(UserInputError, match=r"not those of the study"):
        pickle.loads(packed)


def test_a_full_disk_is_an_error_before_anything_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    memory_budget = ImageMemoryBudget(1000, folder.parent / "full")
    with pytest.raises(UserInputError, match=r"No space left on device.*resources\.image_folder"):
        load(folder, memory_budget)
    assert {path.suffix for path in memory_budget.folder.iterdir()} == {".lock"}


def test_a_set_that_is_refused_leaves_nothing_unfinished(folder: Path, tmp_path: Path) -> None:
    (folder / "light" / "zzz.png").write_bytes(b"no picture")
    try:
        with pytest.raises(UserInputError, match="zzz"):
            load(folder, ImageMemoryBudget(1000, tmp_path / "mapped"))
    finally:
        (folder / "light" / "zzz.png").unlink()
    assert not list((tmp_path / "mapped").glob(".*"))


MEASURE = """
import json, re, sys
from pathlib import Path
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.sources import load_image_set
def read(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
load_image_set("folder", sys.argv[1], native_size=8)
taken, kept = [], []
for allowed in (10**6, 10**9):
    before = read("RssAnon")
    budget = ImageMemoryBudget(allowed, Path(sys.argv[2]))
    kept.append(load_image_set("folder", sys.argv[1], native_size=512, memory_budget=budget).images)
    int(kept[-1][:, ::64].sum())
    taken.append((read("RssAnon") - before) / kept[-1].nbytes)
print(json.dumps(taken))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_mapped_images_take_no_memory_of_their_own(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURE, str(folder), str(tmp_path / "mapped")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    mapped, inside = json.loads(ended.stdout)
    assert mapped < 0.25
    assert inside > 0.9
