"""The commands of docs/tutorial.md run, on a folder as messy as the one that it describes."""

import re
import shlex
from pathlib import Path

import pytest

from tests.made_once import random_weights
from tests.messy_folder import write_messy_folder
from tests.study.command_line import Outcome, run_cli
from trainables.data.sources.planted_scenes import make_planted_scenes

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
# The test has seconds, not minutes: without Ray, audits and heat maps, which have tests of their own.
LITTLE = (
    "search.num_trials=2",
    "search.max_epochs=1",
    "confirm.looks=[2]",
    "confirm.top_k=1",
    "analyze.num_audit_images=0",
    "analyze.num_panels=0",
)
SMALL = {
    # Not less time than in the tutorial: with little, a slow machine takes a part of the images, and perhaps no duplicate.
    "init": ["--image-size", "24"],
    "inspect": ["--quick"],
    "run": ["--local", *(word for override in LITTLE for word in ("--set", override))],
}
MOST, NUM_CLASSES = 160, 6


def read_commands() -> list[list[str]]:
    """Return the commands of the tutorial's shell blocks that are ours."""
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("study ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_the_commands_of_the_tutorial_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scenes = make_planted_scenes(seed=0, num_images=2200).image_set
    folder = write_messy_folder(
        tmp_path / "photos", scenes.images, scenes.labels, scenes.class_names[:NUM_CLASSES], most=MOST
    )
    (tmp_path / "weights").symlink_to(random_weights())
    outcomes: dict[str, Outcome] = {}
    for command in read_commands():
        outcomes[command[0]] = run_cli(*command, *SMALL.get(command[0], []), width=10_000)
        assert outcomes[command[0]].status == 0, outcomes[command[0]]
    assert set(outcomes) >= {"init", "inspect", "run"}
    for file in (*folder.strays, *folder.damaged, *(copy for _, copy in folder.duplicates)):
        assert str(file.relative_to(folder.root)) in outcomes["init"].output
    for _, copy in folder.near_duplicates:
        assert str(copy.relative_to(folder.root)) in outcomes["inspect"].output
    assert (tmp_path / "studies" / "photos" / "report.html").exists()
