"""Every command of the documentation that one machine can run is run on a small study; only with -m all_docs."""

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.docs.markdown import ROOT, list_blocks
from tests.docs.test_pages import read_commands
from tests.study.command_line import run_cli
from trainables.data.sources.planted_scenes import make_planted_scenes

NAMES = ("cat", "dog", "ship", "truck")
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
# Parts of commands that need more than this machine or an end, and those of other tests.
ELSEWHERE = {
    "s3://": "an object store",
    "--address": "a cluster",
    "cifar10": "the published images and weights",
    "/mnt/": "a folder that two machines share",
    "tensorboard": "serves until it is stopped: tests/study/views",
    "abstudy_example": "an installed package: tests/examples",
    "models own": "the same",
    "photos": "tests/docs/test_tutorial.py",
    "sync": "a tracker: tests/study/views/test_tracker_stores.py",
    "mcp": "answers until its client ends: tests/study/test_agents.py",
}
SPEC = """
name = "mine"
seed = 3
[data]
source = "folder"
path = "photos"
[model]
weights = "none"
[train]
image_size = 24
batch_size = 32
weighted_group = "pets"
[search]
factor = "interpolation"
num_trials = 2
max_epochs = 1
start = []
pruning = "none"
fixed = { backbone = "resnet18", class_weighting = "none" }
[confirm]
looks = [2]
top_k = 1
[analyze]
num_audit_images = 40
num_panels = 1
groups = { pets = ["cat", "dog"], vehicles = ["ship", "truck"] }
"""


def list_commands() -> list[list[str]]:
    """Return the commands that run here, each once."""
    commands = {shlex.join(command): command for block in list_blocks("sh") for command in read_commands(block)}
    return [command for text, command in commands.items() if not any(part in text for part in ELSEWHERE)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images, specs, predictions, and the finished studies `mine` and `earlier`."""
    folder = tmp_path_factory.mktemp("prepared")
    scenes = make_planted_scenes(seed=0, num_images=1400).image_set
    for label, name in enumerate(NAMES):
        (folder / "photos" / name).mkdir(parents=True)
        for place in np.flatnonzero(scenes.labels == label)[:100]:
            Image.fromarray(scenes.images[place]).save(folder / "photos" / name / f"{place}.png")
    (folder / "mine.toml").write_text(SPEC)
    labels = np.arange(200) % 4
    for name, seed in (("resnet", 0), ("vit", 1)):
        noise = np.random.default_rng(seed).normal(0, 1, (200, 4))
        probabilities = np.exp(2 * np.eye(4)[labels] + noise)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        np.savez(folder / f"{name}.npz", labels=labels, probabilities=probabilities)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = run_cli("run", "mine.toml", "--local", width=10_000)
        assert done.status == 0, done
        shutil.copytree("studies/mine", "studies/earlier")
        yield folder


@pytest.mark.all_docs
@pytest.mark.parametrize("command", list_commands(), ids=shlex.join)
def test_command_runs(command: list[str], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    shutil.copytree(prepared, here)
    monkeypatch.chdir(here)
    is_local = command[0] in ("run", "compare", "intervene", "inspect", "resume")
    done = run_cli(*command, *(["--local"] if is_local else []), width=10_000)
    # A gate answers with its status: yes, no or undecided.
    assert done.status in ((0, 1, 4) if command[0] == "gate" else (0,)), done
    assert done.output or command[0] == "list"


def test_commands_are_found_and_the_rest_is_named() -> None:
    commands = [command[0] for command in list_commands()]
    assert {"compare", "analyze", "judge", "intervene", "plan", "inspect", "export", "reproduce", "status"} <= set(
        commands
    )
    everything = [shlex.join(c) for block in list_blocks("sh") for c in read_commands(block)]
    unused = [part for part in ELSEWHERE if not any(part in text for text in everything)]
    assert not unused


@pytest.mark.all_docs
def test_notebook_runs(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(prepared / "studies" / "mine", tmp_path / "studies" / "demo")
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert {"demo", "columns", "images", "audit", "best"} <= set(names)
