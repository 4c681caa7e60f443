"""Rungs: trials that reached them and were stopped, rung score against final score, and saved device time."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy.stats import spearmanr

from analysis.search.render import plot_rungs
from analysis.search.search_findings import (
    compute_rank_interval,
    compute_rung_finding,
    compute_rung_scores,
    compute_search_arms,
)
from analysis.search.values import RungFinding
from search_spaces.config import TrialConfig
from tests.built_values import epoch_of, metrics_of, record_of
from trainables.records.record import TrialRecord, TrialState

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
    config = TrialConfig(arm=arm, seed=index, hyperparameters={}, fixed={"max_epochs": max_epochs})
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
