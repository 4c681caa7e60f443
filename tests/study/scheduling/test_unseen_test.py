"""A warm start is refused if the other study trained or searched on images of this study's test split."""

from pathlib import Path

import numpy as np
import pytest
import tomli_w
from PIL import Image

from search_spaces.errors import UserInputError
from study.inputs.preparation import prepare
from study.inputs.provenance import make_passport
from study.scheduling.unseen_test import check_test_is_unseen
from study.scheduling.warm_start import WarmStart
from study.spec.reading import with_overrides
from study.spec.study_spec import StudySpec
from study.state.paths import PASSPORT, SPEC
from study.state.sealed_files import write_sealed_json, write_sealed_toml
from tests.study.simulated import make_spec
from trainables.storage.store import Store

DIGITS = ("data.source=digits", "data.num_images=300")


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of a spec are not built: only its images and splits matter here."""
    monkeypatch.setattr("study.inputs.preparation.check_models", lambda *_: None)


def change(*overrides: str) -> StudySpec:
    return with_overrides(make_spec(fixed={"class_weighting": "none"}), overrides, where="test")


def launch(folder: Path, *overrides: str) -> WarmStart:
    """Write the spec and the passport of another study."""
    spec, store = change(*overrides), Store(folder)
    write_sealed_toml(store, SPEC, tomli_w.dumps(spec.model_dump(exclude_none=True)))
    write_sealed_json(store, PASSPORT, make_passport(prepare(spec), "simulated", 1.0))
    return WarmStart(study="other", root=store.root, trials=())


def check(warm_start: WarmStart, *overrides: str) -> WarmStart:
    spec = change(*overrides)
    return check_test_is_unseen(warm_start, spec, prepare(spec))


def write_folder(folder: Path, first: int, size: int = 12, num_images: int = 30) -> Path:
    """Write images of two classes, numbered from `first`; an image depends on its number alone."""
    for number in range(first, first + num_images):
        path = folder / f"class_{number % 2}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def of_folder(folder: Path) -> tuple[str, str]:
    return "data.source=folder", f"data.path={folder}"


def test_equal_splits_are_accepted(tmp_path: Path) -> None:
    other = launch(tmp_path / "other", *DIGITS)
    assert check(other, *DIGITS, "train.batch_size=32") == other


def test_another_seed_on_the_same_images_is_refused_with_the_numbers_and_the_remedy(tmp_path: Path) -> None:
    fewer = DIGITS[0], "data.num_images=1797"
    other = launch(tmp_path / "other", *fewer)
    theirs, ours = prepare(change(*fewer)).splits, prepare(change(*fewer, "seed=1", "data.test_fraction=0.3")).splits
    seen = int(np.isin(ours.test, np.concatenate([theirs.train, theirs.search])).sum())
    expected = (
        rf"but {seen} of the {len(ours.test)} test images .*/other; .*\(seed=0, no data.test_fraction\), or remove"
    )
    assert seen > 100
    with pytest.raises(UserInputError, match=expected):
        check(other, *fewer, "seed=1", "data.test_fraction=0.3")


def test_another_subset_of_the_same_images_is_compared_image_by_image(tmp_path: Path) -> None:
    other = launch(tmp_path / "other", *DIGITS)
    with pytest.raises(UserInputError, match=r"of the 80 test images are in the train or search split"):
        check(other, DIGITS[0], "data.num_images=400", "seed=1")


def test_other_images_of_another_folder_are_accepted_and_equal_ones_are_refused(tmp_path: Path) -> None:
    other = launch(tmp_path / "other", *of_folder(write_folder(tmp_path / "a", 0)))
    fresh = of_folder(write_folder(tmp_path / "b", 100))
    assert check(other, *fresh).note == ""
    copied = of_folder(write_folder(tmp_path / "c", 10))
    with pytest.raises(UserInputError, match=r"of the 6 test images .*; remove search.warm_start"):
        check(other, *copied)


def test_scenes_of_another_seed_are_other_images(tmp_path: Path) -> None:
    planted = ("data.num_images=120",)
    other = launch(tmp_path / "other", *planted)
    assert check(other, *planted, "seed=5").note == ""


def test_images_that_cannot_be_compared_are_refused_for_one_source_and_noted_for_another(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "a", 0)
    other = launch(tmp_path / "other", *of_folder(source))
    larger = check(other, *of_folder(write_folder(tmp_path / "b", 0, size=16)))
    assert larger.note.endswith("was not checked: its images have 12x12 pixels, here 16x16")
    write_folder(source, 50)
    with pytest.raises(UserInputError, match=r"cannot be checked .* no longer those that it was launched with; remove"):
        check(other, *of_folder(source))
    for path in source.rglob("*.png"):
        path.unlink()
    assert "cannot be loaded again" in check(other, *DIGITS).note
