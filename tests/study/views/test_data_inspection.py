"""`study inspect` shows everything that it can, says what is missing, and ends with one message of all problems."""

import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from search_spaces.errors import UserInputError
from study.cluster.connection import Cluster
from study.cluster.process_workers import ProcessWorkers
from study.cluster.tasks import Task
from study.spec.reading import parse_spec
from study.spec.study_spec import StudySpec
from study.views import data_inspection as inspection
from study.views.data_inspection import Gathered, audit_stages, gather, inspection_config, print_inspection
from study.views.study_cost import count_search_trials, describe_study_time
from tests.made_once import random_weights
from tests.study.command_line import run_cli
from tests.trainables.data.sources.layout_files import write_classes

SPEC = """
name = "pictures"
[data]
source = "folder"
path = "{path}"
[model]
weights = "{weights}"
[train]
image_size = 24
[search]
num_trials = 8
factor = "interpolation"
fixed = {{ class_weighting = "none", backbone = "resnet18" }}
[confirm]
top_k = 1
[resources]
cpu = 1
{more}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("pictures"), per_class=24, size=16)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str | None) -> None:
        raise UserInputError("Ray could not be started on this machine: no memory")

    monkeypatch.setattr(inspection, "connect_cluster", refuse)


def make_spec(folder: Path, weights: str = "none", more: str = "") -> StudySpec:
    return parse_spec(SPEC.format(path=folder, weights=weights, more=more), "test")


@pytest.fixture(scope="module")
def spec(folder: Path) -> StudySpec:
    return make_spec(folder)


@pytest.fixture(scope="module")
def gathered(spec: StudySpec) -> Gathered:
    return gather(spec)


def inspect(spec: StudySpec, **options: object) -> tuple[str, str]:
    """Return what is printed and the message of the error."""
    console = Console(file=io.StringIO(), width=100)
    with pytest.raises(UserInputError) as raised:
        print_inspection(spec, None, console, **options)  # type: ignore[arg-type]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue(), str(raised.value)


def test_all_parts_come_without_weights_and_cluster_and_one_message_lists_what_is_missing(
    folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    spec = make_spec(folder, weights="/nowhere/weights", more="[analyze]\ngroups = { pets = ['cat', 'dgo'] }")
    output, message = inspect(spec, to=page)
    for title in (
        "Dimensional audit",
        "Images per class",
        "near-duplicates: none",
        "Color",
        "What the looks can decide",
    ):
        assert title in output, title
    assert "needs pretrained weights" in output
    assert "there is no /nowhere/weights" in output
    assert "variances: assumed from eight studies with pretrained weights" in output
    for problem in ("/nowhere/weights", "dgo", "Ray could not be started"):
        assert problem in message, problem
    html = page.read_text()
    assert "Problems that keep the study from being launched" in html
    assert "What the looks can decide" in html
    assert list(tmp_path.iterdir()) == [page]


def test_a_backbone_that_does_not_take_the_images_is_one_of_the_problems_that_are_listed(folder: Path) -> None:
    backbones = "factor = 'backbone'\nranges = { backbone = ['resnet18', 'torchvision:alexnet'] }"
    text = SPEC.replace('factor = "interpolation"', backbones.replace("{", "{{").replace("}", "}}"))
    text = text.replace(', backbone = "resnet18"', "")
    groups = "[analyze]\ngroups = { pets = ['cat', 'dgo'] }"
    output, message = inspect(parse_spec(text.format(path=folder, weights="none", more=groups), "test"))
    assert "Images per class" in output
    for problem in ("torchvision:alexnet", "dgo", "Ray could not be started"):
        assert problem in message, problem


def test_random_weights_have_no_semantic_gap(folder: Path) -> None:
    output, _ = inspect(make_spec(folder), quick=False)
    assert 'model.weights is "none"' in output


def test_quick_leaves_the_network_out_and_reports_its_steps(gathered: Gathered) -> None:
    steps: list[str] = []
    found = inspection.compute_inspection(gathered, quick=True, report=steps.append)
    assert steps == ["every stage from file to logits", "duplicates, odd images and colors"]
    assert found.network is None
    assert found.network_note == "left out with --quick"


@pytest.fixture(scope="module")
def with_weights(folder: Path) -> StudySpec:
    """The spec with weights that stand in for pretrained ones."""
    return make_spec(folder, weights=str(random_weights() / "resnet18.pt"))


def test_on_a_cluster_a_task_computes_the_probes(with_weights: StudySpec, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    class Workers(ProcessWorkers):
        def run_tasks(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Any]:
            called.append(function.__name__)
            return super().run_tasks(function, pickle.loads(pickle.dumps(tasks)))

    cluster = Cluster(address="10.0.0.1:6379", node_cpus=(1.0,), node_gpus=(0.0,), scratch="")
    monkeypatch.setattr(inspection, "connect_cluster", lambda _: nullcontext(cluster))
    monkeypatch.setattr(inspection, "make_workers", lambda _, spec, data: Workers(spec, data))
    gathered = gather(with_weights)
    here = inspection.compute_inspection(gathered, quick=False)
    assert called == []
    there = inspection.compute_inspection(gathered, quick=False, address=cluster.address)
    assert called == ["_probe"]
    assert here.network is not None
    assert there.network is not None
    assert (there.network.macro_f1, there.network.rungs) == (here.network.macro_f1, here.network.rungs)


def test_without_the_cluster_the_rest_is_shown_and_the_probes_say_why(with_weights: StudySpec) -> None:
    found = inspection.compute_inspection(gather(with_weights), quick=False, address="10.0.0.1:6379")
    assert found.network is None
    assert found.network_note == "the cluster did not compute it: Ray could not be started on this machine: no memory"


def test_the_audit_goes_from_the_images_to_the_logits(spec: StudySpec, gathered: Gathered) -> None:
    stages = {stage.name: stage for stage in audit_stages(spec, gathered.prepared, has_models=True)}
    assert stages["evaluation input"].shape[1:] == (3, 24, 24)
    assert stages["soft targets"].layout == "NK"
    assert stages["resnet18 features, random weights"].shape == (8, 512)
    assert stages["resnet18 logits"].shape == (8, 2)
    assert all(stage.problem is None for name, stage in stages.items() if name != "files (sides in px)")


def test_the_inspected_training_inputs_are_those_of_the_preset(spec: StudySpec, gathered: Gathered) -> None:
    """The space searches CutMix, which stands in for half of the images, but "none" is none and "strong" has its own."""
    shares = {}
    for word in ("default", "none", "strong"):
        preset = spec.model_copy(update={"train": spec.train.model_copy(update={"augmentation": word})})
        shares[word] = inspection_config(preset, gathered.prepared)["cutmix_probability"]
    assert shares == {"default": 0.5, "none": 0.0, "strong": 0.5}


def test_problems_of_the_images_are_shown_and_refused_at_the_end(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(20):
            Image.new("RGB", (16, 16), (5 * number, 9, 9)).save(tmp_path / name / f"{number}.png")
    spec = make_spec(tmp_path)
    ignoring = spec.model_copy(update={"data": spec.data.model_copy(update={"near_duplicates": "ignore"})})
    output, message = inspect(ignoring, quick=True)
    assert "remove the copies" in message
    assert "with different labels" in output
    assert "Color" in output


def test_a_page_needs_a_folder_and_the_ending_html(folder: Path, tmp_path: Path) -> None:
    for wrong in (tmp_path / "missing" / "page.html", tmp_path / "page.pdf"):
        _, message = inspect(make_spec(folder), to=wrong)
        assert "--to takes a file that ends in .html" in message


def test_the_cost_of_a_study_follows_its_budget() -> None:
    seconds = {"bicubic": 10.0, "bilinear": 30.0}
    spec = make_spec(Path("/data"))
    searched = count_search_trials(spec, seconds)
    # Equal device time for the arms.
    assert searched == pytest.approx({"bicubic": 6.0, "bilinear": 2.0})
    capped = spec.model_copy(update={"search": spec.search.model_copy(update={"max_trials_per_arm": 5})})
    assert count_search_trials(capped, seconds) == pytest.approx({"bicubic": 5.0, "bilinear": 3.0})
    line, table = describe_study_time(spec, seconds, num_devices=2)
    # 60 s for each arm in the search, and 5 seeds of both in the confirmation.
    assert "2 min 40 s on 2 devices: 8 full trials of the search and 10 of the confirmation" in line
    assert [row[-1] for row in table.rows] == ["5", "5"]


def test_the_command_writes_the_page_and_exits_with_the_status_of_bad_input(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SPEC.format(path=folder, weights="none", more=""))
    outcome = run_cli("inspect", tmp_path / "mine.toml", "--quick", "--to", tmp_path / "page.html", width=80)
    assert outcome.status == 2
    assert outcome.errors.startswith("error: this spec cannot be launched: Ray could not be started")
    assert f"written: {tmp_path / 'page.html'}" in outcome.output
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
