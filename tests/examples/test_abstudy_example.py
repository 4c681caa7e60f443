"""The example package, found by the metadata of an installed package or in the working folder, extends the product."""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from search_spaces.extensions import TRUST
from study.inputs.preparation import prepare
from study.scheduling.sampler import check_custom_sampler
from study.spec.reading import load_spec
from study.views.exported_model import explain_loading
from tests.study.command_line import run_cli
from trainables.models import catalog
from trainables.models.backbones import build_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "abstudy_example"
SPEC = EXAMPLE / "study.toml"
PROJECT = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
BY_LOCATION = (
    "data.source=abstudy_example.source:load",
    "search.sampler=abstudy_example.sampler:make_sampler",
    'search.ranges.backbone=["resnet18", "abstudy_example.backbone:build"]',
    'model.arguments={"abstudy_example.backbone:build" = { width = 8 }}',
)


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example can be imported, but is not installed."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    catalog.find_backbone.cache_clear()
    yield
    catalog.find_backbone.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "abstudy_example"]:
        del sys.modules[name]


@pytest.fixture
def installed(on_path: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """The example is installed: its metadata lie beside it on the path, as pip writes them."""
    folder = tmp_path / "site" / f"abstudy_example-{PROJECT['version']}.dist-info"
    folder.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: {PROJECT['version']}\n"
    (folder / "METADATA").write_text(metadata)
    lines = []
    for group, entries in PROJECT["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {location}" for name, location in entries.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(folder.parent))


@pytest.mark.usefixtures("installed")
def test_its_backbone_is_listed() -> None:
    assert run_cli("models", "own").output.split() == ["example-cnn"]


@pytest.mark.usefixtures("installed")
def test_its_training_loop_has_a_name_and_a_package() -> None:
    spec, _ = load_spec(str(EXAMPLE / "loops.toml"))
    assert [arm.name for arm in spec.arms()] == ["network", "example-pixels"]
    prepared = prepare(spec)
    assert prepared.packages == (PROJECT["name"],)
    config = TrialConfig(arm="own", seed=0, hyperparameters=dict(spec.arms()[1].space.middle()), fixed=prepared.fixed)
    assert "from abstudy_example.loops import PixelRegression" in explain_loading(config, 5)
    with pytest.raises(
        UserInputError, match=r"'example-pixel' must be an entry point of abstudy\.trainables \(did you mean"
    ):
        load_spec(str(SPEC), ["train.trainable=example-pixel"])


@pytest.mark.usefixtures("installed")
def test_its_spec_names_all_three() -> None:
    spec, text = load_spec(str(SPEC))
    assert (spec.data.source, spec.search.sampler) == ("example-digits", "example-qmc")
    assert [arm.name for arm in spec.arms()] == ["resnet18", "example-cnn"]
    assert 'sampler = "example-qmc"' in text
    check_custom_sampler(spec)
    prepared = prepare(spec)
    assert prepared.image_set.source == "example-digits"
    assert prepared.image_set.class_names == ("digit 3", "digit 5", "digit 6", "digit 8", "digit 9")
    assert prepared.image_set.images.shape == (len(prepared.image_set), 8, 8, 3)


@pytest.mark.usefixtures("on_path")
def test_its_functions_can_be_named_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST, str(EXAMPLE))
    spec, _ = load_spec(str(SPEC), BY_LOCATION)
    check_custom_sampler(spec)
    prepared = prepare(spec)
    assert prepared.image_set.source == "abstudy_example.source:load"
    with pytest.raises(UserInputError, match="there is no source 'example-digits'"):
        load_spec(str(SPEC))


@pytest.mark.usefixtures("installed")
def test_the_data_are_the_same_under_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST, str(EXAMPLE))
    by_name, by_location = (load_spec(str(SPEC), overrides)[0] for overrides in ((), BY_LOCATION))
    one, other = prepare(by_name), prepare(by_location)
    assert one.splits.data_fingerprint == other.splits.data_fingerprint
    assert one.splits.fingerprint == other.splits.fingerprint


@pytest.mark.usefixtures("installed")
def test_its_backbone_has_the_width_of_the_spec() -> None:
    spec, _ = load_spec(str(SPEC))
    (arm,) = (arm for arm in spec.arms() if arm.name == "example-cnn")
    config = TrialConfig(arm=arm.name, seed=0, hyperparameters=dict(arm.space.middle()), fixed=prepare(spec).fixed)
    model = build_model(config, 5, weights="none").eval()
    assert model.head.in_features == 32
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


@pytest.mark.usefixtures("installed")
def test_wrong_names_are_refused_with_the_nearest() -> None:
    overrides = ["data.source=example-digit", "search.sampler=example-qcm"]
    with pytest.raises(UserInputError) as refused:
        load_spec(str(SPEC), overrides)
    message = str(refused.value)
    assert "there is no source 'example-digit' (did you mean 'example-digits'?)" in message
    assert "search.sampler must be auto," in message
    assert "(did you mean 'example-qmc'?), but got 'example-qcm'" in message
    with pytest.raises(UserInputError, match=r"no level 'example-cn' \(did you mean 'example-cnn'\?\)"):
        load_spec(str(SPEC), ['search.ranges.backbone=["resnet18", "example-cn"]'])


@pytest.mark.usefixtures("installed")
def test_what_cannot_be_imported_is_refused_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLE)
    overrides = ["data.source=abstudy_example.sources:load", "search.sampler=abstudy_example.sampler:make"]
    arguments = [word for override in overrides for word in ("--set", override)]
    refused = run_cli("launch", SPEC, "--storage", tmp_path / "studies", "--trust-code", *arguments)
    assert refused.status == 2
    assert (
        "data.source: the function 'abstudy_example.sources:load' cannot be imported (ModuleNotFound" in refused.errors
    )
    assert "search.sampler: the function 'abstudy_example.sampler:make' cannot be imported (Attribute" in refused.errors
    assert not (tmp_path / "studies").exists()


@pytest.mark.usefixtures("installed")
def test_what_is_neither_a_source_nor_a_sampler_is_refused_before_the_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLE)
    cases = {
        "search.sampler=abstudy_example.backbone:ExampleNet": "must be a function of the argument seed alone",
        "data.source=abstudy_example.source:load_digits": "must return a trainables.data.images.ImageSet, but returned Bunch",
        "data.source=sklearn.datasets:load_digits": "'sklearn' is a module of Python or of a package",
        "data.options.digits=[3, 13]": "data.options.digits must be two or more different digits",
    }
    for override, words in cases.items():
        changes = ["--set", override, *(["--set", "data.options={}"] if "load_digits" in override else [])]
        refused = run_cli("launch", SPEC, "--storage", tmp_path / "studies", "--trust-code", *changes)
        assert refused.status == 2, override
        assert words in refused.errors
        assert len(refused.errors.strip().splitlines()) <= 2
    assert not (tmp_path / "studies").exists()
