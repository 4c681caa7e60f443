"""The workflow of docs/gate.md: its steps run as a shell would run them, in a repository that is made here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from tests.docs.markdown import ROOT, read_blocks

(WORKFLOW,) = (yaml.safe_load(block.text) for block in read_blocks(ROOT / "docs" / "gate.md", "yaml"))
STEPS = {step["name"]: step["run"] for step in WORKFLOW["jobs"]["gate"]["steps"] if "run" in step}
TRAIN = '''
"""Ridge regression on random features of digits; the seed draws the features and the training images."""
import argparse, json
import numpy as np

options = argparse.ArgumentParser()
options.add_argument("--seed", type=int)
options.add_argument("--to")
given = options.parse_args()
settings = json.load(open("settings.json"))
data = np.load(settings["data"])
images, labels = data["images"], data["labels"]
generator = np.random.default_rng([given.seed, settings["stream"]])
chosen = generator.choice(800, settings["num_images"], replace=False)
weights = generator.standard_normal((64, settings["num_features"])) / 8
features = np.maximum(images @ weights, 0)
train, targets = features[chosen], np.eye(10)[labels[chosen]]
solved = np.linalg.solve(train.T @ train + np.eye(len(weights[0])), train.T @ targets)
predicted = (features[800:] @ solved).argmax(axis=1)
np.savez(given.to, labels=labels[800:], predictions=predicted, seed=given.seed)
'''
SETTINGS = {"num_images": 300, "num_features": 60, "stream": 0}


def run(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as GitHub Actions does."""
    return subprocess.run(
        ["bash", "-e", "-c", command], cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True
    )


def commit(repository: Path, **changes: int | str) -> None:
    (repository / "settings.json").write_text(json.dumps({**SETTINGS, **changes}))
    done = run("git add . && git commit --quiet -m change", repository)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of a repository whose main branch trains on 300 images with 60 features."""
    images, labels = load_digits(return_X_y=True)
    np.savez(tmp_path / "data.npz", images=images / 16, labels=labels)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, start in (("python", ""), ("study", "-m study.cli ")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {start}"$@"\n')
        (programs / name).chmod(0o755)
    for name, value in (("AUTHOR", "a"), ("COMMITTER", "c")):
        monkeypatch.setenv(f"GIT_{name}_NAME", value)
        monkeypatch.setenv(f"GIT_{name}_EMAIL", f"{value}@example.org")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    origin = tmp_path / "origin"
    run(f"git init --quiet --initial-branch main {origin}", tmp_path)
    (origin / "train.py").write_text(TRAIN)
    commit(origin, data=str(tmp_path / "data.npz"))
    done = run(f"git clone --quiet {origin} work && cd work && git switch --quiet -c change", tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path / "work"


def run_steps(repository: Path) -> tuple[int, str]:
    """Run the steps of the workflow after the installation; return the status of the last one and the step's summary."""
    summary = repository.parent / "summary.md"
    summary.touch()
    done = None
    for name, command in STEPS.items():
        if name != "Install":
            done = run(command, repository, GITHUB_BASE_REF="main", GITHUB_STEP_SUMMARY=str(summary))
            assert done.returncode == 0 or name == "Answer", done.stderr
    assert done is not None
    assert done.stdout == summary.read_text(), done.stderr
    return done.returncode, done.stdout


def test_a_real_gain_is_a_yes_before_the_tenth_seed(repository: Path) -> None:
    commit(repository, data=str(repository.parent / "data.npz"), num_images=800, num_features=300)
    status, comment = run_steps(repository)
    assert status == 0, comment
    assert comment.startswith("### study gate: yes\n\n- gate/new is better than gate/old.\n")
    assert len(list((repository / "gate" / "new").iterdir())) < 10


def test_noise_is_no_yes(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With three seeds instead of ten, which the test has no time for."""
    train = next(name for name, command in STEPS.items() if "for seed in" in command)
    monkeypatch.setitem(STEPS, train, STEPS[train].replace("1 2 3 4 5 6 7 8 9 10", "1 2 3"))
    commit(repository, data=str(repository.parent / "data.npz"), stream=1)
    status, comment = run_steps(repository)
    assert status in (1, 4), comment
    assert re.match(r"### study gate: (no|undecided)\n", comment)


def test_the_workflow_has_the_rights_and_the_pinned_actions_of_ours() -> None:
    assert WORKFLOW["permissions"] == {}
    actions = [step["uses"] for step in WORKFLOW["jobs"]["gate"]["steps"] if "uses" in step]
    ours = (ROOT / ".github" / "workflows" / "check.yml").read_text()
    assert actions
    assert all(f"uses: {action}" in ours for action in actions)
