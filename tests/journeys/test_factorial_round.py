"""`study intervene --design factorial`: runs, effects over all of them, interactions, and the recommended run."""

import csv
import json
from pathlib import Path

import pytest

from analysis.comparison.values import Verdict
from study.confirmation.plan import read_plan
from study.open_study import load_study
from study.results.stored_findings import load_findings
from study.spec.reading import parse_spec
from study.state import paths
from tests.study.command_line import run_cli
from tests.study.interventions.intervened import SPEC, make_parent
from trainables.storage.store import Store

FACTORIAL = ("--design", "factorial", "--only", "weighted_loss", "--only", "cutmix")
FIRST = "parent-intervene-1"
START = {
    **{"max_lr": 0.05, "backbone_lr_ratio": 0.3, "momentum": 0.9},
    **{"interpolation": "bicubic", "weight_decay": 1e-4, "label_smoothing": 0.0},
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a storage root with an analyzed study and its factorial round."""
    root = tmp_path_factory.mktemp("storage")
    with pytest.MonkeyPatch.context() as monkeypatch:
        # What the parent's search knew is nothing that a round's given configurations take.
        known = {"start": [START], "prior": {"max_lr": {"center": 0.05, "width": 2.0}}, "keep_weights": 1}
        make_parent(root, monkeypatch, search={**SPEC["search"], **known})
        bad = run_cli("intervene", root / "parent", "--design", "factorial", "--only", "cutmix", width=160)
        assert bad.status == 2
        assert "2 to 8 interventions, but there are 1 (cutmix)" in bad.errors
        poor = run_cli("intervene", root / "parent", *FACTORIAL, "--device-seconds", "30", width=160)
        assert poor.status == 2
        assert "one at a time, without --design: --only weighted_loss" in poor.errors
        assert not (root / FIRST).exists()
        outcome = run_cli("intervene", root / "parent", *FACTORIAL, width=160)
        assert outcome.status == 0, outcome
    return root


def test_each_run_has_the_changes_of_its_interventions(storage: Path) -> None:
    study = load_study(Store(storage / FIRST))
    plan = read_plan(study.store)
    assert plan is not None
    configurations = {run: study.book.get("search", trial).config for run, trial in plan.chosen.items()}
    found = {
        run: (config.get("class_weighting", "none"), config["cutmix_probability"] > 0)  # type: ignore[operator]
        for run, config in configurations.items()
    }
    assert found == {
        "run-1": ("none", False),
        "run-a": ("group", False),
        "run-b": ("none", True),
        "run-ab": ("group", True),
    }
    assert [(row.treatment, row.is_interaction) for row in plan.rows] == [
        ("weighted_loss", False),
        ("cutmix", False),
        ("weighted_loss x cutmix", True),
    ]


def test_effects_are_over_all_runs_and_the_best_run_is_recommended(storage: Path) -> None:
    study = load_study(Store(storage / FIRST))
    found = load_findings(study).interventions
    assert found is not None
    weighted, cutmix = found.effects
    assert weighted.target is not None
    assert cutmix.target is not None
    # (.2 + .05) / 2 - (.4 + .4) / 2 with the loss, (.4 + .05) / 2 - (.4 + .2) / 2 with CutMix.
    assert weighted.target.effect.estimate == pytest.approx(-0.275, abs=0.08)
    assert cutmix.target.effect.estimate == pytest.approx(-0.075, abs=0.06)
    assert weighted.target.verdict is Verdict.BETTER
    assert (found.control, found.recommended) == ("run-1", "run-ab")
    assert found.recommended_interventions == ("weighted_loss", "cutmix")
    interaction = load_findings(study).rows[2]
    assert interaction.treatment == "weighted_loss x cutmix"
    assert interaction.effect.estimate > 0
    cells = list(csv.DictReader(study.store.read_text(paths.INTERVENTIONS_CSV).splitlines()))
    assert [row["recommended"] for row in cells] == ["True", "True"]
    report = " ".join(study.store.read_text(paths.REPORT_MARKDOWN).split())
    assert "A factorial design: each effect is the mean over the runs with the intervention" in report
    assert "weighted\\_loss x cutmix" in report or "weighted_loss x cutmix" in report


def test_the_recommended_run_is_a_spec_and_weights_and_a_round_follows(storage: Path) -> None:
    recommended = parse_spec((storage / FIRST / paths.RECOMMENDED).read_text(), "recommended.toml")
    assert list(recommended.configurations) == ["run-1", "run-ab"]
    assert (storage / FIRST / paths.RECOMMENDED_MODEL / "run-ab" / "model.safetensors").exists()
    shown = run_cli("intervene", storage / "parent", "--json")
    assert json.loads(shown.output)["is_factorial"]
