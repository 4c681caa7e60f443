"""Bad input: exit status 2, one message with the place, the rule and the value (a line per problem), and nothing is written."""

import functools
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from search_spaces.format import FORMAT
from study.state.sealed_files import write_sealed_toml
from tests.made_once import random_weights
from tests.study.command_line import run_cli
from tests.trainables.data.sources.layout_files import write_classes
from trainables.models.catalog import RESNETS
from trainables.storage.store import Store

SPEC = """
name = "bad"
[data]
source = "planted"
num_images = 400
[model]
weights = "none"
[train]
image_size = 32
weighted_group = "round"
[search]
num_trials = 4
max_epochs = 2
"""
LAUNCHED = f"format = {FORMAT}\n{SPEC}"
FOLDER_SPEC = SPEC.replace("num_images = 400\n", "")


write_folder = functools.partial(write_classes, classes=("class0", "class1", "class2"), size=16)


def truncated_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()[:120]


@pytest.fixture
def refuse(tmp_path: Path) -> Callable[..., str]:
    """Return a function that launches a spec, expects a refusal, and returns its message."""

    def launch(*overrides: str, spec: str = SPEC, mentions: tuple[str, ...] = ()) -> str:
        path = tmp_path / "spec.toml"
        path.write_text(spec)
        storage = tmp_path / "studies"
        arguments = [a for override in overrides for a in ("--set", override)]
        outcome = run_cli("launch", path, "--storage", storage, "--local", *arguments)
        assert outcome.status == 2, outcome
        assert not storage.exists()
        lines = outcome.errors.strip().splitlines()
        assert 1 <= len(lines) <= 2 or " problems" in lines[0], outcome.errors
        assert "Traceback" not in outcome.errors + outcome.output
        for word in mentions:
            assert word in outcome.errors
        return outcome.errors

    return launch


@pytest.mark.parametrize(
    ("override", "mentions"),
    [
        ("search.num_trails=8", ("num_trails", "num_trials")),
        ("serch.num_trials=8", ("serch", "search")),
        ("search.asha.reduction=2", ("reduction", "reduction_factor")),
        ("search.fixed.backbone_lr_ratio=3.0", ("backbone_lr_ratio <= 1.0 must hold", "3.0")),
        ("search.ranges.backbone_lr_ratio=[0.1, 3.0]", ("backbone_lr_ratio", "3.0")),
        ("search.factor=bakbone", ("bakbone", "backbone")),
        ("search.factor=max_lr", ("max_lr", "levels")),
        ("search.space=transfer_lerning", ("transfer_lerning", "transfer_learning")),
        ("search.num_trials=1", ("num_trials", "2", "1")),
        ('search.ranges.backbone=["resnet18", "resnet34"]', ("backbone has no level 'resnet34'", "resnet50")),
        ("search.fixed.backbone=resnet34", ("backbone has no level 'resnet34'",)),
        ('search.ranges.backbone=["resnet50"]', ("needs two levels", "resnet50")),
        ("search.device_seconds=0", ("search.device_seconds must be greater than 0, but got 0",)),
        ("search.allocation=poold", ("search.allocation", "poold")),
        ("search.sampler=tpe", ("search.sampler", "tpe_multivariate")),
        ("search.warm_start=nowhere", ("nowhere",)),
        ("search.num_trials=many", ("search.num_trials", "many")),
        ("data.source=cifar_10", ("data: there is no source 'cifar_10' (did you mean 'cifar10'?)\n",)),
        ("data.search_fraction=1.5", ("data.search_fraction", "1.5")),
        ("resources.cpu.resnet81=1", ("resnet81", "resnet18")),
        ("model.weights=/nowhere/at/all", ("/nowhere/at/all",)),
        ("name=a/b", ("name must be at most 64 letters, digits", "but got 'a/b'")),
        ("confirm.looks=[1]", ("confirm.looks", "2")),
        ("resources.gpu=1.5", ("one GPU or a fraction", "1.5", "resnet18")),
        ("search.num_trials", ("key=value",)),
        ("train.hard_fraction=0.25", ("needs train.hard_group, but it is empty; name one of round, angular",)),
    ],
)
def test_impossible_values_are_refused_by_name(
    refuse: Callable[..., str], override: str, mentions: tuple[str, ...]
) -> None:
    refuse(override, mentions=mentions)


def test_invalid_toml_is_refused_with_its_place(refuse: Callable[..., str]) -> None:
    refuse(spec='name = "bad\n', mentions=("spec.toml", "line 1"))


def test_missing_spec_names_the_nearest_preset(tmp_path: Path) -> None:
    outcome = run_cli("launch", "cifar10-cp", "--storage", tmp_path / "s")
    assert outcome.status == 2
    assert "cifar10-cpu" in outcome.errors


def test_missing_data_path(refuse: Callable[..., str], tmp_path: Path) -> None:
    refuse("data.source=folder", f"data.path={tmp_path}/none", spec=FOLDER_SPEC, mentions=(f"{tmp_path}/none",))


def test_source_without_the_class_labels(refuse: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "flat" / "a.png")
    refuse("data.source=folder", f"data.path={tmp_path}/flat", spec=FOLDER_SPEC, mentions=("2 problems", "a.png"))


def test_parquet_without_a_label_column(refuse: Callable[..., str], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"img": [{"bytes": b"x", "path": None}]})
    pq.write_table(table, tmp_path / "train-0.parquet")
    refuse(
        "data.source=parquet",
        f"data.path={tmp_path}/train-0.parquet",
        spec=FOLDER_SPEC,
        mentions=("label", "train-0.parquet"),
    )


def test_image_that_cannot_be_decoded_is_named(refuse: Callable[..., str], tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", per_class=12)
    (root / "class1" / "broken.png").write_bytes(truncated_png())
    refuse("data.source=folder", f"data.path={root}", spec=FOLDER_SPEC, mentions=("broken.png",))


def test_blank_images_are_named(refuse: Callable[..., str], tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", per_class=12)
    Image.new("L", (16, 16), 128).save(root / "class2" / "gray.png")
    refuse("data.source=folder", f"data.path={root}", spec=FOLDER_SPEC, mentions=("blank", "gray.png"))


def test_class_missing_from_a_split_is_named(refuse: Callable[..., str], tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", per_class=30)
    for path in sorted((root / "class1").iterdir())[2:]:
        path.unlink()
    refuse("data.source=folder", f"data.path={root}", spec=FOLDER_SPEC, mentions=("class1",))


def test_weights_of_another_architecture_are_refused(refuse: Callable[..., str], tmp_path: Path) -> None:
    for name in RESNETS:
        (tmp_path / f"{name}.pt").symlink_to(random_weights() / "resnet18.pt")
    refuse(f"model.weights={tmp_path}", mentions=("resnet50",))


def test_weights_that_are_a_pickle_are_refused_and_not_run(refuse: Callable[..., str], tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (marker,))  # type: ignore[return-value]

    (tmp_path / "w").mkdir()
    torch.save({"conv1.weight": Payload()}, tmp_path / "w" / "resnet18.pt")
    refuse(f"model.weights={tmp_path / 'w'}", mentions=("resnet18.pt",))
    assert not marker.exists()


def test_no_network_for_a_download_says_what_to_fetch(
    refuse: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    refuse("model.weights=imagenet", mentions=("resnet18-", ".pth", str(tmp_path / "hub")))
    refuse(
        "data.source=cifar10", f"data.path={tmp_path}/cifar", mentions=("cifar-10-python.tar.gz", f"{tmp_path}/cifar")
    )


def test_fewer_devices_than_one_trial_needs(refuse: Callable[..., str]) -> None:
    refuse("resources.cpu=4096", mentions=("4096 CPUs", "resnet18"))


def test_study_name_that_exists_says_how_to_resume(tmp_path: Path) -> None:
    storage = tmp_path / "studies"
    (storage / "bad").mkdir(parents=True)
    (storage / "bad" / "spec.toml").write_text(SPEC)
    (tmp_path / "spec.toml").write_text(SPEC)
    outcome = run_cli("launch", tmp_path / "spec.toml", "--storage", storage)
    assert outcome.status == 2
    assert f"study resume {storage}/bad" in outcome.errors
    assert [p.name for p in (storage / "bad").iterdir()] == ["spec.toml"]


@pytest.fixture
def launched(tmp_path: Path) -> Path:
    """The folder of a study `demo` that was launched and has no trial."""
    write_sealed_toml(Store(tmp_path / "demo"), "spec.toml", LAUNCHED)
    return tmp_path / "demo"


@pytest.mark.parametrize(
    ("command", "mentions"),
    [
        (("status", "demmo"), ("'demo'",)),
        (("reproduce", "demo", "--set", "train.batch_size=3"), ("train.batch_size",)),
        (("compare", "demo"), ("0 of 4 trials", "study resume")),
        (("analyze", "demo"), ("study resume",)),
        (("report", "demo"), ("study resume",)),
    ],
    ids=lambda given: given[0],
)
def test_commands_that_a_study_without_trials_cannot_have(
    launched: Path, command: tuple[str, ...], mentions: tuple[str, ...]
) -> None:
    outcome = run_cli(*command, "--storage", launched.parent)
    assert outcome.status == 2
    assert len(outcome.errors.strip().splitlines()) <= 2
    assert all(word in outcome.errors for word in mentions), outcome


def test_damaged_record_is_named(launched: Path) -> None:
    (launched / "trials" / "00000").mkdir(parents=True)
    (launched / "trials" / "00000" / "record.json").write_text('{"trial_id": "00000", ')
    outcome = run_cli("status", "demo", "--storage", launched.parent)
    assert outcome.status == 2
    assert "00000/record.json is damaged" in outcome.errors


def test_budget_too_small_for_a_full_trial_of_every_arm_is_refused_with_the_numbers(refuse: Callable[..., str]) -> None:
    small = ("train.image_size=16", "train.batch_size=16")
    message = refuse("search.device_seconds=0.01", *small, mentions=("search.device_seconds", "but got 0.01"))
    assert re.search(r"full trial of each \([0-9]+ for resnet18, [0-9]+ for resnet50\), so [0-9]+ or more", message)


def test_warm_start_from_another_space_is_refused_with_what_differs(refuse: Callable[..., str], launched: Path) -> None:
    text = LAUNCHED.replace("max_epochs = 2", "max_epochs = 2\nranges = { max_lr = [0.01, 0.1] }")
    write_sealed_toml(Store(launched), "spec.toml", text)
    refuse(f"search.warm_start={launched}", mentions=("same space", "max_lr is log [0.01, 0.1], here log [0.001, 1.0]"))
