"""Arms that are given configurations, from files, a spec or a design."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from search_spaces.errors import UserInputError
from study.confirmation.plan import make_plan, read_plan
from study.open_study import load_study
from study.scheduling.budget import is_search_finished
from study.scheduling.search_director import SearchDirector
from study.spec.reading import load_spec, read_configurations, validate_spec
from study.spec.study_spec import StudySpec
from study.stages.stage import Session
from study.state.record_book import MemoryBook
from tests.built_values import BASE
from tests.study.command_line import run_cli
from tests.study.simulated import FIXED, drive
from trainables.storage.store import Store

# Without audits and heat maps, which the tests of a whole study have.
SMALL = (
    "data.num_images=300",
    "data.options={}",
    "train.image_size=16",
    "search.max_epochs=1",
    "search.fixed={}",
    "search.ranges={}",
    "confirm.looks=[2]",
    "analyze.num_panels=0",
    "analyze.num_audit_images=0",
    "train.batch_size=16",
)


def make_spec(**sections: Any) -> StudySpec:
    data = {
        "name": "given",
        "data": {"source": "planted"},
        "model": {"weights": "none"},
        "train": {"image_size": 32},
        "search": {"max_epochs": 6},
    }
    return validate_spec({**data, **sections}, where="test")


def test_each_configuration_is_trained_once_whatever_it_costs() -> None:
    dear = {**BASE, "backbone": "resnet50"}
    spec = make_spec(configurations={"cheap": BASE, "dear": dear, "third": {**BASE, "max_lr": 0.5}})
    book = MemoryBook()
    director = SearchDirector(book, spec, FIXED)
    drive(director)
    records = book.of_stage("search")
    assert [r.config.arm for r in records] == ["cheap", "dear", "third"]
    assert [dict(r.config.hyperparameters) for r in records] == [BASE, dear, {**BASE, "max_lr": 0.5}]
    assert {len(r.epochs) for r in records} == {6}
    assert is_search_finished(records, spec, None)
    plan = make_plan(spec, {r.config.arm: r for r in records}, (1, 2))
    assert [(row.treatment, row.control) for row in plan.rows] == [("dear", "cheap"), ("third", "cheap")]
    assert spec.factor == "configuration"


def test_rows_of_the_plan_are_those_of_the_design() -> None:
    design = {"kind": "factorial", "base": BASE, "changes": {"cutmix_probability": 0.5, "label_smoothing": 0.1}}
    spec = make_spec(design=design)
    assert [arm.name for arm in spec.arms()] == ["run-1", "run-b", "run-a", "run-ab"]
    assert [row.treatment for row in spec.contrasts()] == [
        "cutmix_probability=0.5",
        "label_smoothing=0.1",
        "cutmix_probability x label_smoothing",
    ]
    assert spec.num_trials == 4
    assert spec.factor == "cutmix_probability, label_smoothing"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"configurations": {"a": BASE}}, "needs two configurations"),
        ({"configurations": {"a": BASE, "b": {**BASE, "max_lr": 7.0}}}, "'b': .*max_lr <= 1.0 must hold, but got 7.0"),
        ({"configurations": {"a b": BASE, "c": BASE}}, "a b"),
        (
            {
                "configurations": {"a": BASE, "b": BASE},
                "design": {"kind": "factorial", "base": BASE, "changes": {"max_lr": 1}},
            },
            "not both",
        ),
        ({"design": {"kind": "factorial", "base": BASE, "changes": {"max_lr": 0.1}}}, "2 to 8 factors"),
        ({"configurations": {"a": BASE, "b": BASE}, "search": {"device_seconds": 9.0}}, "are not searched"),
        (
            {"configurations": {"a": BASE, "b": BASE}, "search": {"allocation": "pooled"}},
            "each one is an arm; remove search.allocation",
        ),
    ],
)
def test_bad_configurations_are_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        make_spec(**sections)


def test_a_spec_of_a_search_compares_configurations_without_what_its_search_knows(tmp_path: Path) -> None:
    start = "max_lr = 0.05\n"
    prior = "[search.prior.max_lr]\ncenter = 0.05\nwidth = 2.0\n"
    (tmp_path / "spec.toml").write_text(f'name = "s"\n[data]\nsource = "planted"\n[[search.start]]\n{start}{prior}')
    spec, _ = load_spec(str(tmp_path / "spec.toml"), (), None, {"a": BASE, "b": {**BASE, "max_lr": 0.01}})
    assert (spec.search.start, spec.search.prior) == (None, {})


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def name_files(*files: Path) -> list[str | Path]:
    return [word for file in files for word in ("--configuration", file)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "holds no configuration"),
        ({}, "holds no configuration"),
        ({"max_lr": None}, "holds no configuration"),
        ({"hyperparameters": {"max_lr": [1]}}, "holds no configuration"),
        ({"max_lr": 0.1}, "the hyperparameter 'backbone' is missing"),
        ({**BASE, "weight_decays": 1}, "no parameter 'weight_decays' (did you mean 'weight_decay'"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: object, message: str) -> None:
    files = (write(tmp_path / "good.json", BASE), write(tmp_path / "bad.json", content))
    got = run_cli("run", "cifar10-cpu", *name_files(*files), "--storage", tmp_path / "studies")
    assert got.status == 2
    assert message in got.errors
    assert "bad" in got.errors
    assert not (tmp_path / "studies").exists()


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    good = write(tmp_path / "good.json", BASE)
    for files, message in (
        ([good], "--configuration must name two or more files, but got 1"),
        ([good, good], "but two are named 'good'"),
        ([good, tmp_path / "none.json"], "there is no configuration file"),
    ):
        got = run_cli("run", "demo", *name_files(*files))
        assert got.status == 2
        assert message in got.errors


def test_configurations_from_files_are_compared_to_the_report(tmp_path: Path) -> None:
    exported = {
        "arm": "resnet18",
        "configuration": {"hyperparameters": BASE, "fixed": {"image_size": 64, "max_epochs": 1}},
    }
    files = (write(tmp_path / "old.json", exported), write(tmp_path / "new.json", {**BASE, "max_lr": 0.002}))
    options = [part for override in (*SMALL, "resources.max_concurrent=2") for part in ("--set", override)]
    got = run_cli("run", "demo", *name_files(*files), "--storage", tmp_path, "--local", *options)
    assert got.status == 0, got.errors + got.output
    assert "old was trained before with image_size 64 (here 16)" in got.output
    assert "new vs old" in got.output or "old vs new" in got.output
    study = load_study(Store(tmp_path / "old-vs-new"))
    assert [r.config.arm for r in study.book.of_stage("search")] == ["old", "new"]
    assert len(study.book.of_stage("confirmation")) == 4
    plan = read_plan(study.store)
    assert plan is not None
    assert [(row.treatment, row.control) for row in plan.rows] == [("new", "old")]
    page = (tmp_path / "old-vs-new" / "report.html").read_text()
    assert "Compared: configuration." in page
    assert "nothing was searched" in page
    assert "an equal share is" not in page, "shares of device time say nothing where nothing was searched"
    again = run_cli("resume", tmp_path / "old-vs-new", "--num-trials", "+2")
    assert again.status == 2
    assert "no search to extend" in again.errors


def test_interventions_follow_in_the_study_of_the_configurations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write(tmp_path / f"{name}.json", BASE) for name in ("old", "new")]
    launched: list[str] = []

    def run(_: Session, stages: Iterable[Any]) -> list[str]:
        launched.append(next(iter(stages)).spec.name)
        return []

    monkeypatch.setattr(Session, "run", run)
    got = run_cli("run", "demo", *name_files(*files), "--intervene", "--storage", tmp_path)
    assert launched == ["old-vs-new"]
    assert f"there is no study at {tmp_path}/old-vs-new" in got.errors, got


def test_exported_files_of_one_name_are_arms_of_the_names_that_they_had(tmp_path: Path) -> None:
    paths = []
    for arm in ("resnet18", "resnet50"):
        (tmp_path / arm).mkdir()
        content = {"arm": arm, "configuration": {"hyperparameters": {**BASE, "backbone": arm}, "fixed": {}}}
        paths.append(write(tmp_path / arm / "study.json", content))
    assert [found.name for found in read_configurations(paths)] == ["resnet18", "resnet50"]
    renamed = write(tmp_path / "mine.json", json.loads(paths[0].read_text()))
    assert read_configurations([renamed, paths[1]])[0].name == "mine"
