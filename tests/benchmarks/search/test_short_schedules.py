"""How short schedules rank configurations: counts and correlations of given scores, and the table of the recorded ones."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.search import curve_surrogate, short_schedules
from benchmarks.search.curve_surrogate import RegressorKind, fit_arm, predict_curves
from benchmarks.search.replay_curves import Curves, encode, load_curves
from benchmarks.search.short_schedules import (
    correlate,
    count_kept,
    tabulate_beside,
    tabulate_correlations,
    tabulate_epochs,
)

NUM_FITTED = 20


def test_the_best_that_a_short_schedule_keeps_are_counted() -> None:
    full = np.arange(30.0)
    assert count_kept(full, full) == (3, 3)
    assert count_kept(-full, full) == (0, 3)
    one_lost = full.copy()
    one_lost[29] = -1.0
    assert count_kept(one_lost, full) == (2, 3)


def test_scores_in_the_same_order_correlate_entirely_and_noise_widens_the_interval() -> None:
    generator = np.random.default_rng(0)
    full = generator.normal(size=60)
    assert correlate(np.exp(full), full).low == pytest.approx(1.0)
    noise = generator.normal(size=60)
    noisy = correlate(full + noise, full)
    assert 0.3 < noisy.low < noisy.estimate < noisy.high < 0.95
    assert noisy.estimate == pytest.approx(spearmanr(full + noise, full).statistic)


def test_complete_and_truncated_scores_belong_to_the_same_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_schedules, "NUM_RESAMPLES", 50)
    rows = tabulate_correlations(load_curves()).rows
    assert [row[:3] for row in rows] == [[arm, epochs, "80"] for arm in ("resnet18", "resnet50") for epochs in "13"]
    assert all(float(row[3].split()[0]) > float(row[4].split()[0]) > 0.4 for row in rows)


def test_early_scores_rank_the_better_half_worse_than_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why ASHA's first rung lies late: at the peak of the learning rate, the better half is ranked by little more than chance."""
    monkeypatch.setattr(short_schedules, "NUM_RESAMPLES", 50)
    rows = tabulate_epochs(load_curves()).rows
    assert [row[1] for row in rows] == 2 * [str(epoch) for epoch in range(1, 9)]
    found = {(row[0], int(row[1])): [float(cell.split()[0]) for cell in row[2:]] for row in rows}
    for arm in ("resnet18", "resnet50"):
        assert found[arm, 3][0] > 0.7
        assert found[arm, 3][1] < 0.4
        assert found[arm, 7][1] > 0.8


def test_averaged_weights_and_a_cool_down_are_compared_with_the_same_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cool-down ranks better than the same epoch without it; averaged weights do only once there are enough to average."""
    monkeypatch.setattr(short_schedules, "NUM_RESAMPLES", 50)
    rows = tabulate_beside(load_curves()).rows
    assert [row[1] for row in rows] == 2 * ["1", "2", "3", "4"]
    assert [row[2] for row in rows] == 2 * [*3 * ["averaged weights"], "cool-down after 3"]
    assert min(int(row[3]) for row in rows) >= 60
    gains = [float(row[5].split()[0]) - float(row[4].split()[0]) for row in rows]
    assert [gain > 0 for gain in gains] == 2 * [False, False, True, True]


@pytest.mark.parametrize("kind", ["gaussian_process", "extra_trees"])
def test_predictions_without_threads_are_those_of_scikit_learn(
    kind: RegressorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve_surrogate, "NUM_FOLDS", 2)
    recording = load_curves()
    arm = recording.spec.arms()[0]
    for curves in (recording.arms[arm.name], recording.complete[1][arm.name]):
        curves = Curves(
            hyperparameters=curves.hyperparameters[:NUM_FITTED],
            macro_f1=curves.macro_f1[:NUM_FITTED],
            cpu_seconds=curves.cpu_seconds[:NUM_FITTED],
        )
        regressor: Any = fit_arm(arm, curves, kind).regressor
        features = np.array([encode(arm.space, one) for one in curves.hyperparameters])
        for number in (1, len(features)):
            expected = np.reshape(regressor.predict(features[:number]), (number, -1))
            assert (predict_curves(regressor, features[:number]) == expected).all()
