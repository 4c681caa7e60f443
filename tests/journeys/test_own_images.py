"""Images as people have them: one study from a manifest to its report, and trials of two other layouts."""

import io
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from study.inputs.preparation import prepare
from study.spec.reading import validate_spec
from study.state import paths
from study.state.record_book import RecordBook
from study.state.sealed_files import read_sealed_json
from study.views.notebook import load
from tests.built_values import BASE
from tests.study.command_line import run_cli
from tests.study.small_study import small_study, write_small_study
from tests.trainables.data.sources import layout_files
from trainables.records.record import TrialState
from trainables.storage.store import Store
from trainables.training.loop import TrainingRun


def own_images(path: Path, **data: str) -> dict[str, Any]:
    """Return what the spec of a study of a folder or manifest has instead of the scenes."""
    return {
        "data": {"source": "folder", "path": str(path), "num_images": None, **data},
        "train": {"image_size": 8, "batch_size": 8},
        "search": {"fixed": {"backbone": "timm:test_resnet", "class_weighting": "none"}},
    }


def test_a_study_runs_from_a_manifest_with_groups_to_its_report(tmp_path: Path) -> None:
    manifest = layout_files.write_listed(tmp_path / "images", count=80, per_group=4)
    spec = write_small_study(tmp_path / "spec.toml", "own", **own_images(manifest, group="patient"))
    outcome = run_cli("run", spec, "--storage", tmp_path / "studies", "--local")
    assert outcome.status == 0, outcome
    store = Store(tmp_path / "studies" / "own")
    assert store.exists(paths.REPORT_HTML)
    assert read_sealed_json(store, paths.PASSPORT)["data"]["class_names"] == ["cat", "dog"]
    assert [r.state for r in RecordBook(store).of_stage("confirmation")] == [TrialState.COMPLETE] * 4
    check_files_are_named(store, pd.read_csv(manifest)["path"].tolist())


def check_files_are_named(store: Store, files: list[str]) -> None:
    study = load(store.address)
    images, findings = study.images(), study.findings()
    listed = pd.read_csv(io.StringIO(store.read_text(paths.TEST_IMAGES_CSV)))
    assert set(listed["file"]) <= set(files)
    assert list(listed) == ["sample_id", "file", "label"]
    assert images["file"].tolist() == 2 * listed["file"].tolist()
    shown = {sample_id for arm in findings.arms for cell in arm.examples for sample_id in cell.sample_ids}
    assert shown
    assert shown <= set(findings.image_files)
    for sample_id in shown:
        assert findings.name_image(sample_id) == dict(zip(listed["sample_id"], listed["file"], strict=True))[sample_id]
        assert all(
            findings.name_image(sample_id) in store.read_text(page) for page in (paths.REPORT_HTML, paths.EXPLORE_HTML)
        )


def test_classes_with_one_image_and_files_that_are_not_used_are_named_at_the_launch(tmp_path: Path) -> None:
    layout_files.write_classes(layout_files.write_classes(tmp_path / "images"), ("eel",), per_class=6, start=900_000)
    for name in ("a.heic", "b.HEIC", "notes.txt"):
        (tmp_path / "images" / "eel" / name).write_bytes(b"other")
    layout_files.write_image(tmp_path / "images" / "poster.png", 7)
    layout_files.draw_mask(3, 5).save(tmp_path / "images" / "eel" / "000_mask.png")
    spec = write_small_study(tmp_path / "spec.toml", "own", **own_images(tmp_path / "images"))
    with mock.patch("study.stages.stage.connect_cluster", side_effect=UserInputError("no cluster")):
        outcome = run_cli("run", spec, "--storage", tmp_path, width=1000)
    assert outcome.errors == "error: no cluster\n"
    assert (
        "2 .heic (not an image), 1 .txt (not an image), 1 .png (an image beside the class folders); `study inspect"
        in outcome.output
    )
    assert (
        "1 mask left out as images; the audits and heat maps do not use them: 45 of 46 images have none"
        in outcome.output
    )
    assert "warning: a split has one image only of 1 of the 3 classes: eel (6 in all, one in search, " in outcome.output


def train(path: Path) -> tuple[TrainingRun, dict[str, int]]:
    """Return a trial of a study of the folder, after its only epoch, and the sizes of the splits."""
    prepared = prepare(validate_spec(small_study("own", **own_images(path)), where="test"))
    config = TrialConfig(
        arm="bicubic", seed=0, hyperparameters={**BASE, "cutmix_probability": 0.5}, fixed=prepared.fixed
    )
    run = TrainingRun(config, prepared.data, device=torch.device("cpu"), weights="none")
    run.run_epoch()
    sizes = {name: len(getattr(prepared.splits, name)) for name in ("train", "search", "confirm", "test")}
    return run, sizes


def test_a_trial_of_an_imagefolder_with_published_splits(tmp_path: Path) -> None:
    run, sizes = train(layout_files.write_imagefolder(tmp_path, {"train": 40, "validation": 16, "test": 12}))
    assert sizes == {"train": 40, "search": 8, "confirm": 8, "test": 12}
    assert run.predict("test").logits.shape == (12, 2)


def test_a_trial_of_nested_class_folders(tmp_path: Path) -> None:
    run, sizes = train(layout_files.write_classes(tmp_path, ("animals/cat", "animals/dog", "cars")))
    assert sizes == {"train": 30, "search": 9, "confirm": 9, "test": 12}
    predictions = run.predict("confirm")
    assert predictions.logits.shape == (9, 3)
    assert np.bincount(predictions.labels).tolist() == [3, 3, 3]
