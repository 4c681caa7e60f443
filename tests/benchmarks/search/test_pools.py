"""Pools of recorded trainings: what a search takes, what its sampler hears, and the measures of given searches."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.search import pool_search
from benchmarks.search.__main__ import PAGE
from benchmarks.search.pool_search import (
    OurPoolSide,
    PoolSearch,
    StockPoolSide,
    Taking,
    Trial,
    make_pool_spec,
    run_search,
)
from benchmarks.search.pool_tables import Measured, Side, compute_excess, measure_side
from benchmarks.search.pools import Pool, PoolArm, load_pool
from benchmarks.search.replay_curves import encode
from benchmarks.search.replay_sides import STOCK_PER_ARM, Setting, default_setting
from search_spaces.errors import UserInputError
from study.scheduling.sampler import RANDOM_EVERY
from study.spec.sections import AshaSpec
from study.spec.study_spec import StudySpec

OURS = Setting(side="ours", sampler="tpe_multivariate", allocation="per_arm", asha=False)
SPACE = {"rate": {"kind": "log", "low": 1e-4, "high": 1.0}, "epochs": {"kind": "int", "low": 2, "high": 8}}


def make_pool(num: int = 30) -> Pool:
    """Return a pool of one arm whose trainings are best at a rate of .01, fail above .3, and are of 2 to 8 points."""
    spec = StudySpec.model_validate(
        {
            "name": "made",
            "data": {"source": "planted"},
            "train": {"trainable": "recorded"},
            "search": {"allocation": "pooled", "space": SPACE},
        }
    )
    generator = np.random.default_rng(0)
    (arm,) = spec.arms()
    curves, hyperparameters = [], []
    for number in range(num):
        rate, points = 10 ** -(4 * (number + 0.5) / num), int(generator.integers(2, 9))
        last = math.nan if rate > 0.3 else 0.9 - 0.1 * abs(math.log10(rate) + 2)
        curves.append(np.linspace(0.2, 1.0, points) * last)
        hyperparameters.append({"rate": rate, "epochs": points, "max_epochs": points})
    recorded = PoolArm(
        hyperparameters=tuple(hyperparameters),
        features=np.array([encode(arm.space, one) for one in hyperparameters]),
        curves=tuple(curves),
        seconds=tuple(np.ones(len(curve)) for curve in curves),
        truth=np.nan_to_num([curve[-1] for curve in curves]),
        guessing=0.5,
    )
    return Pool(
        name="made", spec=spec, arms_by_name={"all": recorded}, recorded_by="", trials=(5, 10, 20), use="choosing"
    )


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    found = make_pool()
    monkeypatch.setattr(pool_search, "load_pool", lambda _: found)
    return found


def test_the_nearest_configuration_is_taken_once(pool: Pool) -> None:
    taking, (arm,) = Taking(pool), pool.spec.arms()
    recorded = pool.arms_by_name["all"]
    wanted = dict(recorded.hyperparameters[7])
    assert taking.take("first", arm, wanted) == wanted
    again = taking.take("second", arm, wanted)
    assert again != wanted
    distances = np.linalg.norm(recorded.features - encode(arm.space, wanted), axis=1)
    assert taking.taken == {"first": ("all", 7), "second": ("all", int(np.argsort(distances)[1]))}


@pytest.mark.parametrize("setting", [OURS, replace(OURS, sampler="gp"), STOCK_PER_ARM])
def test_the_sampler_hears_what_was_taken(pool: Pool, setting: Setting) -> None:
    spec = make_pool_spec(pool, setting, 0)
    ours = setting.side == "ours"
    side: Any = OurPoolSide(spec, pool) if ours else StockPoolSide(spec, pool, budget_seconds=1e9)
    for _ in range(9):
        pool_search._run_trial(side, side.next_trial(), pool)
    study = side._director._samplers["all"]._sampler._history.study if ours else side.searches["all"]._ot_study
    recorded = pool.arms_by_name["all"].hyperparameters
    taken = [recorded[number] for _, number in side.taking.taken.values()]
    assert [trial.params for trial in study.trials] == [{"rate": one["rate"], "epochs": one["epochs"]} for one in taken]


def test_a_search_of_full_trials_spends_its_budget_and_a_diverged_one_ends_where_it_does(pool: Pool) -> None:
    trials = run_search(PoolSearch(pool="made", setting=OURS), 1)
    recorded = pool.arms_by_name["all"]
    most = max(len(curve) for curve in recorded.curves)
    assert (
        20 * recorded.full_seconds - most <= sum(trial.seconds for trial in trials) <= 20 * recorded.full_seconds + most
    )
    assert len({trial.number for trial in trials}) == len(trials)
    for trial in trials:
        curve = recorded.curves[trial.number]
        assert trial.num_points == (len(curve) if np.isfinite(curve[-1]) else 1)
        assert trial.is_full == bool(np.isfinite(curve[-1]))
        assert trial.score == (curve[-1] if trial.is_full else None)
    assert trials == run_search(PoolSearch(pool="made", setting=OURS), 1)
    assert trials != run_search(PoolSearch(pool="made", setting=OURS), 2)


def test_rungs_lie_at_a_part_of_each_trial(pool: Pool) -> None:
    trials = run_search(PoolSearch(pool="made", setting=replace(OURS, asha=True, rung_part=0.5)), 0)
    stopped = [trial for trial in trials if trial.score is not None and not trial.is_full]
    assert len(stopped) > 5
    lengths = {len(pool.arms_by_name["all"].curves[trial.number]) for trial in stopped}
    assert len(lengths) > 2
    for trial in stopped:
        assert trial.num_points == -(-len(pool.arms_by_name["all"].curves[trial.number]) // 2)
    assert len(trials) > len(run_search(PoolSearch(pool="made", setting=OURS), 0))


def test_stock_trains_what_diverged_to_its_end(pool: Pool) -> None:
    trials = run_search(PoolSearch(pool="made", setting=STOCK_PER_ARM), 0)
    diverged = [trial for trial in trials if trial.score is None]
    assert diverged
    assert all(trial.num_points == len(pool.arms_by_name["all"].curves[trial.number]) for trial in diverged)


def test_measures_of_a_search_made_by_hand(pool: Pool) -> None:
    recorded = pool.arms_by_name["all"]
    full, order = recorded.full_seconds, np.argsort(recorded.truth)
    low, best = int(order[12]), int(order[-1])
    trials = (
        Trial("all", low, 2, 2.5 * full, 0.6, is_full=True),
        # Ray's choice is among those that were stopped, too.
        Trial("all", int(order[15]), 2, 0.5 * full, 0.99, is_full=False),
        Trial("all", best, 2, 1.5 * full, 0.8, is_full=True),
    )
    ours, stock = (measure_side([trials], pool, is_stock=is_stock).regrets[0] for is_stock in (False, True))
    top = 100 * recorded.truth[best]
    regret_low, regret_stopped = (top - 100 * recorded.truth[number] for number in (low, int(order[15])))
    assert ours == pytest.approx([top, top, regret_low, regret_low] + 16 * [0.0])
    assert stock == pytest.approx([top, top] + 18 * [regret_stopped])
    assert measure_side([trials], pool, is_stock=False).is_right.tolist() == [True]


def test_the_excess_over_tpe_is_a_part_of_random_search_s_regret_and_stuck_ones_are_counted() -> None:
    generator = np.random.default_rng(0)

    def make_side(level: float) -> Side:
        regrets = level + 0.1 * generator.normal(size=(40, 20))
        return Side(regrets=regrets, is_right=np.ones(40), shares=np.ones(40), saved=np.zeros(40))

    sides = {"random": make_side(2.0), "TPE": make_side(1.0), "worse": make_side(1.5), "stuck": make_side(1.0)}
    sides["stuck"].regrets[:3, -1] = 9.0
    measured = Measured({("cifar10", name): side for name, side in sides.items()})
    excess = compute_excess(measured, "worse", ["cifar10"], 2)
    assert excess.low < 0.25 < excess.high
    assert excess.high - excess.low < 0.1
    assert measured.count_stuck("cifar10", "stuck") == (3, 40)
    assert measured.count_stuck("cifar10", "TPE") == (0, 40)


def test_our_recordings_are_pools_and_a_missing_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = load_pool("diverging")
    assert {name: len(arm.truth) for name, arm in pool.arms_by_name.items()} == {"resnet18": 30, "resnet50": 30}
    assert sum(np.isnan(curve[-1]) for arm in pool.arms_by_name.values() for curve in arm.curves) == 15
    assert all(np.isfinite(seconds).all() for arm in pool.arms_by_name.values() for seconds in arm.seconds)
    monkeypatch.setenv("STUDY_DATA", "nowhere")
    with pytest.raises(UserInputError, match=r"nowhere/data/curves/taskset.*set STUDY_DATA"):
        load_pool("patch32")


def test_the_page_supports_the_default() -> None:
    """The candidate with the least mean excess in the table, and the place of the first rung."""
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("| 26 searches each") :].partition("\n\n")[0].splitlines()[2:]
    means = {cells[1].strip(): float(cells[-3]) for cells in (row.split("|") for row in table)}
    assert min(means, key=lambda name: means[name]) == "tpe, random fourth"
    assert (RANDOM_EVERY, default_setting().sampler) == (4, "auto")
    assert "**The first rung lies at a quarter**" in text
    assert AshaSpec().first_rung == 0.25
