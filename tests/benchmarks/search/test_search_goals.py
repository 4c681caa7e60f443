"""The goals of the default search: what its tables say about given searches, and one simulated search of each side."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.search import curve_surrogate, goal_sides, goal_tables, watched_search
from benchmarks.search.curve_surrogate import CurveSurrogate
from benchmarks.search.goal_sides import (
    JUDGED,
    NO_ASHA,
    OURS,
    PART_BESIDE,
    PLAIN_STOCK,
    RANDOM,
    RIGHT_PRIOR,
    STOCK_BY_ARM,
    STOCK_PORTFOLIO,
    WITH_DIVERGENCE,
    WRONG_PRIOR,
    Call,
    Landscape,
    list_sides,
    simulate_sides,
)
from benchmarks.search.replay_curves import load_curves
from benchmarks.search.replay_measures import compute_rate_ratio, judge_wrong
from benchmarks.search.watched_search import TOLERANCES_PP, Watched
from trainables.seeds import numpy_generator

RECORDED = "recorded"


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Few trees predict five times as fast; how well is a question of other tests. This process starts no others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curve_surrogate, "NUM_TREES", 20)
        patch.setattr(goal_sides, "run_parallel", lambda function, calls: [function(*call) for call in calls])
        yield


@pytest.fixture(scope="module")
def landscape() -> Landscape:
    recording = load_curves()
    return Landscape(CurveSurrogate.fit(recording, "extra_trees"), recording.spec, has_goals=True)


def make_found(num_wrong: dict[str, int], regret: dict[str, float], num_seeds: int = 40) -> dict[Call, Watched]:
    generator = numpy_generator(0, "searches")
    found = {}
    for side in list_sides():
        for seed in range(num_seeds):
            seconds = (100.0, 200.0, 300.0 if side == OURS else 2000.0)
            noise = float(generator.normal(0, 0.1))
            found[Call(RECORDED, side, seed)] = Watched(
                seconds=seconds,
                regrets_pp=tuple(regret.get(side, 1.0) + noise + max(0.0, 1.5 - 0.1 * n) for n in range(1, 81)),
                is_wrong=seed < num_wrong.get(side, 0),
                spent_seconds=1000.0,
                trained_seconds=(50.0, 100.0, 150.0 if side == OURS else 600.0),
                trained_pp=0.4 + noise,
            )
    assert TOLERANCES_PP[-1] == 1.5
    return found


def test_seeds_of_each_side(landscape: Landscape) -> None:
    goals, beside = replace(landscape, has_goals=True), replace(landscape, has_goals=False)
    assert [goals.count_seeds(WRONG_PRIOR, 240, is_whole=whole) for whole in (False, True)] == [0, 240]
    assert [goals.count_seeds(STOCK_PORTFOLIO, 240, is_whole=whole) for whole in (False, True)] == [240, 240]
    assert [goals.count_seeds(side, 240, is_whole=True) for side in (RIGHT_PRIOR, NO_ASHA)] == [120, 7]
    counts = [beside.count_seeds(side, 240, is_whole=True) for side in (OURS, STOCK_PORTFOLIO, NO_ASHA, WRONG_PRIOR)]
    assert counts == [16, 16, 0, 0]
    assert goals.count_seeds(NO_ASHA, 2, is_whole=True) == 2


def test_tables_say_what_the_intervals_decide(landscape: Landscape) -> None:
    regret = {OURS: 1.0, RANDOM: 1.01, PLAIN_STOCK: 2.0, STOCK_PORTFOLIO: 2.0, STOCK_BY_ARM: 1.5}
    found = make_found({OURS: 1, RANDOM: 1, PLAIN_STOCK: 20, STOCK_BY_ARM: 20}, regret)
    verdicts = [row[-1] for row in goal_tables.tabulate_goals(found, RECORDED).rows]
    # Against stock without and with the portfolio, random search, TPE and one study per arm; of each of our sides.
    assert verdicts[:5] == ["met", "met", "open", "open", "met"]
    assert len(verdicts) == 13
    times = {row[0]: row for row in goal_tables.tabulate_times(found, RECORDED, landscape).rows}
    assert times["default / stock"][1:7] == ("1.5", "40", "0.150", "[0.150, 0.150]", "<= 0.25", "met")
    trained = {row[0]: row for row in goal_tables.tabulate_trained(found, RECORDED, landscape).rows if row[1] == "1.5"}
    assert trained["default / random, portfolio"][2:5] == ("40", "0.250", "[0.250, 0.250]")
    trials = {row[:2]: row[2:] for row in goal_tables.tabulate_trials(found, RECORDED).rows}
    # Of a regret of 1 pp, 2.5 are left before the first trial and .1 less after each; stock has 2 in the end, random search 1.01.
    assert trials["default", "stock"][:2] == ("40", "2.00")
    assert trials["default", "stock"][2].startswith("6 [")
    assert trials["stock", "default"][2] == "over 80 [over 80, over 80]"
    choices = {row[0]: row for row in goal_tables.tabulate_choices(found, RECORDED).rows}
    assert choices["stock"][4].startswith("20 [")
    assert choices["default"][2].startswith("1.0") or choices["default"][2].startswith("0.9")
    assert choices["default"][3].startswith("0.4") or choices["default"][3].startswith("0.3")


def test_wrong_arms_are_judged_by_the_interval_of_the_ratio() -> None:
    assert judge_wrong((2, 300), (20, 100)) == "met"
    assert judge_wrong((30, 300), (20, 100)) == "open", "half as often, but not surely"
    assert judge_wrong((90, 300), (25, 100)) == "MISSED"
    assert judge_wrong((0, 50), (6, 50)) == "open"
    assert judge_wrong((0, 50), (0, 50)) == "open"
    ratio = compute_rate_ratio((30, 300), (20, 100))
    assert ratio.estimate == pytest.approx(0.5)
    assert (ratio.low, ratio.high) == pytest.approx((0.297, 0.842), abs=0.01)


@pytest.mark.parametrize(("rate", "ratio"), [(0.5, 0.5), (0.1, 0.5), (0.2, 1.0)])
def test_the_interval_of_the_ratio_covers_it(rate: float, ratio: float) -> None:
    generator = numpy_generator(0, "ratios", f"{rate} {ratio}")
    ours, others = generator.binomial(40, rate * ratio, 1000), generator.binomial(300, rate, 1000)
    found = [compute_rate_ratio((int(one), 40), (int(other), 300)) for one, other in zip(ours, others, strict=True)]
    assert np.mean([interval.low <= ratio <= interval.high for interval in found]) >= 0.95


def test_sides_with_fewer_seeds_are_compared_over_those_that_both_have() -> None:
    found = make_found({}, {OURS: 1.0, PLAIN_STOCK: 1.4})
    few = {call: one for call, one in found.items() if call.side != OURS or call.seed < 6}
    only = {call: one for call, one in found.items() if call.seed < 6}
    row = f"{OURS}: regret below that of {PLAIN_STOCK}"
    (by_few,) = [cells for cells in goal_tables.tabulate_goals(few, RECORDED).rows if cells[0] == row]
    (by_only,) = [cells for cells in goal_tables.tabulate_goals(only, RECORDED).rows if cells[0] == row]
    assert by_few == by_only


def test_each_side_is_simulated_in_each_landscape(landscape: Landscape, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a tenth of the budget."""
    monkeypatch.setattr(goal_sides, "BUDGET_IN_FULL_TRIALS", 12.0)
    for module in (goal_sides, watched_search):
        monkeypatch.setattr(module, "EARLY_IN_FULL_TRIALS", 8.0)
    found = simulate_sides({RECORDED: landscape, "beside": replace(landscape, has_goals=False)}, 1, is_whole=True)
    assert {call.side for call in found if call.landscape == RECORDED} == set(list_sides())
    assert {call.side for call in found if call.landscape == "beside"} == set(JUDGED)
    assert all(np.isfinite(one.regret_pp) and one.regret_pp > -1e-9 for one in found.values())
    assert all(list(times) == sorted(times) for one in found.values() for times in (one.seconds, one.trained_seconds))
    ours = [one for call, one in found.items() if call.side == OURS]
    assert all(-1e-9 < one.trained_pp <= one.regret_pp for one in ours)


@pytest.mark.filterwarnings("ignore:All-NaN slice encountered")
def test_where_trials_diverge_their_device_time_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock Ray Tune goes on with a trial whose metric is not finite, to its end."""
    monkeypatch.setattr(goal_sides, "EARLY_IN_FULL_TRIALS", 12.0)
    recording = load_curves()
    arms = {}
    for name, curves in recording.arms.items():
        diverges = np.array([float(one["max_lr"]) for one in curves.hyperparameters]) > 0.05
        scores = np.where(diverges[:, None] & (np.arange(curves.macro_f1.shape[1]) >= 3), np.nan, curves.macro_f1)
        arms[name] = replace(curves, macro_f1=scores)
    recording = replace(recording, arms=arms)
    landscape = Landscape(CurveSurrogate.fit(recording, "extra_trees"), recording.spec, has_goals=False)
    num_seeds = 4 * PART_BESIDE
    assert [landscape.count_seeds(side, num_seeds) for side in (OURS, STOCK_BY_ARM)] == [4, 0]
    assert [landscape.count_seeds(side, num_seeds, is_whole=True) for side in (OURS, STOCK_BY_ARM)] == [4, 0]
    found = simulate_sides({"d": landscape}, num_seeds, is_whole=True)
    assert {call.side for call in found} == set(WITH_DIVERGENCE)
    shares = {row[0]: float(row[2].split()[0]) for row in goal_tables.tabulate_divergence(found, "d").rows}
    assert 0 < shares[OURS] < shares[PLAIN_STOCK]
