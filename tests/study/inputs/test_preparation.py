"""Prepared data: images that need more than their memory budget are mapped from a file."""

import pickle
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search_spaces.errors import UserInputError
from study.confirmation.trained_models import make_test_predictions
from study.inputs.preparation import (
    Prepared,
    check_class_groups,
    load_images,
    locate_weights,
    make_spec_splits,
    prepare,
)
from study.inputs.provenance import make_passport
from study.spec.reading import parse_spec
from tests.trainables.data.sources.layout_files import write_classes

SPEC = """
name = "pictures"
[data]
source = "folder"
path = "{path}"
[model]
weights = "none"
[train]
image_size = 16
[search]
fixed = {{ class_weighting = "none" }}
[resources]
{more}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "pictures", ("cat", "dog", "ship"), 30, size=16)


def test_a_study_keeps_to_its_image_memory(folder: Path, tmp_path: Path) -> None:
    inside, mapped = (
        prepare(parse_spec(SPEC.format(path=folder, more=more), "test"))
        for more in ("", f'image_memory_gb = 1e-6\nimage_folder = "{tmp_path / "mapped"}"')
    )
    assert not isinstance(inside.data.images, np.memmap)
    assert isinstance(mapped.data.images, np.memmap)
    assert mapped.splits.data_fingerprint == inside.splits.data_fingerprint
    assert mapped.fixed == inside.fixed
    # Another machine has the source and its own disk.
    packed = pickle.dumps(mapped.data)
    for path in (tmp_path / "mapped").iterdir():
        path.unlink()
    np.testing.assert_array_equal(pickle.loads(packed).images, inside.data.images)


def write_copies(folder: Path) -> None:
    for number in range(10):
        data = (folder / "cat" / f"{number:03d}.png").read_bytes()
        (folder / "cat" / f"copy-{number}.png").write_bytes(data)


def test_copies_stay_in_one_split_and_the_passport_says_so(folder: Path) -> None:
    write_copies(folder)
    text = SPEC.format(path=folder, more="")
    prepared = prepare(parse_spec(text, "test"))
    data = make_passport(prepared, "none", 1.0)["data"]
    assert data["near_duplicates"].startswith(
        "20 of 100 images have a near-duplicate, with which they stay in one split"
    )
    assert prepared.data.groups is not None
    for name in ("train", "search", "confirm", "test"):
        groups = prepared.data.groups[getattr(prepared.splits, name)]
        assert not np.isin(np.delete(prepared.data.groups, getattr(prepared.splits, name)), groups).any()
    # The setting is a part of the data's identity where it changes what belongs together.
    ignoring = prepare_ignoring(text.replace("[data]", '[data]\non_bad_image = "skip"'))
    assert ignoring.splits.data_fingerprint != data["fingerprint"]
    assert "near_duplicates" not in make_passport(ignoring, "none", 1.0)["data"]


def prepare_ignoring(text: str) -> Prepared:
    return prepare(parse_spec(text.replace("[data]", '[data]\nnear_duplicates = "ignore"'), "test"))


def test_predictions_have_groups_only_where_test_images_share_one(folder: Path) -> None:
    write_copies(folder)
    data = prepare(parse_spec(SPEC.format(path=folder, more=""), "test")).data
    assert data.groups is not None
    for ids, has_groups in ((np.unique(data.groups), False), (np.arange(len(data.groups)), True)):
        logits = np.zeros((len(ids), 3), dtype=np.float32)
        found = make_test_predictions(logits, replace(data, splits=replace(data.splits, test=ids)))
        assert (found.groups is not None) == has_groups


def test_leaking_training_images_are_refused_or_left_out_and_recorded(folder: Path) -> None:
    write_copies(folder)
    text = SPEC.format(path=folder, more="").replace("[data]", '[data]\nnear_duplicates = "ignore"')
    with pytest.raises(UserInputError, match=r'also occur in another split.*cat/.*data\.on_bad_image = "skip"'):
        prepare(parse_spec(text, "test"))
    skipping = parse_spec(text.replace("[data]", '[data]\non_bad_image = "skip"'), "test")
    prepared = prepare(skipping)
    assert prepared.image_set.origin is not None
    left_out = {file.name for file in prepared.image_set.origin.skipped}
    assert left_out
    assert left_out.isdisjoint(prepared.image_set.origin.names[i] for i in prepared.splits.train)
    assert prepare(skipping).splits.fingerprint == prepared.splits.fingerprint
    assert make_spec_splits(skipping, prepared.image_set)[0].fingerprint == prepared.splits.fingerprint


def test_groups_that_do_not_fit_the_classes_are_refused_before_the_launch(folder: Path) -> None:
    wrong = (
        SPEC.format(path=folder, more="")
        + '[analyze]\ngroups = { none = [], pets = ["cat", "dgo"], fluffy = ["cat"] }\n'
    )
    spec = parse_spec(wrong, "test")
    image_set = prepare(spec).image_set
    with pytest.raises(UserInputError, match=r"analyze\.groups") as refused:
        check_class_groups(spec, image_set)
    for part in ("the group 'none' is empty", "'dgo' (did you mean 'dog'?)", "both have 'cat'"):
        assert part in str(refused.value)


def test_how_images_are_decoded_is_set_in_its_own_keys(folder: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, size=(8, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "cat" / "wide.png")
    (folder / "dog" / "empty.png").write_bytes(b"")
    text = SPEC.format(path=folder, more="")
    squashed, cropped = (
        load_images(parse_spec(text.replace("[model]", f'aspect = "{aspect}"\non_bad_image = "skip"\n[model]'), "test"))
        for aspect in ("squash", "crop")
    )
    assert squashed.images.shape == cropped.images.shape == (91, 18, 18, 3)
    assert not np.array_equal(squashed.images, cropped.images)
    with pytest.raises(UserInputError, match=r"empty\.png"):
        load_images(parse_spec(text, "test"))
    clashing = text.replace("[model]", '[data.options]\naspect = "crop"\n[model]')
    with pytest.raises(UserInputError, match=r"data\.options has aspect; set train\.image_size, data\.aspect"):
        load_images(parse_spec(clashing, "test"))


def test_the_passport_names_the_files_that_were_skipped(folder: Path) -> None:
    (folder / "dog" / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("x")
    text = SPEC.format(path=folder, more="").replace("[model]", 'on_bad_image = "skip"\n[model]')
    passport = make_passport(prepare(parse_spec(text, "test")), "none", 1.0)
    assert passport["data"]["kinds"] == {"RGB": 90}
    assert passport["data"]["skipped"] == [["notes.txt", "not an image"], ["dog/empty.png", "empty (0 bytes)"]]


def test_the_passport_has_the_versions_of_the_packages_that_models_come_from(folder: Path) -> None:
    text = SPEC.format(path=folder, more="")
    more = text.replace("fixed = {", 'ranges = { backbone = ["resnet18", "timm:resnet10t"] }\nfixed = {')
    versions, others = (make_passport(prepare(parse_spec(t, "test")), "none", 1.0)["versions"] for t in (more, text))
    assert versions == {**others, "timm": metadata.version("timm")}
    assert others["scipy"] == metadata.version("scipy")


def test_equal_images_of_two_classes_are_refused(folder: Path) -> None:
    for number in range(3):
        (folder / "dog" / f"{number:03d}.png").write_bytes((folder / "cat" / f"{number:03d}.png").read_bytes())
    text = SPEC.format(path=folder, more="").replace("[model]", 'on_bad_image = "skip"\n[model]')
    with pytest.raises(UserInputError, match="equal to an image of another class"):
        prepare(parse_spec(text, "spec.toml"))


def test_options_that_have_a_place_of_their_own_are_refused(folder: Path) -> None:
    spec = parse_spec(SPEC.format(path=folder, more="[data.options]\nseed = 3\npath = 'x'"), "test")
    with pytest.raises(UserInputError, match=r"has seed, path; the seed is that of the study; set data\.path instead"):
        load_images(spec)


@pytest.mark.usefixtures("trusted")
def test_settings_of_the_study_reach_a_source_of_ones_own() -> None:
    text = SPEC.format(path="", more="").replace('"folder"', '"tests.trainables.data.sources.own_sources:load_at_size"')
    found = load_images(parse_spec(text.replace('path = ""', 'on_bad_image = "skip"'), "test"))
    assert found.group_names == ("16", "skip")


def test_weights_are_found_in_the_home_folder_and_by_a_url_with_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my weights").mkdir()
    expected = str((tmp_path / "my weights").resolve())
    assert locate_weights("~/my weights") == locate_weights(f"file://{tmp_path}/my%20weights") == expected
    with pytest.raises(UserInputError, match="there is no"):
        locate_weights("~/other")
