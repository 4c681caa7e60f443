"""P7: the time after which a choice stays good, and the interval of a ratio of medians."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.ratios import Ratio
from benchmarks.search.goal_sides import NUM_CENTERS, find_best_prior, find_worst_prior
from benchmarks.search.replay_curves import Hyperparameters
from benchmarks.search.replay_simulation import Started
from benchmarks.search.watched_search import WatchedSide, compare_times, compare_trials, compute_ratio_interval
from tests.study.simulated import make_spec


@dataclass
class Valley:
    """A landscape whose true macro-F1 is the configuration's own."""

    true_best: dict[str, float] = field(default_factory=lambda: {"resnet18": 0.9})
    num_epochs: int = 2

    def mean_curve(self, hyperparameters: Hyperparameters) -> list[float]:
        return [float(hyperparameters["value"])]

    def last_scores(self, configurations: Sequence[Hyperparameters]) -> NDArray[np.float64]:
        return np.array([float(one["value"]) for one in configurations])


@dataclass
class Scripted:
    """A side whose choice after each trial is given."""

    choices: Iterator[float]

    def next_trial(self) -> Started | None:
        return None

    def on_report(self, *_: object) -> bool:
        self.chosen = {"value": next(self.choices)}
        return False

    def choose(self) -> Hyperparameters:
        return self.chosen


def test_the_time_counts_after_which_the_choice_stays_good() -> None:
    choices = Scripted(iter([0.80, 0.89, 0.86, 0.881, 0.886, 0.886]))
    watched = WatchedSide(choices, Valley())  # type: ignore[arg-type]
    for number in range(6):
        assert not watched.on_report(f"{number}", 1, 0.5, 10.0)
    assert watched.reached == {3.0: 40.0, 2.0: 40.0, 1.5: 50.0}
    seen = [watched.choice_after(seconds) for seconds in (5.0, 35.0, 60.0)]
    assert [choice and choice.hyperparameters for choice in seen] == [None, {"value": 0.86}, {"value": 0.886}]
    regrets = [watched.regret_after(seconds) for seconds in (5.0, 35.0, 60.0)]
    assert regrets == pytest.approx([100 * watched.best, 100 * (watched.best - 0.86), 100 * (watched.best - 0.886)])


@dataclass
class Listed(Scripted):
    """A side whose trials are given too."""

    trials: Iterator[Started] = field(default_factory=lambda: iter(()))

    def next_trial(self) -> Started | None:
        return next(self.trials)


def test_the_best_configuration_counts_that_was_trained_in_full_whatever_is_chosen() -> None:
    """Not one that was stopped or that diverged at its end."""
    values = {"a": 0.80, "stopped": 0.9, "diverged": 0.9, "b": 0.88, "c": 0.85}
    trials = (Started(trial_id=name, hyperparameters={"value": value}) for name, value in values.items())
    watched = WatchedSide(Listed(iter(5 * [0.80]), trials), Valley())  # type: ignore[arg-type]
    for name in values:
        watched.next_trial()
        macro_f1 = np.nan if name == "diverged" else 0.5
        watched.on_report(name, 1 if name == "stopped" else 2, macro_f1, 10.0)
    seconds, regrets = watched.best_trained()
    assert seconds.tolist() == [10.0, 40.0, 50.0]
    assert regrets == pytest.approx([10.0, 2.0, 2.0])
    assert watched.regret_after(50.0) == pytest.approx(10.0)


def test_the_interval_of_a_ratio_of_medians_decides_the_verdict() -> None:
    theirs = np.random.default_rng(0).lognormal(size=300)
    low, high = compute_ratio_interval(0.3 * theirs, theirs)
    assert low == pytest.approx(0.3)
    assert high == pytest.approx(0.3)
    mine = 0.4 * np.random.default_rng(1).lognormal(size=300)
    low, high = compute_ratio_interval(mine, theirs)
    assert 0.2 < low < np.median(mine) / np.median(theirs) < high < 0.7
    verdicts = [Ratio("P7", "", "<= 0.4", (0.39,), interval=i).verdict for i in ((0.2, 0.4), (0.3, 0.5), (0.41, 0.5))]
    assert verdicts == ["met", "open", "MISSED"]
    assert Ratio("P7", "", "<= 0.4", (0.39,), interval=(0.3, 0.5)).row()[3:6] == ("0.39", "[0.3, 0.5]", "open")


def test_the_worst_prior_lies_in_the_worst_corner() -> None:
    class Slope:
        def mean_curve(self, hyperparameters: Hyperparameters) -> list[float]:
            return [float(hyperparameters["max_lr"]) - float(hyperparameters["backbone_lr_ratio"])]

    prior = find_worst_prior(Slope(), make_spec())  # type: ignore[arg-type]
    assert prior == (("max_lr", 0.001, 2.0), ("backbone_lr_ratio", 1.0, 2.0))


def test_the_best_prior_lies_within_half_a_step_of_the_peak() -> None:
    peak = {"max_lr": 0.02, "backbone_lr_ratio": 0.3}

    class Peak:
        def mean_curve(self, hyperparameters: Hyperparameters) -> list[float]:
            return [-sum(abs(math.log(float(hyperparameters[name]) / center)) for name, center in peak.items())]

    prior = find_best_prior(Peak(), make_spec())  # type: ignore[arg-type]
    assert [name for name, _, _ in prior] == list(peak)
    for name, center, _ in prior:
        low, high = map(float, make_spec().arms()[0].space.values_of(name))
        assert abs(math.log(center / peak[name])) <= math.log(high / low) / (NUM_CENTERS - 1) / 2 + 1e-9


def test_a_side_that_is_often_not_there_bounds_the_ratio_from_above_alone() -> None:
    generator = np.random.default_rng(0)
    mine, theirs = generator.uniform(100, 300, 300), np.full(300, 1000.0)
    often = compare_times("found", {"ours": mine, "other": theirs}, "<= 0.4", 1000.0)
    assert often.interval is not None
    assert often.interval[0] == 0
    assert 0.2 < often.interval[1] < 0.25
    assert often.verdict == "met"
    assert compare_times("found", {"ours": theirs, "other": mine}, "<= 0.4", 1000.0).verdict == "open"
    both = compare_times("found", {"ours": mine, "other": 2 * mine}, "<= 0.4", 1000.0)
    assert both.interval == (pytest.approx(0.5), pytest.approx(0.5))


def test_full_trials_to_equal_regret_are_counted_from_where_the_mean_stays_below() -> None:
    mine = np.tile([5.0, 2.0, 4.0, 3.0, 1.0, 1.0], (50, 1))
    assert compare_trials(mine, np.full(50, 3.0)).estimate == 4, "not 2: the regret rises once more"
    assert compare_trials(mine, np.full(50, 9.0)).estimate == 1
    assert compare_trials(mine, np.full(50, 0.5)).estimate == 7, "six are not enough"


def test_the_interval_of_full_trials_to_equal_regret_covers_the_true_number() -> None:
    trials, covered = np.arange(1, 41), []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        mine = 10 / trials + generator.normal(0, 0.8, (100, 1)) + generator.normal(0, 0.1, (100, 40))
        found = compare_trials(mine, generator.normal(1.02, 0.8, 100))
        covered.append(found.low <= 10 <= found.high)
    assert np.mean(covered) >= 0.88
