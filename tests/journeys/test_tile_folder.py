"""A folder of somebody else, gray tiles under six lights with masks: `study init` and `study inspect`, nothing else typed."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from study.inputs.preparation import load_split_images
from study.spec.reading import load_spec
from study.spec.study_spec import StudySpec
from study.views.first_spec import init
from tests.leaks import CHOICES, judge_leaks
from tests.made_once import random_weights
from tests.study.command_line import Outcome, run_cli
from tests.tile_folder import LOOSE, TILES, TileFolder, write_tile_folder
from trainables.data.splits import SPLIT_NAMES
from trainables.models.catalog import RESNETS
from trainables.training.trial_cost import TrialCost

MAX_LINE_CHARACTERS = 2500
COST = TrialCost(setup_seconds=1.0, epoch_seconds=1.0)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tiles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(init, "measure_costs", lambda *_, **__: dict.fromkeys(RESNETS, COST))
        yield folder


@pytest.fixture(scope="module")
def tiles(work: Path) -> TileFolder:
    return write_tile_folder(work / "tiles")


@pytest.fixture(scope="module")
def first(work: Path, tiles: TileFolder) -> Outcome:
    """Return what `study init` says; an epoch costs a second, and the weights are random."""
    options = ("--to", work / "tiles.toml", "--weights", random_weights(), "--image-size", "32")
    outcome = run_cli("init", tiles.root / "MT_Free" / "..", *options, width=10_000)
    assert outcome.status == 0, outcome
    return outcome


@pytest.fixture(scope="module")
def spec(work: Path, first: Outcome) -> StudySpec:
    assert f"wrote {work / 'tiles.toml'}" in first.output
    return load_spec(str(work / "tiles.toml"))[0]


def test_each_line_of_the_review_is_answered_by_what_init_prints(first: Outcome, tiles: TileFolder) -> None:
    said = first.output
    num_images, sizes = len(tiles.objects), {name: a * b for name, (a, b) in TILES.items()}
    for part in (
        f"{tiles.root}: class folders\n",
        f"{num_images} images of 4 classes; width ",
        f"{num_images} grayscale",
        f"- 2 files not used: {LOOSE[0]} (an image beside the class folders; move it into the folder of its class to use it), ",
        f"- {num_images} masks left out as images; the audits and heat maps use them\n",
        "images have a near-duplicate, with which they stay in one split: ",
        "the largest of 6; otherwise, ",
        " test images would have one in training",
        "the largest class, MT_Free, has ",
        "sides differ: a crop of the center cuts ",
        " % of the area on average; data.aspect: ",
        " pp better than crop, with a standard error of ",
        "test set: half of the images, each tested once per seed by a model that has not seen it; ",
        "seeds of 2 folds",
    ):
        assert part in said, part
    found = re.search(r"has ([\d.]+) times the training images of the smallest, MT_Fray", said)
    assert found is not None
    assert 15 < float(found[1]) < 60
    assert sizes["MT_Free"] == 30 * sizes["MT_Fray"]
    assert "Imgs" not in said, "a folder that every class has is in no name"
    assert ".." not in said.split("next: ")[0], "paths are shown as they are"
    assert max(map(len, said.splitlines())) < MAX_LINE_CHARACTERS


def test_no_light_of_an_object_is_in_another_split_and_the_masks_are_those_of_the_images(
    spec: StudySpec, tiles: TileFolder
) -> None:
    image_set, splits = load_split_images(spec)
    assert spec.data.aspect in {"pad", "squash"}
    assert image_set.origin is not None
    split_of = {int(i): name for name in SPLIT_NAMES for i in getattr(splits, name)}
    splits_of: dict[int, set[str]] = defaultdict(set)
    for i, name in enumerate(image_set.origin.names):
        splits_of[tiles.objects[name]].add(split_of[i])
    assert np.mean([len(found) > 1 for found in splits_of.values()]) < 0.02
    assert image_set.near_duplicates is not None
    groups = defaultdict(set)
    for group, name in zip(image_set.near_duplicates.groups.tolist(), image_set.origin.names, strict=True):
        groups[group].add(tiles.objects[name])
    assert all(len(objects) == 1 for objects in groups.values()), "different objects are in no group"
    assert image_set.masks is not None
    has_defect = image_set.labels != image_set.class_names.index("MT_Free")
    assert np.array_equal(image_set.masks.any(axis=(1, 2)), has_defect)


@pytest.mark.usefixtures("first")
def test_inspect_shows_what_was_grouped_and_refuses_nothing(work: Path, tiles: TileFolder) -> None:
    page = work / "inspect.html"
    outcome = run_cli("inspect", work / "tiles.toml", "--quick", "--to", page, width=10_000)
    assert outcome.status == 0, outcome
    for part in (
        "images have a near-duplicate, with which they stay in one split: ",
        " of 64 bits differ",
        f"not used: 2 files ({LOOSE[0]}: an image beside the class folders",
        f"{len(tiles.objects)} masks left out as images; the audits and heat maps use them",
        "the images are gray: red, green and blue are equal, so there is no color to compare",
        "the largest class, MT_Free, has ",
        "sides differ: a crop of the center cuts ",
    ):
        assert part in outcome.output, part
    assert "0 across splits" in outcome.output
    shown = page.read_text()
    assert "MT_Free/Imgs/exp1_num_" in shown
    assert shown.count("<img") > 20


def test_where_a_crop_cuts_objects_off_their_number_is_said(spec: StudySpec) -> None:
    cropped = spec.model_copy(update={"data": spec.data.model_copy(update={"aspect": "crop"})})
    image_set, _ = load_split_images(cropped)
    assert image_set.masks is None
    assert image_set.origin is not None
    (note,) = image_set.origin.notes
    found = re.search(
        r"do not use them: a crop of the center cuts the whole object off (\d+) images, such as Imgs/exp", note
    )
    assert found is not None, note
    assert int(found[1]) > 30
    assert note.endswith('data.aspect = "pad" keeps it')


@pytest.mark.shared_data
def test_the_interval_of_the_probe_has_the_truth_only_if_tiles_stay_in_one_split(
    shared_data: Path, tmp_path: Path
) -> None:
    group, ignore = (judge_leaks(1, choice, shared_data / "weights", tmp_path) for choice in CHOICES)
    assert group.is_covered, group
    assert not ignore.is_covered, ignore
    assert ignore.judged.estimate > group.judged.estimate + 0.1
