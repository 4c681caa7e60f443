"""The simulations behind the comparison, on tiny samples, and the truths that they are judged by."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

from analysis.statistics.metrics import compute_macro_f1
from benchmarks.validation import plan_simulation, selection_simulation, statistics_simulation, validate_statistics
from benchmarks.validation.comparison_measures import measure_groups
from benchmarks.validation.family_simulation import BINOMIAL_FAMILIES, GAUSSIAN_FAMILIES, measure_family
from benchmarks.validation.goals import Goals, Judgement, Rate, list_problems
from benchmarks.validation.statistics_simulation import World
from benchmarks.validation.validate_statistics import Counts

TINY = Counts(coverage=2, methods=2, verdicts=2, looks=2, power=2, families=2, chunks=1)


@pytest.fixture
def _small(monkeypatch):
    """Simulate in this process, in one regime, with truths from few seeds."""
    monkeypatch.setattr(
        validate_statistics, "repeat", lambda function, world, count: [function(world, i) for i in range(count)]
    )
    monkeypatch.setattr(validate_statistics, "REGIMES", {"large (0.15)": 0.15})
    monkeypatch.setattr(statistics_simulation, "NUM_TRUTH_SEEDS", 50)


def test_rates_are_judged_by_their_exact_interval():
    goals = Goals()
    cells = [
        Rate.of_coverage("a", 3800, 4000, half_width=1.0, oracle=1.0),
        Rate.of_coverage("b", 3600, 4000, half_width=1.0, oracle=1.0),
        Rate.of_coverage("c", 19, 20, half_width=1.0, oracle=1.0),
        Rate(name="d", hits=80, count=2000, most=0.05),
        Rate(name="e", hits=130, count=2000, most=0.05),
        Rate(name="f", hits=800, count=1000, least=0.7, most=0.9),
        Rate(name="g", hits=100, count=2000, most=0.05),
    ]
    judged = [goals.judge([cell])[0] for cell in cells]
    expected = [*["met", "missed", "open", "met", "missed", "met", "open"]]
    assert judged == expected
    assert [text.partition(":")[0] for text in list_problems(goals.judged)] == ["b", "e"]
    assert [goal.rule for goal in goals.judged] == [
        *["at least 0.93"] * 3,
        *["at most 0.05"] * 2,
        "0.7 to 0.9",
        "at most 0.05",
    ]


def test_the_interval_of_a_cell_is_corrected_over_the_cells_of_its_table():
    goals = Goals()
    error = Rate(name="error", hits=125, count=2000, most=0.05)
    coverage = Rate.of_coverage("coverage", 1830, 2000, half_width=1.0, oracle=1.0)
    assert goals.judge([error]) == goals.judge([coverage]) == [Judgement.MISSED]
    assert goals.judge([error] * 20) == [Judgement.OPEN] * 20
    assert goals.judge([coverage] * 20) == [Judgement.OPEN] * 20
    wrong = Rate(name="wrong", hits=160, count=2000, most=0.05)
    assert goals.judge([error, wrong] * 10) == [Judgement.OPEN, Judgement.MISSED] * 10
    low, high = binomtest(125, 2000).proportion_ci(1 - 0.05 / 20, method="exact")
    assert goals.judged[2].measured == f"0.0625 [{low:.4f}, {high:.4f}], 20 cells"


def test_coverage_above_99_percent_is_met_and_stands_beside_its_half_width_over_that_of_an_oracle():
    goals = Goals()
    assert goals.judge([Rate.of_coverage("wide", 3990, 4000, half_width=5.36, oracle=2.0)]) == [Judgement.MET]
    goals.judge([Rate.of_coverage("usual", 3800, 4000, half_width=5.36, oracle=2.0)])
    assert goals.judged[0].measured.endswith("]; half-width x 2.68")
    assert "half-width" not in goals.judged[1].measured


@pytest.mark.parametrize(
    "settings",
    [{}, {"imbalance": 20.0}, {"class_seed_sd": 0.3}, {"group_size": 10, "group_sd": 0.7}],
    ids=["plain", "unbalanced", "class x seed", "groups"],
)
def test_true_scores_are_those_of_many_images_and_seeds(settings):
    world = World(seed_sd=0.1, num_seeds=30, shifts=(0.0, 0.3), num_images=8000, **settings)
    arms = world.draw(np.random.default_rng(0))
    for arm, shift in zip(arms, world.shifts, strict=True):
        scores = compute_macro_f1(arm.labels, arm.predicted, arm.num_classes)
        assert np.mean(scores) == pytest.approx(world.compute_true_score(shift), abs=0.02)
    assert world.compute_true_score(world.find_shift(0.02)) - world.compute_true_score(0.0) == pytest.approx(0.02)


def test_the_unbalanced_world_has_the_named_imbalance():
    (arm,) = World(seed_sd=0.0, num_seeds=1, shifts=(0.0,), imbalance=20.0).draw(np.random.default_rng(0))
    sizes = np.bincount(arm.labels)
    assert sizes.max() / sizes.min() == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize(
    "world", [GAUSSIAN_FAMILIES["6 x 100, spread 0.5"], BINOMIAL_FAMILIES["90 directed x 100, S = 1"]]
)
def test_families_are_mostly_covered(world):
    found = [measure_family(world, number) for number in range(12)]
    for question in found[0]:
        assert sum(f[question][0] for f in found) >= 9
    assert ("recipe" in found[0]) == (world.num_seeds > 1)


def test_seeds_of_the_ranking_raise_the_error_and_fresh_ones_do_not():
    found = selection_simulation.measure_ranking(next(iter(selection_simulation.RANKING_CASES.values())), 0)
    limit = 0.025 + 3 * (0.025 * 0.975 / selection_simulation.CHUNK) ** 0.5
    assert found["fresh"] / selection_simulation.CHUNK < limit < found["reused"] / selection_simulation.CHUNK


def test_rare_divergence_is_covered_badly_by_few_seeds():
    found = selection_simulation.measure_divergence(selection_simulation.DivergenceWorld(num_seeds=3, rate=0.1), 0)
    assert 0.24 < found["all"] / selection_simulation.CHUNK < 0.31
    assert found["finished"] / selection_simulation.CHUNK > 0.9
    healthy = selection_simulation.measure_divergence(selection_simulation.DivergenceWorld(num_seeds=3, rate=0.0), 0)
    assert healthy["all"] == healthy["finished"]


def test_images_in_groups_need_clustered_variances():
    world = World(seed_sd=0.02, num_seeds=3, shifts=(0.0, 0.0), num_images=500, group_size=10, group_sd=0.7)
    found = [measure_groups(world, number) for number in range(25)]
    widths = {name: np.mean([f[name][1] - f[name][0] for f in found]) for name in found[0]}
    assert widths["clustered by group"] > 1.1 * widths["images as if independent"]
    errors = {name: sum(not f[name][0] <= 0 <= f[name][1] for f in found) for name in found[0]}
    assert errors["clustered by group"] <= 4


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    "tabulate",
    [
        validate_statistics.tabulate_verdicts,
        validate_statistics.tabulate_looks,
        validate_statistics.tabulate_power,
        validate_statistics.tabulate_groups,
        validate_statistics.tabulate_selection,
    ],
)
def test_tables_hold_a_cell_for_each_column_and_judge_goals(tabulate):
    goals = Goals()
    for table in tabulate(TINY, goals):
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert goals.judged


@pytest.mark.usefixtures("_small")
def test_tables_of_coverage_methods_and_families():
    goals = Goals()
    tables = [
        *validate_statistics.tabulate_coverage(TINY, goals),
        *validate_statistics.tabulate_methods(TINY),
        validate_statistics.tabulate_families(GAUSSIAN_FAMILIES, "gaussian", TINY, goals),
    ]
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert not any(cell == validate_statistics.GOAL for row in table.rows for cell in row)
    assert not any("spread 1.0" in goal.name for goal in goals.judged)


def test_forecasts_of_all_rows_are_judged_together(monkeypatch):
    forecast = SimpleNamespace(low=0.01, high=0.03, half_width=0.02)
    found = [(forecast, half_width) for half_width in [0.02] * 8 + [0.04] * 2]
    monkeypatch.setattr(plan_simulation, "repeat", lambda _function, _world, count: found * (count // 10))
    goals = Goals()
    table = plan_simulation.tabulate_forecasts(300, goals)
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert {row[-1] for row in table.rows[:-1]} == {"met"}
    assert all(goal.measured.endswith(", 16 cells") for goal in goals.judged)
