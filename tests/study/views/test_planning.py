"""`study plan` says what the looks can decide; the launch warns where they cannot; a plan without variances is refused."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from study.confirmation.candidates import candidates
from study.confirmation.plan import ranking_seeds
from study.open_study import OpenStudy
from study.scheduling.director import ConfirmationDirector, want
from study.spec.reading import load_spec, preset_names
from study.state.record_book import open_trial_files
from study.views import forecast_basis
from study.views.planning import describe_chance, describe_launch
from tests.study.command_line import run_cli
from tests.study.searched import confirm, simulate
from tests.study.simulated import drive, learning_curve
from trainables.data.splits import Splits
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


def make_splits(num_test: int) -> Splits:
    train, search, confirm = np.arange(1000), np.arange(200), np.arange(100)
    return Splits(train=train, search=search, confirm=confirm, test=np.arange(num_test), data_fingerprint="")


def test_the_launch_says_the_chance_at_twice_the_margin_and_what_would_raise_it() -> None:
    spec, _ = load_spec("cifar10-cpu")
    enough = describe_launch(spec, make_splits(10_000), None)
    assert enough.startswith(
        "3 seeds and 10,000 test images decide a difference of 2.00 pp, twice the margin, with a chance"
    )
    assert enough.endswith("variances: a study of this preset, 3 seeds and 4,000 test images")
    few = describe_launch(spec, make_splits(4000), None)
    assert few.startswith("warning: 3 seeds and 4,000 test images decide a difference of 2.00 pp")
    assert "A chance of one half takes 4 seeds in one look with 4,000 test images (2 more trials), or 3 seeds" in few
    timed = describe_launch(spec, make_splits(4000), None, {"resnet18": 60.0, "resnet50": 120.0})
    assert "(2 more trials, about 3 min 00 s of device time), or 3 seeds in one look with 4," in timed
    assert "(no more trials, about " in timed.partition(", or ")[2]
    neither, _ = load_spec("cifar10-cpu", ["confirm.margin=0.002"])
    both = describe_launch(neither, make_splits(400), None)
    assert "20 seeds in one look with" in both
    assert "(34 more trials)" in both
    shared = spec.model_copy(update={"confirm": spec.confirm.model_copy(update={"intervals": "moderated"})})
    assert "with a chance of at least " in describe_launch(shared, make_splits(4000), None)
    alone, _ = load_spec("cifar10-cpu", ["search.allocation='pooled'"])
    assert describe_launch(alone, make_splits(4000), None) == ""


def test_variances_that_nothing_measured_are_named_as_assumed() -> None:
    for weights, origin in (
        ("none", "a study of the preset demo"),
        ("imagenet", "eight studies with pretrained weights"),
    ):
        spec, _ = load_spec("demo", [f"model.weights={weights!r}"])
        assert f"variances: assumed from {origin}" in describe_launch(spec, make_splits(2000), None)


def test_a_study_whose_variances_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    simulate(tmp_path / "earlier", num_trials=4, pruning="none")
    for name, reason in (("earlier", "earlier"), ("missing", "there is no study at")):
        spec, _ = load_spec("demo", [f"search.warm_start={str(tmp_path / name)!r}"])
        said = describe_launch(spec, make_splits(800), None)
        assert "variances: assumed from " in said
        assert reason in said.partition("; search.warm_start gives none: ")[2]


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_decides_twice_its_margin_as_often_as_not_or_says_that_it_does_not(preset: str) -> None:
    spec, _ = load_spec(preset)
    is_planted = spec.data.source == "planted"
    said = describe_launch(spec, make_splits(2000 if is_planted else spec.data.num_test_images or 10_000), None)
    assert said.startswith("warning: ") == is_planted
    assert ("8 seeds in one look" in said) == is_planted
    assert is_planted or spec.confirm.margin <= 0.01


def test_a_study_with_an_arm_whose_runs_all_diverged_gives_variances_without_costs(tmp_path: Path) -> None:
    study = simulate(tmp_path / "earlier", num_trials=4, pruning="none")

    def curve(record: TrialRecord, epoch: int) -> float:
        return math.nan if record.config.arm == "resnet50" and epoch == 2 else learning_curve(record, epoch)

    confirm(study, read_test=True, num_seeds=2, curve=curve)
    outcome = run_cli("plan", "demo", "--like", tmp_path / "earlier")
    assert outcome.status == 0, outcome
    assert "the cost of resnet50 is not known, since no run of it finished" in " ".join(outcome.output.split())
    unknown, _ = load_spec("demo")
    assert "variances: assumed" in describe_launch(unknown, make_splits(800), None)
    warm, _ = load_spec("demo", [f"search.warm_start={str(GOLDEN)!r}", "confirm.margin=0.001"])
    assert f"variances: {GOLDEN}, " in describe_launch(warm, make_splits(800), None)


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

    monkeypatch.setattr(forecast_basis, "make_run", Run)
    small = ("data.num_images=700", "data.confirm_fraction=0.2", "data.options.test_set.num_images=100")
    outcome = run_cli("plan", "demo", "--pilot", "3", *(part for override in small for part in ("--set", override)))
    assert outcome.status == 0, outcome.errors
    assert "pilot trial 6 of 6: inverse_frequency" in outcome.output
    assert "a pilot of 3 seeds, on the 140 images of the confirm split" in outcome.output
    assert splits == ["confirm"] * 6
    assert len(closed) == 6


def rank(study: OpenStudy, num_seeds: int) -> tuple[dict[str, tuple[TrialRecord, ...]], tuple[int, ...]]:
    """Run the ranking of a searched study, with predictions of the confirm split; return the candidates and the seeds."""
    spec = study.spec.model_copy(
        update={"confirm": study.spec.confirm.model_copy(update={"num_ranking_seeds": num_seeds})}
    )
    chosen, seeds = candidates(study.book, spec), ranking_seeds(spec)
    drive(ConfirmationDirector(study.book, [t for sources in chosen.values() for s in sources for t in want(s, seeds)]))
    labels = np.arange(60) % 3
    for record in study.book.of_stage("confirmation"):
        logits = np.random.default_rng(int(record.trial_id)).standard_normal((60, 3)) + 2 * np.eye(3)[labels]
        found = Predictions(sample_ids=np.arange(60), labels=labels, logits=logits.astype(np.float32), split="confirm")
        digests = open_trial_files(study.store, record).write_predictions(found, record.attempts)
        study.book.save(record.updated(predictions=("confirm",), digests=record.digests | digests))
    return chosen, seeds


def test_the_ranking_of_the_candidates_gives_variances_and_costs_before_the_confirmation(tmp_path: Path) -> None:
    study = simulate(tmp_path / "two", num_trials=8, pruning="none")
    chosen, seeds = rank(study, 2)
    basis = forecast_basis.find_ranked_basis(study, chosen, seeds)
    assert basis is not None
    pairs = min(map(len, chosen.values()))
    assert basis.components.num_measured_seeds == 1 + pairs
    assert basis.components.num_measured_images == 60
    assert basis.components.images + basis.components.seeds_x_images > 0
    assert basis.source == f"the ranking, {pairs} of each arm's candidates on the 60 images of the confirm split"
    assert basis.costs is not None
    assert basis.costs["resnet50"] == pytest.approx(3 * basis.costs["resnet18"], rel=0.2)
    assert "the ranking, " in describe_chance(study.spec, make_splits(2000), basis)
    single = simulate(tmp_path / "one", num_trials=8, pruning="none")
    assert forecast_basis.find_ranked_basis(single, *rank(single, 1)) is None, "one seed has no variance"
