"""A spec or a study alone runs no code: each command with a spec and a study whose modules leave a marker when imported."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import study
from search_spaces.errors import UserInputError
from search_spaces.extensions import TRUST
from study.cluster import connection
from tests.study.command_line import Outcome, run_cli
from tests.study.small_study import write_small_study
from trainables.models.catalog import find_backbone

MODULE = """
from pathlib import Path

import numpy as np
import optuna
from torch import nn

from trainables.data.images import ImageSet

Path("imported").touch()


def load(*, seed):
    labels = np.arange(160) % 2
    noise = np.random.default_rng(seed).normal(0, 30, (160, 8, 8, 3))
    images = np.clip(noise + 80 + 90 * labels[:, None, None, None], 0, 255).astype(np.uint8)
    return ImageSet(images=images, labels=labels, class_names=("dark", "light"))


def make_sampler(seed):
    return optuna.samplers.RandomSampler(seed=seed)


def build(*, num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""
STUDY: dict[str, Any] = {
    "data": {"source": "trust_mine:load", "num_images": None},
    "train": {"batch_size": 16},
    "search": {
        "sampler": "trust_mine:make_sampler",
        "ranges": {"backbone": ["trust_mine:build"]},
        "fixed": {"class_weighting": "none", "cutmix_probability": 0.0},
    },
}
EVIL = """
name = "harmless"
data = { source = "shutil:rmtree", path = "./victim" }
model = { weights = "none" }
search = { num_trials = 2, max_epochs = 2 }
"""
SDS = ("--seed-sd", "1", "--image-sd", "10")
WORKING = "is code of the working folder, which would run; add --trust-code if you trust it"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a module, a spec that names it, and its finished study."""
    root = tmp_path_factory.mktemp("trust")
    (root / "trust_mine.py").write_text(MODULE)
    write_small_study(root / "own.toml", "own", **STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "path", list(sys.path))
        outcome = run_cli("run", "own.toml", "--local", "--trust-code")
    assert outcome.status == 0, outcome
    assert (root / "imported").exists()
    return root


@pytest.fixture(autouse=True)
def _fresh(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is imported yet, as in a new process, and a variable of the shell trusts nothing."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv(TRUST, str(folder))
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("trust_mine", None)
    find_backbone.cache_clear()
    (folder / "imported").unlink(missing_ok=True)
    yield
    find_backbone.cache_clear()


def run(folder: Path, *arguments: str) -> tuple[Outcome, bool]:
    """Return the outcome of a command, and whether the module was imported."""
    return run_cli(*arguments), (folder / "imported").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "own.toml"),
        ("run", "own.toml"),
        ("launch", "own.toml", "--dry-run", "--local"),
        ("plan", "own.toml", "--pilot", "2"),
        ("run", "own.toml", "--configuration", "a.json", "--configuration", "b.json"),
    ],
    ids=lambda command: command[0],
)
def test_a_spec_that_names_code_is_refused_with_all_its_problems(folder: Path, command: tuple[str, ...]) -> None:
    for name in ("a.json", "b.json"):
        values = {"backbone": "trust_mine:build", "max_lr": 0.1, "backbone_lr_ratio": 1.0, "interpolation": "bicubic"}
        (folder / name).write_text(json.dumps(values))
    outcome, is_imported = run(folder, *command, "--set", "search.max_epochs=0")
    assert (outcome.status, is_imported) == (2, False), outcome
    assert "search.max_epochs must be greater than or equal to 1" in outcome.errors
    for key, name in (("data.source", "load"), ("search.sampler", "make_sampler"), ("backbone", "build")):
        assert any(f"{key}: 'trust_mine:{name}' {WORKING}" in line for line in outcome.errors.splitlines()), outcome


@pytest.mark.parametrize("more", [(), ("--trust-code",)], ids=["untrusted", "trusted"])
@pytest.mark.parametrize(
    "command", [("inspect",), ("plan", *SDS), ("run",), ("launch", "--dry-run", "--local")], ids=lambda c: c[0]
)
def test_a_function_of_python_is_never_called(tmp_path: Path, command: tuple[str, ...], more: tuple[str, ...]) -> None:
    (tmp_path / "victim").mkdir()
    spec = tmp_path / "evil.toml"
    spec.write_text(EVIL.replace("./victim", str(tmp_path / "victim")))
    outcome = run_cli(command[0], spec, *command[1:], *more)
    assert (tmp_path / "victim").exists()
    assert outcome.status == 2
    assert len(outcome.errors.strip().splitlines()) == 1
    assert "'shutil' is a module of Python or of a package" in outcome.errors


@pytest.mark.parametrize("command", [("status",), ("report",), ("plan", *SDS)], ids=lambda command: command[0])
def test_what_only_reads_goes_on_without_the_code(folder: Path, command: tuple[str, ...]) -> None:
    named = ("own.toml", "--set", "data.source=digits") if command[0] == "plan" else ("own",)
    outcome, is_imported = run(folder, command[0], *named, *command[1:])
    assert (outcome.status, is_imported) == (0, False), outcome
    if command[0] == "plan":
        assert f"size on disk: not known, because the backbone 'trust_mine:build' {WORKING}" in outcome.output


def test_init_and_list_import_nothing(folder: Path) -> None:
    for command in ("init", "list"):
        outcome, is_imported = run(folder, command)
        assert (outcome.status, is_imported) == (0, False), outcome


COMMANDS = [
    ("resume", "own", "--local"),
    ("resume", "own", "--local", "--num-trials", "+2", "--search-only"),
    ("compare", "own", "--local"),
    ("analyze", "own", "--local"),
    ("intervene", "own", "--local", "--dry-run"),
    ("export", "own", "--to", "out"),
    ("reproduce", "own"),
    ("inspect", "own.toml", "--quick", "--local"),
    ("plan", "own.toml", *SDS),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_code_runs_with_the_option_alone_each_time_anew(folder: Path, command: tuple[str, ...]) -> None:
    refused, is_imported = run(folder, *command)
    assert (refused.status, is_imported) == (2, False), refused
    assert WORKING in refused.errors
    trusted, is_imported = run(folder, *command, "--trust-code")
    assert (trusted.status, is_imported) == (0, True), trusted


def test_no_file_of_a_study_holds_the_trust(folder: Path) -> None:
    files = [path for path in (folder / "studies" / "own").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if TRUST.encode() in path.read_bytes() or b"trust-code" in path.read_bytes()]


def test_a_notebook_is_asked_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUST)
    with pytest.raises(UserInputError, match=WORKING):
        study.load("own").best("bicubic")
    assert not (folder / "imported").exists()
    assert study.load("own", trust_code=True).best("bicubic").config.word("backbone") == "trust_mine:build"


@pytest.mark.parametrize("folder_of_driver", ["", "/home/driver/work"])
def test_workers_of_a_cluster_trust_what_the_driver_does(
    folder_of_driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr("ray.init", lambda **arguments: given.update(arguments))
    monkeypatch.setenv(TRUST, folder_of_driver)
    connection._init_ray("10.0.0.1:6379", "")
    expected = {"env_vars": {TRUST: folder_of_driver}} if folder_of_driver else None
    assert given == {
        "address": "10.0.0.1:6379",
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "runtime_env": expected,
    }
