"""`study init`: everything that is found is said at once, and the spec that it writes can be prepared."""

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search_spaces.errors import UserInputError
from study.inputs.fitted_defaults import fit_and_prepare
from study.inputs.preparation import load_split_images
from study.spec.reading import load_spec, preset_names, validate_spec
from study.spec.study_spec import StudySpec
from study.views.first_spec import init, machine, spec_text
from study.views.first_spec.machine import choose_weights, measure_costs
from tests.lit_objects import write_lit_objects
from tests.made_once import random_weights
from tests.study.command_line import Outcome, run_cli
from tests.trainables.data.sources import layout_files
from tests.trainables.data.sources.parquet_files import encode, make_pixels, write_parquet
from tests.trainables.data.sources.tar_files import write_shard
from tests.unequal_folder import write_unequal_folder
from trainables.data.image_audit import check_image_set
from trainables.models.catalog import RESNETS, find_torchvision_url
from trainables.training.trial_cost import TrialCost

Init = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def fixed_costs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    costs = {arm: TrialCost(setup_seconds=1.0, epoch_seconds=s) for arm, s in (("resnet18", 1.0), ("resnet50", 3.0))}
    monkeypatch.setattr(init, "measure_costs", lambda *_, **__: costs)
    monkeypatch.setattr(machine, "_can_be_fetched", lambda url: pytest.fail(f"a test may not look for {url}"))
    return


@pytest.fixture
def run_init(tmp_path: Path) -> Init:
    def call(path: Path | str, *options: str | Path, status: int = 0) -> Outcome:
        got = run_cli("init", path, "--to", tmp_path / "first.toml", "--weights", "none", *options)
        assert got.status == status, got.output + got.errors
        assert (tmp_path / "first.toml").exists() == (status == 0)
        return got

    return call


def write_parquet_set(root: Path) -> Path:
    for split, count in (("train", 60), ("test", 12)):
        images = [encode(make_pixels(1000 * len(split) + i)) for i in range(count)]
        write_parquet(root / f"{split}-00000-of-00001.parquet", images, [i % 3 for i in range(count)])
    return root


def write_tar_set(root: Path) -> Path:
    images = [encode(make_pixels(i)) for i in range(60)]
    write_shard(root / "own-train-000000.tar", [{"png": image, "cls": i % 3} for i, image in enumerate(images)])
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "flat": layout_files.write_classes,
    "train and val": lambda root: layout_files.write_splits(root, {"train": 20, "val": 8}),
    "train, val and test": lambda root: layout_files.write_splits(root, {"train": 20, "valid": 8, "test": 4}),
    "train and test": lambda root: layout_files.write_splits(root, {"train": 20, "test": 4}),
    "manifest": lambda root: layout_files.write_listed(root, count=80),
    "manifest with splits": lambda root: layout_files.write_listed(root, count=80, splits=True),
    "imagefolder": lambda root: layout_files.write_imagefolder(root, {"train": 40, "test": 10}),
    "nested": lambda root: layout_files.write_classes(root, ("pets/cat", "pets/dog", "eel")),
    "parquet": write_parquet_set,
    "tar files": write_tar_set,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_spec_of_every_layout_can_be_prepared(layout: str, tmp_path: Path, run_init: Init) -> None:
    grouped = ["--group", "patient"] if layout == "manifest" else []
    got = run_init(LAYOUTS[layout](tmp_path / "own images"), *grouped)
    spec, text = load_spec(str(tmp_path / "first.toml"))
    check_image_set(*load_split_images(spec))
    assert (spec.name, spec.train.image_size) == (
        "labels" if "manifest" in layout else "own-images",
        12 if layout in {"parquet", "tar files"} else 8,
    )
    assert spec.train.crop_min_area == 1.0, "small squares are not cropped"
    assert spec.search.fixed["interpolation"] == "bicubic", "nothing is interpolated"
    assert f"next: study inspect {tmp_path / 'first.toml'}" in got.output
    said = " ".join(got.output.split())
    assert "decide a difference of 2.00 pp, twice the margin, with a chance of" in said
    assert spec.confirm.margin == 0.01, "not chosen from what the images can decide"
    assert "would raise it to one half" in said, "no seeds and no images, of so small sets"
    assert ("images of one group stay in one split" in got.output) == bool(grouped)
    comments = [line for line in (tmp_path / "first.toml").read_text().splitlines() if line.startswith("#")]
    assert len(comments) > 10
    assert tomllib.loads(text)["data"].get("group") == (grouped or [None])[-1]


def test_each_image_size_is_measured_once(tmp_path: Path, run_init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {arm: TrialCost(setup_seconds=1.0, epoch_seconds=100.0) for arm in RESNETS}
    sizes: list[int] = []

    def measure(spec: StudySpec, **_: int) -> dict[str, TrialCost]:
        sizes.append(spec.train.image_size)
        return costs

    monkeypatch.setattr(init, "measure_costs", measure)
    monkeypatch.setattr(init, "find_machine", lambda: machine.Machine(num_cores=2, num_gpus=0))
    got = run_init(write_photographs(tmp_path / "unequal", {"ants": 60, "bees": 40}))
    assert "ResNet50 is left out" in got.output
    assert len(sizes) == len(set(sizes)) == 2


def test_the_uri_of_images_stays_in_the_spec(tmp_path: Path, run_init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    uri = write_tar_set(tmp_path / "own").as_uri()
    got = run_init(uri)
    assert f"{uri}: tar files with encoded images" in got.output
    spec, _ = load_spec(str(tmp_path / "first.toml"))
    assert (spec.name, spec.data.source, spec.data.path) == ("own", "webdataset", uri)
    assert (tmp_path / "first.toml").read_text().startswith("# Written by `study init own`.")
    check_image_set(*load_split_images(spec))


def write_photographs(root: Path, counts: dict[str, int]) -> Path:
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            size = (int(generator.integers(70, 120)), int(generator.integers(70, 120)), 3)
            pixels = generator.integers(0, 256, size, dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.jpg", quality=50)
    return root


def write_ends(root: Path) -> Path:
    """Write photographs of three squares, with an object of the class's color at one end, which a crop cuts off."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(("red", "blue")):
        (root / name).mkdir(parents=True)
        for number in range(40):
            pixels = generator.integers(90, 160, (32, 96, 3), dtype=np.uint8)
            place = 80 * int(generator.integers(2))
            pixels[:, place : place + 16, 2 * label] = 255
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_how_images_become_squares_is_measured_and_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "first.toml"
    words = ("--to", file, "--weights", random_weights(), "--image-size", "32")
    got = run_cli("init", write_ends(tmp_path / "ends"), *words, width=10_000)
    assert got.status == 0, got
    (line,) = [line for line in got.output.splitlines() if line.startswith("sides differ")]
    assert line.startswith("sides differ: a crop of the center cuts 66.7 % of the area on average; data.aspect: ")
    assert " pp better than crop, with a standard error of " in line
    spec, _ = load_spec(str(file))
    # Folds, whose test set is larger, are proposed where the costs that were just measured allow them.
    outside = 40 if spec.confirm.folds else 64
    assert f"({outside} images outside the test set, out of fold): macro-F1 crop " in line
    assert spec.data.aspect in {"pad", "squash"}
    assert f"# How images become squares: {spec.data.aspect}, by a linear probe on resnet18" in file.read_text()
    check_image_set(*load_split_images(spec))


def test_without_weights_the_crop_stays_and_squares_need_no_word(tmp_path: Path, run_init: Init) -> None:
    got = run_init(write_ends(tmp_path / "ends"), "--image-size", "32")
    said = " ".join(got.output.split())
    assert "data.aspect: crop, which was not measured, because a probe needs pretrained weights" in said
    assert load_spec(str(tmp_path / "first.toml"))[0].data.aspect == "crop"
    (tmp_path / "first.toml").unlink()
    got = run_init(layout_files.write_classes(tmp_path / "squares"))
    assert "aspect" not in got.output
    assert "aspect" not in (tmp_path / "first.toml").read_text()


def test_a_spec_of_two_small_classes_of_photographs_runs(tmp_path: Path, run_init: Init) -> None:
    got = run_init(write_photographs(tmp_path / "insects", {"ants": 60, "bees": 60}), "--image-size", "16")
    fitted, prepared = fit_and_prepare(*load_spec(str(tmp_path / "first.toml")))
    assert fitted.notes == (), "the spec already fits"
    assert prepared.image_set.images.shape == (120, 18, 18, 3)
    assert prepared.fixed["crop_min_area"] == 0.7
    assert prepared.fixed["batch_size"] == 8
    assert fitted.spec.search.fixed == {"class_weighting": "none"}
    assert "balanced: 30 training images of each class" in got.output
    assert "A full trial has 301 steps, 43 epochs of 7;" in got.output
    assert "16 px (stored at 18 px, random crops for training)" in got.output
    assert "bees      30       9        9    12   60" in got.output
    assert "width / height 0.6" in got.output


def test_what_would_raise_the_chance_is_said_with_its_measured_cost(
    tmp_path: Path, run_init: Init, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (init, spec_text):
        monkeypatch.setattr(module, "MARGIN", 0.2)
    said = " ".join(run_init(layout_files.write_classes(tmp_path / "images")).output.split())
    assert "decide a difference of 40.00 pp, twice the margin" in said
    assert "more trials, about " in said


def test_everything_odd_is_named_and_left_out(tmp_path: Path, run_init: Init) -> None:
    root = layout_files.write_splits(tmp_path / "odd", {"train": 40, "val": 12})
    layout_files.write_classes(root / "train", ("eel",), per_class=6, start=500_000)
    layout_files.write_classes(root / "val", ("eel",), per_class=2, start=600_000)
    layout_files.write_classes(root / "train", ("cat",), per_class=80, start=700_000)
    (root / "train/cat/notes.txt").write_text("notes")
    layout_files.write_image(root / "poster.png", 1)
    (root / "train/cat/broken.jpg").write_bytes(encode(make_pixels(1, 64), "JPEG")[:900])
    (root / "train/dog/empty.png").write_bytes(b"")
    (root / "val/dog/copy.png").write_bytes((root / "train/dog/001.png").read_bytes())
    got = run_init(root)
    for part in (
        "2 files not used: poster.png (an image beside the folders of the splits; move it into",
        "train/cat/notes.txt (not an image)",
        "2 image files cannot be used: train/cat/broken.jpg (cannot be decoded",
        "train/dog/empty.png (empty (0 bytes)); left out",
        "1 exact copy of other images: train/dog/001.png = val/dog/copy.png; the training images",
        "the largest class, cat, has 13.3 times the training images of the smallest, eel",
        "a split has one image only of 1 of the 3 classes: eel",
        "the published validation images",
    ):
        assert part in got.output
    text = (tmp_path / "first.toml").read_text()
    assert "# Without 2 image files that cannot be used and 1 training image also in another split." in text
    fitted, prepared = fit_and_prepare(*load_spec(str(tmp_path / "first.toml")))
    assert fitted.spec.data.on_bad_image == "skip"
    assert fitted.spec.search.ranges["class_weighting"] == ["inverse_frequency", "none"]
    assert prepared.image_set.origin is not None
    assert len(prepared.image_set.origin.skipped) == 5


def test_near_duplicates_are_counted_and_their_labels_compared(tmp_path: Path, run_init: Init) -> None:
    root = write_lit_objects(tmp_path / "lit", 30)
    (root / "rows/exp0_num_1002.png").rename(root / "columns/exp0_num_1002.png")
    got = run_init(root, "--image-size", "16")
    said = " ".join(got.output.split())
    assert "of 180 images have a near-duplicate, with which they stay in one split: " in said
    assert "test images would have one in training" in said
    assert re.search(r"- \d+ pairs? of near-duplicates with different labels; look which label is wrong", said)
    written = Path(re.search(r"the full list is in (\S+)", said)[1]).read_text()
    assert "columns/exp0_num_1002.png (columns) and rows/exp" in written
    assert load_spec(str(tmp_path / "first.toml"))[0].data.near_duplicates == "group"


def test_a_group_of_more_than_a_tenth_of_the_images_is_refused_with_what_the_names_say(
    tmp_path: Path, run_init: Init
) -> None:
    root = write_lit_objects(tmp_path / "lit", 30)
    for number in range(30):
        (root / "rows" / f"exp{number}_num_2000.png").write_bytes((root / "rows/exp0_num_1000.png").read_bytes())
    got = run_init(root, "--image-size", "16", status=2)
    said = " ".join(got.errors.split())
    assert re.search(r"a group of them holds 3\d of the 210 images, more than 10%: rows/exp0_num_1000.png, ", said)
    assert "with --group (near-duplicates have the part 1001 of names such as exp0_num_1001.png in common" in said
    got = run_init(root, "--image-size", "16", "--ignore-near-duplicates")
    assert "have a near-duplicate" not in got.output
    assert load_spec(str(tmp_path / "first.toml"))[0].data.near_duplicates == "ignore"


def test_masks_beside_photographs_are_left_out_with_a_note(tmp_path: Path, run_init: Init) -> None:
    got = run_init(layout_files.write_tiles(tmp_path / "tiles", per_class=20), "--image-size", "16")
    assert "40 images of 2 classes; 48x32 px" in got.output
    assert "- 40 masks left out as images; the audits and heat maps use them" in got.output
    image_set, splits = load_split_images(load_spec(str(tmp_path / "first.toml"))[0])
    check_image_set(image_set, splits)
    assert image_set.masks is not None


def test_images_that_cannot_be_used_at_all_are_refused_in_one_message(tmp_path: Path, run_init: Init) -> None:
    root = layout_files.write_classes(tmp_path / "bad", ("cat",), per_class=5)
    layout_files.write_image(root / "dog/0.png", 2)
    (root / "cat/empty.png").write_bytes(b"")
    (root / "nothing").mkdir()
    got = run_init(root, status=2)
    for part in ("nothing/", "dog (1", "cat/empty.png (empty (0 bytes))"):
        assert part in got.errors
    assert got.errors.startswith(f"error: {root} has 3 problems:")
    assert "there is no" in run_init(tmp_path / "nowhere", status=2).errors
    single = run_init(layout_files.write_classes(tmp_path / "single", ("ant", "bee", "cat"), per_class=1), status=2)
    assert single.errors.startswith(
        f"error: {tmp_path / 'single'}: each of the 3 classes has one image: ant, bee, cat; give"
    )


def write_all_alike(root: Path) -> Path:
    write_lit_objects(root, 1, num_lights=40)
    (root / "columns").mkdir()
    for number in range(20):
        file = f"exp{number}_num_1000.png"
        (root / "rows" / file).rename(root / "columns" / file)
    return root


def write_one_group(root: Path) -> Path:
    write_lit_objects(root, 81)
    (root / "odd").mkdir()
    for file in sorted((root / "rows").glob("*_num_1080.png")):
        file.rename(root / "odd" / file.name)
    return root


def write_masks_alone(root: Path) -> Path:
    for file in layout_files.write_tiles(root).rglob("*.jpg"):
        file.unlink()
    return root


def write_three_formats(root: Path) -> Path:
    layout_files.write_tiles(root)
    for suffix in ("png", "bmp"):
        layout_files.draw_tile(1).save(root / "crack/Imgs" / f"1.{suffix}")
    return root


@pytest.mark.parametrize(
    ("write", "rule"),
    [
        (
            write_all_alike,
            r"a group of them holds \d\d of the 40 images, more than 10%: .*give --ignore-near-duplicates",
        ),
        (write_one_group, r"none of 1 of the 3 classes: odd \(6 in all, .* set data\.near_duplicates = \"ignore\""),
        (write_masks_alone, r"masks of one color or two without images: .*put the photographs beside them"),
        (write_three_formats, r"images of one stem and size in three files or more: .*; keep one file of each"),
    ],
)
def test_what_no_study_can_be_made_of_is_one_message_with_the_way_out(
    tmp_path: Path, run_init: Init, write: Callable[[Path], Path], rule: str
) -> None:
    got = run_init(write(tmp_path / "bad"), "--image-size", "16", status=2)
    said = " ".join(got.errors.split())
    assert re.search(rule, said), said
    assert said.count("error:") == 1
    assert len(said) < 2500


def test_what_only_decoding_finds_is_in_the_message_of_the_splits(tmp_path: Path, run_init: Init) -> None:
    """Of the five images of one class, two are damaged behind their headers; three cannot fill four splits."""
    root = layout_files.write_classes(tmp_path / "rare")
    for number in range(5):
        data = encode(make_pixels(number, 32))
        (root / "eel").mkdir(exist_ok=True)
        (root / "eel" / f"{number}.png").write_bytes(data if number > 1 else data[:1500])
    got = run_init(root, "--image-size", "8", status=2)
    assert "eel (3 in all" in got.errors
    assert "eel/0.png (cannot be decoded" in got.errors


def test_a_file_is_not_overwritten_without_force(tmp_path: Path, run_init: Init) -> None:
    root = layout_files.write_classes(tmp_path / "own")
    run_init(root)
    (tmp_path / "first.toml").write_text("mine")
    again = run_cli("init", root, "--to", tmp_path / "first.toml", "--weights", "none")
    assert (again.status, (tmp_path / "first.toml").read_text()) == (2, "mine")
    assert "--force" in again.errors
    run_init(root, "--force")
    assert (tmp_path / "first.toml").read_text() != "mine"


def test_wrong_options_and_a_wrong_folder_are_refused_together(tmp_path: Path) -> None:
    target = tmp_path / "missing" / "first.toml"
    got = run_cli("init", tmp_path / "nowhere", "--to", target, "--weights", "imagenett")
    assert got.status == 2
    for part in (f"{target} cannot be written", "there is no 'imagenett' (did you mean 'imagenet'?)", "nowhere"):
        assert part in got.errors


def test_without_a_folder_it_explains_and_asks_nothing() -> None:
    got = run_cli("init")
    assert got.status == 0
    assert "train/, val/ and test/" in got.output
    assert all(f"  {name} " in got.output for name in preset_names())
    assert run_cli("init", "--weights", "none").status == 2


def test_weights_are_those_that_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(machine, "_can_be_fetched", lambda url: "resnet18" in url)
    offline = choose_weights(None)
    assert (offline.weights, offline.are_missing) == ("none", True)
    assert all(url in offline.reason for url in map(find_torchvision_url, RESNETS))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / find_torchvision_url("resnet50").rpartition("/")[2]).touch()
    online = choose_weights(None)
    assert online.weights == "imagenet"
    assert "downloads" in online.reason
    (tmp_path / "checkpoints" / find_torchvision_url("resnet18").rpartition("/")[2]).touch()
    assert "downloads" not in choose_weights(None).reason
    with pytest.raises(UserInputError, match=r"must hold resnet18\.pt"):
        choose_weights(str(tmp_path))


def test_costs_are_measured_by_training() -> None:
    data = {
        "name": "cost",
        "data": {"source": "digits"},
        "train": {"image_size": 8, "batch_size": 4},
        "search": {"max_epochs": 2, "allocation": "pooled"},
    }
    few, many = (
        measure_costs(validate_spec(data, "test"), num_classes=3, num_train=n, num_search=4, stored_side=9)["all"]
        for n in (12, 1200)
    )
    assert 0 < few.setup_seconds < 60
    assert 10 * few.epoch_seconds < many.epoch_seconds
    assert many.of_epochs(3) == many.setup_seconds + 3 * many.epoch_seconds


def test_a_folder_of_very_unequal_classes_gets_weights_a_probe_to_beat_and_steps(tmp_path: Path) -> None:
    folder = write_unequal_folder(tmp_path / "scenes", counts=(90, 40, 12, 8), side=32)
    words = ("--weights", random_weights(), "--minutes", "1", "--to", tmp_path / "spec.toml")
    outcome = run_cli("init", folder, *words, width=400)
    assert outcome.status == 0, outcome
    assert "to beat: majority class" in outcome.output
    assert "to beat: linear probe on resnet18 (frozen features" in outcome.output
    spec = load_spec(str(tmp_path / "spec.toml"), [])[0]
    assert spec.search.ranges["class_weighting"] == ["inverse_frequency", "none"]
    first = spec.search_space().values_of("class_weighting")[0]
    assert first == "inverse_frequency", "the recipes begin with class weights"
