"""`study plan` says what the looks can decide; the launch warns where they cannot; a plan without variances is refused."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from study.spec.reading import load_spec
from study.views import pilot
from study.views.planning import describe_launch
from tests.study.command_line import run_cli
from tests.study.searched import confirm, simulate
from tests.study.simulated import learning_curve
from trainables.records.record import TrialRecord
from trainables.training.predictions import Predictions

GOLDEN = Path(__file__).parents[2] / "golden" / "finished"


def test_the_preset_says_that_three_seeds_cannot_decide_one_point_and_what_would() -> None:
    outcome = run_cli("plan", "cifar10-cpu")
    assert outcome.status == 0, outcome.errors
    assert "3 seeds cannot decide a margin of 1.00 pp" in outcome.output
    assert "seeds would with about" in outcome.output
    assert "80 % range" in outcome.output
    assert "the planned looks can decide a margin of" in outcome.output
    assert "full trials that equal device time buys: resnet18" in outcome.output


def test_stated_variances_decide_where_they_are_small_and_few_trials_are_warned_of() -> None:
    small = ("--seed-sd", "0.1", "--image-sd", "10", "--set", "search.num_trials=8")
    outcome = run_cli("plan", "cifar10-cpu", *small)
    assert "3 seeds can decide the margin of 1.00 pp" in outcome.output
    assert "warning: fewer than 5 full trials for resnet50; raise the budget" in outcome.output


def test_an_earlier_study_gives_variances_and_costs() -> None:
    outcome = run_cli("plan", GOLDEN.parent / "spec.toml", "--like", GOLDEN)
    assert outcome.status == 0, outcome.errors
    assert f"variances: {GOLDEN}" in outcome.output
    assert "costs from" in outcome.output
    assert "FLOPs" not in outcome.output


def test_a_plan_without_variances_is_refused_and_all_mistakes_are_in_one_message(tmp_path: Path) -> None:
    refused = run_cli("plan", "demo")
    assert refused.status == 2
    assert all(way in refused.errors for way in ("--like STUDY", "--pilot 3", "--seed-sd and --image-sd", "[plan]"))
    wrong = run_cli("plan", "demo", "--pilot", "1", "--like", "x", "--image-sd=-3")
    assert wrong.status == 2
    for part in (
        "--like, --pilot, --image-sd were given",
        "--image-sd needs --seed-sd",
        "got -3",
        "two or more seeds, but got 1",
    ):
        assert part in wrong.errors
    nothing = run_cli("plan", "demo", "--seed-sd", "0.5", "--image-sd", "0")
    assert nothing.status == 2
    assert "--image-sd > 0 must hold" in nothing.errors
    simulate(tmp_path / "searched")
    unconfirmed = run_cli("plan", "demo", "--like", tmp_path / "searched")
    assert unconfirmed.status == 2
    assert "no confirmation trials yet; run `study compare" in unconfirmed.errors


def test_the_launch_warns_where_known_variances_cannot_decide() -> None:
    spec, _ = load_spec("cifar10-cpu")
    assert "3 seeds cannot decide a margin of 1.00 pp" in describe_launch(spec, 4000, None)
    wide, _ = load_spec("cifar10-cpu", ["confirm.margin=0.2"])
    assert describe_launch(wide, 4000, None) == ""
    shared = spec.model_copy(update={"confirm": spec.confirm.model_copy(update={"intervals": "moderated"})})
    assert describe_launch(shared, 4000, None) == "", "the forecast is of a row that stands alone"


def test_a_study_with_an_arm_whose_runs_all_diverged_gives_variances_without_costs(tmp_path: Path) -> None:
    study = simulate(tmp_path / "earlier", num_trials=4, asha={"enabled": False})

    def curve(record: TrialRecord, epoch: int) -> float:
        return math.nan if record.config.arm == "resnet50" and epoch == 2 else learning_curve(record, epoch)

    confirm(study, read_test=True, num_seeds=2, curve=curve)
    outcome = run_cli("plan", "demo", "--like", tmp_path / "earlier")
    assert outcome.status == 0, outcome
    assert "the cost of resnet50 is not known, since no run of it finished" in " ".join(outcome.output.split())
    unknown, _ = load_spec("demo")
    assert describe_launch(unknown, 800, None) == ""
    warm, _ = load_spec("demo", [f"search.warm_start={str(GOLDEN)!r}", "confirm.margin=0.001"])
    assert "cannot decide a margin of 0.10 pp" in describe_launch(warm, 800, None)


def test_a_pilot_measures_variances_on_the_confirm_split(monkeypatch: pytest.MonkeyPatch) -> None:
    splits, closed = [], []

    class Run:
        """A trial whose predictions are drawn from its seed and arm."""

        is_finished = True

        def __init__(self, config: object, data: SimpleNamespace, **_: object) -> None:
            self._config, self._data = config, data

        def close(self) -> None:
            closed.append(True)

        def predict(self, split: str) -> Predictions:
            splits.append(split)
            ids = self._data.splits.confirm
            labels = self._data.labels[ids]
            generator = np.random.default_rng(self._config.seed + len(self._config.arm))  # type: ignore[attr-defined]
            logits = generator.standard_normal((len(ids), len(self._data.class_names)))
            logits[np.arange(len(ids)), labels] += 1.5
            return Predictions(sample_ids=ids, labels=labels, logits=logits.astype(np.float32), split=split)

    monkeypatch.setattr(pilot, "make_run", Run)
    small = ("data.num_images=700", "data.confirm_fraction=0.2", "data.options.test_set.num_images=100")
    outcome = run_cli("plan", "demo", "--pilot", "3", *(part for override in small for part in ("--set", override)))
    assert outcome.status == 0, outcome.errors
    assert "pilot trial 6 of 6: inverse_frequency" in outcome.output
    assert "a pilot of 3 seeds, on the 140 images of the confirm split" in outcome.output
    assert splits == ["confirm"] * 6
    assert len(closed) == 6
