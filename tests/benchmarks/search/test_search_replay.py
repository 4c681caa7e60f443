"""The search replay: a fair simulation of both sides, correct figures, and a surrogate with measured quality."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks.search import curve_surrogate
from benchmarks.search.curve_surrogate import CurveSurrogate, RegressorKind, fit_arm, predict_curves
from benchmarks.search.record_curves import write_parquet
from benchmarks.search.replay_curves import (
    Curves,
    FloatArray,
    Hyperparameters,
    Recording,
    encode,
    load_curves,
    place_in_space,
)
from benchmarks.search.replay_sides import (
    STOCK,
    STOCK_PER_ARM,
    STOCK_WITH_PORTFOLIO,
    OurSide,
    Setting,
    StockSide,
    default_setting,
    make_side,
    make_spec,
)
from benchmarks.search.replay_simulation import Outcome, Side, simulate
from search_spaces.errors import UserInputError
from search_spaces.portfolios import PORTFOLIOS
from study.spec.study_spec import StudySpec
from tests.study.simulated import make_spec as make_simulated_spec
from trainables.records.record import TrialState
from trainables.seeds import numpy_generator

NUM_EPOCHS = 6
FULL_TRIAL_SECONDS = {"resnet18": 6.0, "resnet50": 18.0}
OURS = Setting(side="ours", sampler="tpe_multivariate", allocation="per_arm", asha=True)


@dataclass
class Hill:
    """A landscape with known optima: 0.8 for ResNet18 and 0.78 for ResNet50, at max_lr 0.05, whatever else is chosen."""

    factor: str = "backbone"
    noise_sd: float = 0.01
    diverges_above: float = math.inf
    true_best: Mapping[str, float] = field(default_factory=lambda: {"resnet18": 0.8, "resnet50": 0.78})

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(self.true_best)

    def mean_curve(self, hyperparameters: Hyperparameters) -> FloatArray:
        lr = float(hyperparameters["max_lr"])
        last = self.true_best[str(hyperparameters["backbone"])] - 0.15 * abs(math.log10(lr / 0.05))
        epochs = np.arange(1, NUM_EPOCHS + 1)
        curve = last * (1 - np.exp(-epochs)) / (1 - math.exp(-NUM_EPOCHS))
        return np.where((lr > self.diverges_above) & (epochs >= 2), np.nan, curve)

    def draw_curve(self, hyperparameters: Hyperparameters, generator: np.random.Generator) -> FloatArray:
        return self.mean_curve(hyperparameters) + generator.normal(0.0, self.noise_sd)

    def seconds(self, arm: str) -> FloatArray:
        return np.full(NUM_EPOCHS, FULL_TRIAL_SECONDS[arm] / NUM_EPOCHS)


def run(setting: Setting, landscape: Hill | None = None, *, num_workers: int = 4, seed: int = 0) -> Outcome:
    """Simulate one study with a budget of 240 device-seconds: 20 full trials of mean cost."""
    spec = make_spec(make_simulated_spec(), setting, budget_seconds=240.0, seed=seed)
    hill: Any = landscape or Hill()
    side = make_side(spec, hill, setting, budget_seconds=240.0)
    return simulate(side, hill, num_workers=num_workers, seed=seed)


@pytest.mark.parametrize("setting", [STOCK, OURS, replace(OURS, allocation="pooled"), replace(OURS, sampler="random")])
def test_both_sides_spend_the_budget_and_at_most_one_trial_per_worker_more(setting: Setting) -> None:
    outcome = run(setting)
    spent = sum(outcome.device_seconds.values())
    assert 0.75 * 240.0 <= spent <= 240.0 + 4 * FULL_TRIAL_SECONDS["resnet50"]
    assert outcome.num_trials >= 15


def test_without_asha_the_budget_is_never_exceeded_and_trials_have_the_costs_of_the_landscape() -> None:
    outcome = run(replace(OURS, asha=False))
    num_small, num_large = outcome.device_seconds["resnet18"] / 6.0, outcome.device_seconds["resnet50"] / 18.0
    assert (num_small, num_large) == (20, 6)
    assert outcome.num_trials == 26


@pytest.mark.parametrize("setting", [STOCK, OURS])
@pytest.mark.parametrize("num_workers", [1, 8])
def test_all_workers_are_used_and_no_more(setting: Setting, num_workers: int) -> None:
    outcome = run(setting, num_workers=num_workers)
    assert outcome.num_peak_running == num_workers
    assert outcome.idle_seconds >= 0.0
    if num_workers == 1:
        assert outcome.idle_seconds == pytest.approx(0.0)


@pytest.mark.parametrize("setting", [STOCK, OURS])
def test_a_study_is_a_function_of_its_seed(setting: Setting) -> None:
    assert run(setting, seed=3) == run(setting, seed=3)
    assert run(setting, seed=3).chosen != run(setting, seed=4).chosen


@pytest.mark.parametrize(
    "setting", [STOCK_WITH_PORTFOLIO, replace(STOCK_PER_ARM, has_portfolio=True), default_setting()]
)
def test_every_side_tries_the_portfolio_first_where_it_has_one(setting: Setting) -> None:
    simulated = make_simulated_spec()
    recorded = simulated.model_copy(update={"model": simulated.model.model_copy(update={"weights": "imagenet"})})
    first: dict[bool, list[Hyperparameters]] = {}
    for has_portfolio in (True, False):
        spec = make_spec(recorded, replace(setting, has_portfolio=has_portfolio), budget_seconds=240.0, seed=0)
        side = make_side(spec, Hill(), setting, budget_seconds=240.0)  # type: ignore[arg-type]
        started = [side.next_trial() for _ in range(6)]
        first[has_portfolio] = [trial.hyperparameters for trial in started if trial is not None]
    recipes = [(r.values["max_lr"], r.values["backbone_lr_ratio"]) for r in PORTFOLIOS["sgd"]]

    def list_rates(found: list[Hyperparameters], backbone: str) -> list[tuple[Any, Any]]:
        return [(one["max_lr"], one["backbone_lr_ratio"]) for one in found if one["backbone"] == backbone][:3]

    for backbone in ("resnet18", "resnet50"):
        rates = list_rates(first[True], backbone)
        assert rates == recipes[: len(rates)]
        assert len(rates) >= 2
        assert not set(list_rates(first[False], backbone)) & set(recipes)


def test_our_arms_get_equal_device_time() -> None:
    spent = run(OURS).device_seconds
    assert min(spent.values()) / sum(spent.values()) >= 0.45


def make_stock(landscape: Hill, spec: StudySpec, setting: Setting = STOCK) -> StockSide:
    return StockSide(make_spec(spec, setting, budget_seconds=240.0, seed=0), landscape, budget_seconds=240.0)


def optuna_trials(side: StockSide) -> list[optuna.trial.FrozenTrial]:
    return [trial for search in side.searches.values() for trial in search._ot_study.trials]


def test_stock_with_one_study_per_arm_shares_the_budget_and_chooses_over_both() -> None:
    landscape = Hill()
    side = make_stock(landscape, make_simulated_spec(), STOCK_PER_ARM)
    outcome = simulate(side, landscape, num_workers=4, seed=0)
    assert set(side.searches) == {"resnet18", "resnet50"}
    assert "backbone" not in {name for trial in optuna_trials(side) for name in trial.params}
    assert min(outcome.device_seconds.values()) / sum(outcome.device_seconds.values()) >= 0.4
    assert outcome.chosen is not None
    assert outcome.chosen["backbone"] in landscape.arms


def test_stock_reports_stopped_trials_to_optuna_as_complete_without_their_last_value() -> None:
    """As in Ray 2.60: `TuneController._process_trial_result` and `stop_trial`."""
    landscape, spec = Hill(noise_sd=0.0), make_simulated_spec()
    side = make_stock(landscape, spec)
    simulate(side, landscape, num_workers=4, seed=0)
    trials = optuna_trials(side)
    assert {t.state for t in trials} == {optuna.trial.TrialState.COMPLETE}
    lengths = Counter(len(t.intermediate_values) + 1 for t in trials)
    assert set(lengths) == {1, 4, 6}, "rungs of grace period 1 and reduction factor 4, and the last epoch"
    for trial in trials:
        curve = landscape.mean_curve(trial.params)
        reported = len(trial.intermediate_values)
        assert trial.value == pytest.approx(curve[reported])
        assert trial.intermediate_values == pytest.approx({e + 1: curve[e] for e in range(reported)})


def test_stock_chooses_the_best_last_value_of_all_trials_stopped_or_not() -> None:
    side = make_stock(Hill(), make_simulated_spec())
    trials = [side.next_trial() for _ in range(3)]
    first, second, third = (t for t in trials if t is not None)
    assert side.on_report(first.trial_id, 1, 0.9, 1.0)
    assert not side.on_report(second.trial_id, 1, 0.8, 1.0), "below the rung's cutoff"
    assert side.choose() == first.hyperparameters
    for epoch in range(2, NUM_EPOCHS + 1):
        side.on_report(first.trial_id, epoch, 0.7, 1.0)
    assert side.on_report(third.trial_id, 1, math.nan, 1.0)
    assert side.choose() == second.hyperparameters


def test_nan_stays_with_stock_and_fails_at_once_with_ours() -> None:
    landscape, spec = Hill(diverges_above=0.1), make_simulated_spec()
    stock = make_stock(landscape, spec)
    simulate(stock, landscape, num_workers=4, seed=0)
    states = Counter(t.state for t in optuna_trials(stock))
    assert states[optuna.trial.TrialState.RUNNING] >= 1, "tell() refuses NaN; Ray logs it and continues"
    ours = OurSide(make_spec(spec, OURS, budget_seconds=240.0, seed=0), landscape)
    simulate(ours, landscape, num_workers=4, seed=0)
    failed = [r for r in ours.book if r.state is TrialState.FAILED]
    assert failed
    assert all(len(r.epochs) == 2 for r in failed)
    for side in (stock, ours):
        chosen = side.choose()
        assert chosen is not None
        assert float(chosen["max_lr"]) <= 0.1


def test_our_choice_ran_every_epoch_and_is_the_best_of_both_arms() -> None:
    landscape, spec = Hill(), make_simulated_spec()
    side: Side = OurSide(make_spec(spec, OURS, budget_seconds=240.0, seed=1), landscape)
    outcome = simulate(side, landscape, num_workers=4, seed=1)
    assert isinstance(side, OurSide)
    complete = [r for r in side.book if r.state is TrialState.COMPLETE]
    best = max(complete, key=lambda r: r.last_macro_f1 or 0.0)
    assert {r.config.arm for r in complete} == {"resnet18", "resnet50"}
    assert outcome.chosen == best.config.hyperparameters


def make_curves(num_trials: int, arm_index: int = 0) -> tuple[Recording, Curves]:
    """Return curves of `Hill` with a little noise, at random configurations of one arm."""
    spec = make_simulated_spec()
    arm = spec.arms()[arm_index]
    generator = numpy_generator(0, "test curves", arm_index)
    hyperparameters: list[Hyperparameters] = []
    for _ in range(num_trials):
        weighting = str(generator.choice(["none", "inverse_frequency", "group"]))
        strength = {} if weighting == "none" else {"class_weight_strength": float(generator.random())}
        hyperparameters.append(
            {
                "backbone": arm.name,
                "max_lr": 10 ** generator.uniform(-3, 0),
                "backbone_lr_ratio": 10 ** generator.uniform(-3, 0),
                "cutmix_probability": float(generator.random()),
                "class_weighting": weighting,
                "interpolation": str(generator.choice(["bicubic", "bilinear"])),
                "weight_decay": 10 ** generator.uniform(-6, -2),
                "label_smoothing": generator.uniform(0.0, 0.2),
                **strength,
            }
        )
    hill = Hill()
    noise = generator.normal(0.0, 0.002, (num_trials, NUM_EPOCHS))
    curves = Curves(
        hyperparameters=tuple(hyperparameters),
        macro_f1=np.array([hill.mean_curve(h) for h in hyperparameters]) + noise,
        cpu_seconds=np.array([hill.seconds(arm.name)] * num_trials),
    )
    return Recording(spec=spec, arms={arm.name: curves}), curves


def test_surrogate_finds_the_known_optimum_and_measures_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve_surrogate, "NUM_RANDOM_CONFIGS", 4000)
    monkeypatch.setattr(curve_surrogate, "NUM_FOLDS", 4)
    recording, curves = make_curves(40)
    surrogate = fit_arm(recording.spec.arms()[0], curves)
    quality = surrogate.quality
    assert (quality.num_trials, quality.num_diverged) == (40, 0)
    assert quality.spearman > 0.8
    assert 0.2 < quality.last_rmse_pp < 0.5 * quality.last_sd_pp
    assert surrogate.residuals.shape == (40, NUM_EPOCHS)
    assert surrogate.seconds.tolist() == [1.0] * NUM_EPOCHS
    whole = CurveSurrogate({"resnet18": surrogate}, "backbone")
    assert whole.true_best["resnet18"] == pytest.approx(0.8, abs=0.04)
    near = whole.mean_curve(dict(curves.hyperparameters[0]))
    assert near == pytest.approx(curves.macro_f1[0], abs=0.05)
    noise = whole.draw_curve(curves.hyperparameters[0], numpy_generator(0, "x")) - near
    assert any(noise == pytest.approx(residual) for residual in surrogate.residuals)


def test_noise_is_that_of_trials_with_similar_curves() -> None:
    recording, curves = make_curves(12)
    surrogate = fit_arm(recording.spec.arms()[0], curves, "extra_trees")
    is_low = np.arange(12) < 4
    levels = np.where(is_low, 0.1, 0.9)[:, None]
    marked = replace(
        surrogate, predicted=levels + np.zeros((12, NUM_EPOCHS)), residuals=levels + np.zeros((12, NUM_EPOCHS))
    )
    drawn = [marked.draw_noise(np.full(NUM_EPOCHS, 0.2), numpy_generator(0, i))[0] for i in range(20)]
    assert drawn == [0.1] * 20


def test_diverged_trials_are_counted_and_left_out_of_the_fit() -> None:
    recording, curves = make_curves(20)
    curves.macro_f1[3, 2:] = np.nan
    surrogate = fit_arm(recording.spec.arms()[0], curves, "extra_trees")
    assert (surrogate.quality.num_trials, surrogate.quality.num_diverged) == (19, 1)
    assert np.isfinite(surrogate.residuals).all()


def test_the_rate_above_which_trials_diverge_is_that_of_the_recording() -> None:
    """One trial below it that diverged all the same, and its epochs, stay an exception."""
    recording, curves = make_curves(30)
    rates = np.array([float(one["max_lr"]) for one in curves.hyperparameters])
    ordered = np.sort(rates)
    curves.macro_f1[rates > ordered[22], 2:] = np.nan
    curves.macro_f1[rates == ordered[4], 1:] = np.nan
    surrogate = fit_arm(recording.spec.arms()[0], curves, "extra_trees")
    assert ordered[22] < surrogate.diverges_above < ordered[23]
    assert sorted(surrogate.good_epochs) == [1] + 7 * [2]
    assert {surrogate.draw_good_epochs(numpy_generator(0, i)) for i in range(60)} == {1, 2}


def test_a_surrogate_of_too_few_trials_is_refused() -> None:
    recording, curves = make_curves(9)
    with pytest.raises(UserInputError, match="at least 10 finished trials per arm, but got 9"):
        fit_arm(recording.spec.arms()[0], curves)


def test_points_of_the_unit_cube_become_configurations_and_features() -> None:
    space = make_simulated_spec().arms()[0].space
    names = space.names
    point = np.full((2, len(names)), 0.5)
    point[0, names.index("class_weighting")] = 0.1
    features = [encode(space, place_in_space(space, row)) for row in point]
    chosen: dict[str, float | str] = {
        "max_lr": 10**-1.5,
        "backbone_lr_ratio": 10**-1.5,
        "cutmix_probability": 0.5,
        "class_weighting": "none",
        "interpolation": "bilinear",
        "weight_decay": 1e-4,
        "label_smoothing": 0.1,
    }
    assert features[0] == pytest.approx(encode(space, chosen))
    weighted = {**chosen, "class_weighting": "inverse_frequency", "class_weight_strength": 0.5}
    assert features[1] == pytest.approx(encode(space, weighted))


def test_recorded_file_comes_back_with_absent_parameters_and_the_epochs_of_a_diverged_trial(tmp_path: Path) -> None:
    _, curves = make_curves(4)
    lines: list[dict[str, Any]] = [
        {
            "config": {"arm": "resnet18", "seed": 1, "hyperparameters": dict(hyperparameters)},
            "epochs": [{"epoch": e + 1, "macro_f1": float(v), "cpu_seconds": 1.0} for e, v in enumerate(curve)],
        }
        for hyperparameters, curve in zip(curves.hyperparameters, curves.macro_f1, strict=True)
    ]
    lines[2]["epochs"] = [*lines[2]["epochs"][:1], {"epoch": 2, "macro_f1": None, "cpu_seconds": 1.0}]
    toml = 'name = "x"\n[data]\nsource = "planted"\n[model]\nweights = "none"\n[search]\nmax_epochs = 6\n'
    write_parquet(dict(enumerate(json.loads(json.dumps(lines)))), {"spec": toml}, tmp_path / "curves.parquet")
    loaded = load_curves(tmp_path / "curves.parquet").arms["resnet18"]
    assert loaded.hyperparameters == curves.hyperparameters
    assert np.isfinite(loaded.macro_f1).sum(axis=1).tolist() == [6, 6, 1, 6]
    with pytest.raises(UserInputError, match="record_curves"):
        load_curves(tmp_path / "nothing.parquet")


@pytest.mark.parametrize("kind", ["gaussian_process", "extra_trees"])
def test_predictions_without_threads_are_those_of_scikit_learn(
    kind: RegressorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve_surrogate, "NUM_FOLDS", 2)
    recording, curves = make_curves(12)
    (arm, *_) = recording.spec.arms()
    regressor: Any = fit_arm(arm, curves, kind).regressor
    features = np.array([encode(arm.space, one) for one in curves.hyperparameters])
    for number in (1, len(features)):
        expected = np.reshape(regressor.predict(features[:number]), (number, -1))
        assert (predict_curves(regressor, features[:number]) == expected).all()
