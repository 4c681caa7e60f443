"""Rungs: trials that reached them and were stopped, rung score against final score, and saved device time."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from analysis.search.render import describe_tuning, plot_rungs, plot_tuning_curves
from analysis.search.search_findings import (
    compute_rank_interval,
    compute_rung_finding,
    compute_rung_scores,
    compute_search_arms,
    compute_tuning_curves,
    compute_warnings,
)
from analysis.search.values import OTHER, RungFinding, TuningCurve, compute_epoch_profiles, find_lead_changes
from search_spaces.config import TrialConfig
from study.results.search_results import has_independent_trials
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.analysis.findings_factory import make_findings, make_search_arm
from tests.built_values import epoch_of, metrics_of, record_of
from tests.study.simulated import FIXED, drive, make_spec
from trainables.records.record import TrialRecord, TrialState
from trainables.training.epoch_metrics import PARTS

MAX_EPOCHS = 4


def make_record(
    index: int,
    scores: Sequence[float | None],
    state: TrialState,
    *,
    arm: str = "a",
    seconds_per_epoch: float = 1.0,
    max_epochs: int = MAX_EPOCHS,
) -> TrialRecord:
    """Return a search record whose epochs have these macro-F1."""
    epochs = tuple(
        epoch_of(
            metrics_of(epoch, score, train_seconds=seconds_per_epoch, evaluate_seconds=0.0),
            **{"device_seconds": epoch * seconds_per_epoch, "order": 10 * index + epoch},
        )
        for epoch, score in enumerate(scores, start=1)
    )
    config = TrialConfig(
        arm=arm,
        seed=index,
        hyperparameters={},
        fixed={"max_epochs": max_epochs, "schedule": "cosine", "warmup_fraction": 0.0},
    )
    values = {"state": state, "suggested_order": 10 * index, "device_seconds": seconds_per_epoch * len(epochs)}
    return record_of(config, trial_id=f"{index:05d}", epochs=epochs, **values)


def by_arm(epochs: tuple[int, ...]) -> dict[str, tuple[float, ...]]:
    return dict.fromkeys(("a", "b"), tuple(epoch / MAX_EPOCHS for epoch in epochs))


def complete(index: int, *scores: float, **changes: object) -> TrialRecord:
    return make_record(index, scores, TrialState.COMPLETE, **changes)  # type: ignore[arg-type]


RECORDS = (
    complete(0, 0.1, 0.30, 0.5, 0.70),
    complete(1, 0.1, 0.35, 0.5, 0.60),
    complete(2, 0.1, 0.40, 0.5, 0.80),
    complete(3, 0.1, 0.45, 0.5, 0.75),
    make_record(4, (0.1, 0.20), TrialState.PRUNED, seconds_per_epoch=3.0),
    make_record(5, (0.1, 0.25), TrialState.PRUNED),
    make_record(6, (0.1, 0.38, 0.30), TrialState.PRUNED, seconds_per_epoch=2.0),
    make_record(7, (0.1, None), TrialState.FAILED),
    make_record(8, (0.1, 0.50), TrialState.RUNNING),
    make_record(9, (0.1,), TrialState.FAILED),
    complete(10, 0.2, 0.2, 0.2, 0.2, arm="b"),
)


def compute_rung_findings(records: Sequence[TrialRecord], rungs: Mapping[str, Sequence[float]]) -> list[RungFinding]:
    return [compute_rung_finding(scores) for scores in compute_rung_scores(records, rungs)]


def test_counts_and_correlation_are_those_of_the_records() -> None:
    second, third, *_ = compute_rung_findings(RECORDS, by_arm((2, 3)))
    assert (second.arm, second.epoch) == ("a", 2)
    # Four complete, three that were stopped there or later, one that still runs.
    assert (second.num_reached, second.num_stopped, second.num_completed) == (8, 2, 4)
    expected = spearmanr([0.30, 0.35, 0.40, 0.45], [0.70, 0.60, 0.80, 0.75]).statistic
    assert second.rank_correlation == pytest.approx(expected, abs=1e-12)
    assert second.interval is not None
    assert (third.num_reached, third.num_stopped, third.num_completed) == (5, 1, 4)


def test_there_is_no_correlation_of_equal_scores_and_none_of_one_trial() -> None:
    findings = {(f.arm, f.epoch): f for f in compute_rung_findings(RECORDS, by_arm((2, 3)))}
    assert findings["a", 3].rank_correlation is None  # every complete trial has 0.5 there
    assert findings["b", 2].rank_correlation is None
    assert (findings["b", 2].num_completed, findings["b", 2].interval) == (1, None)


def test_three_trials_have_a_correlation_without_an_interval() -> None:
    (finding,) = compute_rung_findings(RECORDS[:3], by_arm((2,)))
    assert finding.rank_correlation == pytest.approx(0.5)
    assert finding.interval is None


def test_a_complete_trial_with_fewer_epochs_is_not_counted_as_full() -> None:
    short = make_record(11, (0.1, 0.9, 0.9), TrialState.COMPLETE)
    before, after = (compute_rung_findings(r, by_arm((2,)))[0] for r in (RECORDS[:4], (*RECORDS[:4], short)))
    assert after.num_completed == before.num_completed
    assert after.rank_correlation == before.rank_correlation


def test_order_of_the_records_changes_nothing() -> None:
    assert compute_rung_findings(RECORDS[::-1], by_arm((2, 3))) == compute_rung_findings(RECORDS, by_arm((2, 3)))


def test_interval_is_bonett_and_wright_s() -> None:
    interval = compute_rank_interval(0.6, 28)
    assert interval is not None
    half = 1.959963984540054 * math.sqrt((1 + 0.36 / 2) / 25)
    assert interval.low == pytest.approx(math.tanh(math.atanh(0.6) - half), abs=1e-12)
    assert interval.high == pytest.approx(math.tanh(math.atanh(0.6) + half), abs=1e-12)


@pytest.mark.parametrize("correlation", [-0.99, -0.3, 0.0, 0.5, 0.999])
@pytest.mark.parametrize("num_trials", [4, 20, 1000])
def test_interval_contains_the_estimate_and_stays_within_one(correlation: float, num_trials: int) -> None:
    interval = compute_rank_interval(correlation, num_trials)
    assert interval is not None
    assert -1 < interval.low < interval.estimate < interval.high < 1
    wider = compute_rank_interval(correlation, 4)
    assert wider is not None
    assert interval.high - interval.low <= wider.high - wider.low


@pytest.mark.parametrize(("correlation", "num_trials"), [(0.5, 3), (1.0, 50), (-1.0, 50)])
def test_no_interval_where_it_is_undefined(correlation: float, num_trials: int) -> None:
    assert compute_rank_interval(correlation, num_trials) is None


def test_interval_covers_the_correlation_of_normal_scores_in_95_of_100() -> None:
    rng = np.random.default_rng(0)
    truth = 6 / math.pi * math.asin(0.7 / 2)  # Spearman's of a bivariate normal with correlation 0.7
    hits = 0
    for _ in range(400):
        pair = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], size=25)
        interval = compute_rank_interval(float(spearmanr(pair[:, 0], pair[:, 1]).statistic), 25)
        assert interval is not None
        hits += interval.low <= truth <= interval.high
    assert 0.92 <= hits / 400 <= 0.98


def test_search_arms_have_saved_time_at_the_trials_own_speed_and_best_trial() -> None:
    first, second = compute_search_arms(RECORDS)
    spent = sum(r.device_seconds for r in RECORDS if r.config.arm == "a")
    assert (first.saved_device_seconds, second.saved_device_seconds) == (2 * 3.0 + 2 * 1.0 + 1 * 2.0, 0.0)
    assert first.saved_fraction == pytest.approx(10.0 / (spent + 10.0))
    assert (first.best_trial_id, first.best_macro_f1) == ("00002", 0.80)
    assert (second.best_trial_id, second.saved_fraction) == ("00010", 0.0)


def test_an_arm_without_a_full_trial_has_no_best() -> None:
    (arm,) = compute_search_arms([make_record(0, (0.9, 0.9), TrialState.PRUNED)])
    assert (arm.best_trial_id, arm.best_macro_f1) == ("", None)


def test_plot_has_a_panel_per_rung_and_arm_with_its_points_and_stops() -> None:
    scores = compute_rung_scores(RECORDS, by_arm((2, 3)))
    figure = plot_rungs(scores)
    assert len(figure.axes) == 4
    panel = figure.axes[0]
    completed, stopped = panel.get_lines()
    assert list(completed.get_xdata()) == pytest.approx([30, 35, 40, 45])
    assert list(completed.get_ydata()) == pytest.approx([70, 60, 80, 75])
    assert list(stopped.get_xdata()) == pytest.approx([20, 25])
    assert "4 completed, 2 not continued" in panel.get_title()


@pytest.fixture(scope="module")
def records() -> tuple[TrialRecord, ...]:
    book = MemoryBook()
    drive(SearchDirector(book, make_spec(pruning="none"), FIXED))
    return book.of_stage("search")


def compute(records: Sequence[TrialRecord], *, is_independent: bool = True) -> tuple[TuningCurve, ...]:
    return compute_tuning_curves(records, is_independent=is_independent)


def test_curve_rises_ends_below_the_best_and_covers_the_arm_s_device_time(records: tuple[TrialRecord, ...]) -> None:
    curves = compute(records)
    assert [c.arm for c in curves] == ["resnet18", "resnet50"]
    for curve in curves:
        own = [r for r in records if r.config.arm == curve.arm]
        full = [r.last_macro_f1 or 0.0 for r in own if r.state is TrialState.COMPLETE]
        expected = [p.expected for p in curve.points]
        assert all(a <= b + 1e-12 for a, b in itertools.pairwise(expected))
        assert min(full) <= expected[0]
        assert expected[-1] <= max(full)
        assert all(p.low <= p.expected + 1e-12 and p.low <= p.high for p in curve.points)
        assert curve.points[-1].device_seconds == pytest.approx(sum(r.device_seconds for r in own))
        assert curve.observed[-1] == (pytest.approx(curve.points[-1].device_seconds), max(full))
    assert compute(records) == curves


def test_trials_that_depend_on_each_other_have_the_observed_curve_alone(records: tuple[TrialRecord, ...]) -> None:
    adaptive, independent = (compute(records, is_independent=value) for value in (False, True))
    assert all(curve.points == () for curve in adaptive)
    assert [curve.observed for curve in adaptive] == [curve.observed for curve in independent]


@pytest.mark.parametrize(
    ("search", "has_bands"),
    [
        ({"sampler": "random", "pruning": "none"}, True),
        ({"sampler": "random"}, False),
        ({"pruning": "none"}, False),
        ({}, False),
    ],
)
def test_only_random_search_without_early_stopping_has_bands(search: dict[str, object], has_bands: bool) -> None:
    assert has_independent_trials(make_spec(**search)) == has_bands


def test_equal_full_trials_give_the_expected_maximum_of_draws(records: tuple[TrialRecord, ...]) -> None:
    """With trials of one cost, the curve after n of them is the expected maximum of n draws."""
    template = next(r for r in records if r.state is TrialState.COMPLETE)
    scores = [0.1, 0.2, 0.3, 0.4]
    own = []
    for number, score in enumerate(scores):
        last = template.epochs[-1].model_copy(update={"macro_f1": score})
        own.append(
            template.model_copy(
                update={
                    "trial_id": f"{number:05d}",
                    "epochs": (*template.epochs[:-1], last),
                    "device_seconds": 10.0,
                    "ended_order": number,
                }
            )
        )
    (curve,) = compute(own)
    by_time = {p.device_seconds: p.expected for p in curve.points}
    for n in (1, 2, 3, 4):
        exact = np.mean([max(draw) for draw in itertools.product(scores, repeat=n)])
        assert by_time[10.0 * n] == pytest.approx(exact, abs=0.008)
    assert curve.observed == ((10.0, 0.1), (20.0, 0.2), (30.0, 0.3), (40.0, 0.4))


def test_arm_with_too_few_full_trials_has_no_curve(records: tuple[TrialRecord, ...]) -> None:
    few = [r for r in records if r.config.arm == "resnet18" or r.state is not TrialState.COMPLETE]
    assert [c.arm for c in compute(few)] == ["resnet18"]


def make_steps(arm: str, *best: float) -> TuningCurve:
    """Return an observed curve with one trial every 10 device-seconds."""
    return TuningCurve(arm=arm, points=(), observed=tuple((10.0 * i, b) for i, b in enumerate(best, start=1)))


def test_change_of_the_lead_is_found_in_the_observed_curves_and_described() -> None:
    quick, slow = make_steps("quick", 0.5, 0.5, 0.6, 0.6), make_steps("slow", 0.3, 0.5, 0.6, 0.7, 0.8)
    assert find_lead_changes([slow, quick]) == ((10.0, "quick"), (40.0, "slow"))
    assert "at equal device time: quick, then slow from" in describe_tuning((quick, slow))
    assert describe_tuning((quick,)) == ""
    same = (quick, make_steps("low", 0.1, 0.2))
    assert "quick throughout. This is one search per arm" in describe_tuning(same)
    late = TuningCurve(arm="late", points=(), observed=((90.0, 0.9),))
    assert find_lead_changes([quick, late]) == ()


def test_figure_has_steps_per_arm_and_a_band_where_there_is_one() -> None:
    curves = make_findings().tuning_curves
    (axes,) = plot_tuning_curves(curves).axes
    assert (len(axes.collections), len(axes.lines)) == (3, 6)
    assert "resampled" in axes.get_title()
    (axes,) = plot_tuning_curves([replace(curve, points=()) for curve in curves]).axes
    assert (len(axes.collections), len(axes.lines)) == (0, 3)
    assert "resampled" not in axes.get_title()


def make_profiled(arm: str, *parts: dict[str, float]) -> Any:
    """Return a record whose epochs took ten seconds, and two more for evaluation."""
    epochs = [SimpleNamespace(train_seconds=10.0, evaluate_seconds=2.0, part_seconds=tuple(p.items())) for p in parts]
    return SimpleNamespace(config=SimpleNamespace(arm=arm), epochs=epochs)


def test_means_over_profiled_epochs_and_the_rest_is_other() -> None:
    one = {"forward": 3.0, "backward": 4.0, "evaluate": 2.0, "checkpoint": 0.5, "start": 1.0}
    other = {"forward": 5.0, "backward": 4.0, "evaluate": 2.0, "checkpoint": 0.5}
    found = compute_epoch_profiles([make_profiled("b", one, other, {}), make_profiled("a", {})])
    assert [profile.arm for profile in found] == ["b"]
    assert found[0].num_epochs == 2
    assert tuple(found[0].seconds) == (*PARTS, OTHER)
    assert found[0].seconds["forward"] == 4.0
    assert found[0].seconds["start"] == 0.5
    assert found[0].seconds["checkpoint"] == 0.5
    assert found[0].seconds[OTHER] == pytest.approx(12 - 4 - 4 - 2)


def test_without_a_profile_there_is_none() -> None:
    assert compute_epoch_profiles([make_profiled("a", {}, {})]) == ()


@pytest.mark.parametrize(("shares_matter", "number"), [(True, 1), (False, 0)])
def test_unequal_device_time_is_a_warning_only_if_shares_matter(shares_matter: bool, number: int) -> None:
    arms = [make_search_arm("resnet18", 0.28), make_search_arm("resnet50", 0.72)]
    found = compute_warnings(arms, [], ["as planned"], shares_matter=shares_matter)
    assert found[0] == "as planned"
    assert len(found) == 1 + number
    assert all("resnet18 got 28%" in warning for warning in found[1:])
    most = arms[0].num_trials
    assert compute_warnings(arms, [], [], shares_matter=shares_matter, max_trials=most) == ()
    assert len(compute_warnings(arms, [], [], shares_matter=shares_matter, max_trials=most + 1)) == number


@pytest.mark.parametrize(
    ("predictions", "epoch", "shown"),
    [
        (("test",), 3, "scores it by its weights after epoch 3"),
        (("test",), 0, "scores it by labels drawn at random"),
        ((), 3, "failed: train_loss was not finite"),
    ],
)
def test_a_run_that_diverged_is_named_with_what_scores_it(predictions: tuple[str, ...], epoch: int, shown: str) -> None:
    config = TrialConfig(arm="a", seed=1, hyperparameters={}, fixed={})
    ended = {"state": TrialState.FAILED, "reason": "train_loss was not finite", "diverged": True}
    record = record_of(config, trial_id="00003", stage="confirmation", **ended, last_finite_epoch=epoch)
    record = record.updated(predictions=predictions)
    (warning,) = compute_warnings([], [record], [], shares_matter=False)
    assert warning.startswith("Trial confirmation/00003 ")
    assert shown in warning
