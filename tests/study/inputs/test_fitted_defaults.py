"""Defaults that fit the images, of new studies alone; what a spec gives is never changed."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search_spaces.errors import UserInputError
from study.inputs.fitted_defaults import FittedSpec, choose_batch_size, fit_and_prepare, fit_defaults, list_weightings
from study.scheduling.warm_start import describe_difference
from study.spec.reading import dump_spec, load_spec, parse_spec
from study.stages import launching, stage
from study.state.budget_extensions import launched_spec
from study.views.data_inspection import gather
from tests.study.command_line import run_cli
from tests.trainables.data.sources.layout_files import write_classes
from trainables.data.images import ImageSet
from trainables.data.splits import Splits
from trainables.storage.store import Store

SPEC = 'name = "small"\n[data]\nsource = "planted"\n'
GROUPS = {"round": ("ball",)}


def fit(
    tmp_path: Path, *overrides: str, counts: tuple[int, ...] = (40, 44, 46), groups: Any = None, spec: str = SPEC
) -> FittedSpec:
    file = tmp_path / "small.toml"
    file.write_text(spec)
    return fit_defaults(*load_spec(str(file), overrides), *make_images(counts, groups or {}))


def make_images(counts: Sequence[int], groups: Mapping[str, Sequence[str]]) -> tuple[ImageSet, Splits]:
    """Return images of which all are training images, with so many of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple(map(str, range(len(counts))))
    pixels = np.zeros((len(labels), 1, 1, 3), dtype=np.uint8)
    image_set = ImageSet(images=pixels, labels=labels, class_names=names, source="", class_groups=groups)
    none = np.arange(0)
    return image_set, Splits(train=np.arange(len(labels)), search=none, confirm=none, test=none, data_fingerprint="")


@pytest.mark.parametrize(
    ("num_train", "expected"),
    [(5_000, 128), (1_024, 128), (1_023, 64), (130, 16), (127, 8), (60, 8), (9, 8), (7, 4), (2, 2)],
)
def test_an_epoch_has_eight_steps_where_the_images_allow_it(num_train: int, expected: int) -> None:
    assert choose_batch_size(128, num_train) == expected


def test_weightings_that_are_worth_a_search() -> None:
    assert list_weightings([100, 119], has_group=False) == ("none",)
    assert list_weightings([100, 120], has_group=False) == ("none", "inverse_frequency")
    assert list_weightings([100, 100], has_group=True) == ("none", "group")


def test_a_small_balanced_set_without_groups_gets_small_batches_and_no_class_weights(tmp_path: Path) -> None:
    fitted = fit(tmp_path)
    assert fitted.spec.train.batch_size == 16
    assert dict(fitted.spec.search_space().fixed) == {"class_weighting": "none"}
    assert "class_weight_strength" not in fitted.spec.search_space().names
    assert fitted.notes == (
        "train.batch_size = 16 instead of 128, because there are 130 training images",
        'search.fixed.class_weighting = "none", because the classes are balanced (46 to 40 training images) and the images '
        "describe no groups of classes",
    )
    assert parse_spec(dump_spec(fitted.spec), "spec.toml").train == fitted.spec.train


def test_a_space_of_ones_own_that_has_nothing_else_is_left_as_it_is(tmp_path: Path) -> None:
    own = '[search.space]\nclass_weighting = { kind = "categorical", choices = ["inverse_frequency"] }\n'
    fixed = "max_lr = 0.01\nbackbone_lr_ratio = 0.1\ncutmix_probability = 0.0\nclass_weight_strength = 0.5\n"
    fixed += 'interpolation = "bicubic"\nweight_decay = 1e-4\nlabel_smoothing = 0.0\nbackbone = "resnet18"\n'
    fitted = fit(tmp_path, spec=f'{SPEC}[search]\nallocation = "pooled"\n[search.fixed]\n{fixed}{own}')
    assert fitted.spec.search.ranges == {}
    assert fitted.spec.search_space().values_of("class_weighting") == ("inverse_frequency",)


def test_an_imbalanced_set_keeps_the_weights_by_frequency(tmp_path: Path) -> None:
    fitted = fit(tmp_path, counts=(20, 400), groups=GROUPS)
    assert fitted.spec.search.ranges == {"class_weighting": ["none", "inverse_frequency"]}
    assert "train.weighted_group names no group" in fitted.notes[1]


@pytest.mark.parametrize(
    ("overrides", "search"),
    [
        (["search.fixed.class_weighting=inverse_frequency"], {"class_weighting": "inverse_frequency"}),
        (['search.ranges.class_weighting=["none", "group"]'], {"class_weighting": ["none", "group"]}),
    ],
)
def test_values_of_the_spec_are_never_changed(tmp_path: Path, overrides: list[str], search: dict[str, Any]) -> None:
    fitted = fit(tmp_path, "train.batch_size=128", *overrides)
    assert fitted.notes == ()
    assert fitted.spec.train.batch_size == 128
    assert {**fitted.spec.search.fixed, **fitted.spec.search.ranges} == search


@pytest.mark.parametrize(
    "given",
    [
        '[[search.start]]\nmax_lr = 0.05\nbackbone_lr_ratio = 0.3\ncutmix_probability = 0.0\ninterpolation = "bicubic"\n'
        'weight_decay = 1e-4\nlabel_smoothing = 0.0\nclass_weighting = "inverse_frequency"\nclass_weight_strength = 0.5\n',
        "[search.prior.class_weight_strength]\ncenter = 0.5\nwidth = 0.2\n",
    ],
)
def test_what_a_start_or_a_prior_names_stays_in_the_search(tmp_path: Path, given: str) -> None:
    fitted = fit(tmp_path, spec=SPEC + given)
    assert fitted.spec.search_space().values_of("class_weighting") == ("none", "inverse_frequency")


def test_a_spec_that_weights_on_purpose_loses_only_what_is_impossible(tmp_path: Path) -> None:
    for override in ("search.factor=class_weighting", "search.fixed.class_weight_strength=0.5"):
        fitted = fit(tmp_path, override, "train.batch_size=16")
        assert fitted.spec.search.ranges == {"class_weighting": ["none", "inverse_frequency"]}
    assert [arm.name for arm in fit(tmp_path, "search.factor=class_weighting").spec.arms()] == [
        "none",
        "inverse_frequency",
    ]


def test_given_configurations_are_left_alone(tmp_path: Path) -> None:
    base = 'backbone = "resnet18", max_lr = 0.1, backbone_lr_ratio = 0.1, cutmix_probability = 0.0, weight_decay = 1e-4'
    base += ', label_smoothing = 0.0, interpolation = "bicubic", class_weighting = "none"'
    design = f'[design]\nkind = "one_at_a_time"\nbase = {{ {base} }}\nchanges = {{ max_lr = 0.2 }}\n'
    assert fit(tmp_path, "train.batch_size=8", spec=SPEC + design).notes == ()


@pytest.mark.parametrize(
    ("override", "expected"), [("seed=1", {}), ("search.fixed.class_weighting=none", {"class_weighting": "none"})]
)
def test_a_warm_start_brings_its_class_weightings(tmp_path: Path, override: str, expected: dict[str, Any]) -> None:
    """Fitted values would make the space another one."""
    file = tmp_path / "small.toml"
    file.write_text(SPEC)
    earlier, _ = load_spec(str(file), [override])
    fitted = fit_defaults(*load_spec(str(file), ["search.warm_start=earlier"]), *make_images((40, 44, 46), {}), earlier)
    assert (dict(fitted.spec.search_space().fixed), fitted.spec.train.batch_size) == (expected, 16)
    assert describe_difference(earlier, fitted.spec) == ""


def test_two_classes_of_sixty_images_are_prepared_without_a_setting(tmp_path: Path) -> None:
    """It was refused: class_weighting "group" needs named groups of classes."""
    folder = write_classes(tmp_path / "images", ("ants", "bees"), 60, size=16)
    file = tmp_path / "own.toml"
    file.write_text(f'name = "own"\n[data]\nsource = "folder"\npath = "{folder}"\n[model]\nweights = "none"\n')
    fitted, prepared = fit_and_prepare(*load_spec(str(file), ["train.image_size=16"]))
    inspected = gather(*load_spec(str(file), ["train.image_size=16"]))
    assert (inspected.fitted.spec, inspected.fitted.notes) == (fitted.spec, fitted.notes)
    assert inspected.problems == ()
    assert prepared.fixed["batch_size"] == 8
    assert fitted.spec.search.fixed == {"class_weighting": "none"}
    with pytest.raises(UserInputError, match='remove "group" from the range of class_weighting'):
        fit_and_prepare(
            *load_spec(str(file), ["train.image_size=16", 'search.ranges.class_weighting=["none", "group"]'])
        )


class NoCluster:
    node_gpus = (0.0,)

    def describe(self) -> str:
        return "no cluster"


def test_a_launch_prints_the_fitted_values_and_records_them_and_a_resume_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "connect_cluster", lambda _: contextlib.nullcontext(NoCluster()))
    monkeypatch.setattr(stage, "check_cluster", lambda *_: 1)
    monkeypatch.setattr(launching, "count_devices", lambda *_: 1.0)
    monkeypatch.setattr(launching, "SEARCH_ALONE", ())
    folder = write_classes(tmp_path / "images", {"ants": 60, "bees": 30}, size=16)
    file = tmp_path / "own.toml"
    file.write_text(f'name = "own"\n[data]\nsource = "folder"\npath = "{folder}"\n[model]\nweights = "none"\n')
    got = run_cli("launch", file, "--storage", tmp_path, "--set", "train.image_size=16")
    assert got.status == 0, got.errors
    assert "fitted to the data: train.batch_size = 8 instead of 128, because there are 44 training images" in got.output
    assert 'fitted to the data: search.ranges.class_weighting = ["none", "inverse_frequency"]' in got.output
    spec = launched_spec(Store(tmp_path / "own"))
    assert spec.train.batch_size == 8
    assert spec.search.ranges == {"class_weighting": ["none", "inverse_frequency"]}
